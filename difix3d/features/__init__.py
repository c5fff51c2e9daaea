"""Networks whose features say how alike images are: VGG-16, AlexNet, and the Inception of the FID.

Plain modules that load the published weight files (:mod:`difix3d.features.weights`), without torchvision: that cannot
be imported beside a CPU torch.
"""

from difix3d.features.alexnet import AlexNet
from difix3d.features.inception import Inception, inception_features
from difix3d.features.vgg16 import VGG16, imagenet_normalize

__all__ = ["VGG16", "AlexNet", "Inception", "imagenet_normalize", "inception_features"]
