"""The convolutions of VGG-16 (Simonyan and Zisserman 2015, configuration D), for LPIPS and the Gram loss."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difix3d.features import weights

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def imagenet_normalize(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Images in 0..1, centred and scaled by ImageNet's mean and standard deviation, as the networks were trained on."""
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=images.dtype, device=images.device)[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225], dtype=images.dtype, device=images.device)[:, None, None]
    return (images - mean) / std


class VGG16(nn.Module):
    """Gives the last activation of each stage, which is what both LPIPS and the Gram loss compare.

    Keys of the parameters are as in torchvision (``features.N.weight``).
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self._last: list[int] = []
        channels = 3
        for widths in STAGES:
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            self._last.append(len(layers) - 1)
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])

    @classmethod
    def pretrained(cls) -> "VGG16":
        """As trained on ImageNet, frozen; :class:`difix3d.errors.UserError` if its file is not to be had."""
        network = weights.fill(cls(), weights.VGG16)
        # a CPU takes a fifth less time so; cuDNN has its fp32 kernels for the other order
        if not torch.cuda.is_available():
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Activations [B,C,h,w] of each stage.

        Args:
            images: after :func:`imagenet_normalize`; at least 16 pixels on each side.
        """
        found = []
        x = images
        for index, module in enumerate(self.features):
            x = module(x)
            if index in self._last:
                found.append(x)
        return found
