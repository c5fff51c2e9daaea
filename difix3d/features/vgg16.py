"""The convolutions of VGG-16 (Simonyan and Zisserman 2015, configuration D), for LPIPS and the Gram loss."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difix3d.features import weights

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
"""The last activation of each stage: what both LPIPS and the Gram loss compare."""


def imagenet_normalize(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Images in 0..1, centred and scaled by ImageNet's mean and standard deviation, as the networks were trained on."""
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=images.dtype, device=images.device)[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225], dtype=images.dtype, device=images.device)[:, None, None]
    return (images - mean) / std


class VGG16(nn.Module):
    """Gives any of its thirteen activations; keys of the parameters as in torchvision (``features.N.weight``)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.position: dict[str, int] = {}
        channels = 3
        for stage, widths in enumerate(STAGES, 1):
            for number, width in enumerate(widths, 1):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                self.position[f"relu{stage}_{number}"] = len(layers) - 1
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])

    @classmethod
    def pretrained(cls) -> "VGG16":
        """As trained on ImageNet, frozen; :class:`difix3d.errors.UserError` if its file is not to be had."""
        return weights.fill(cls(), weights.VGG16)

    def forward(self, images: Float[Tensor, "B 3 H W"], layers: Sequence[str] = LAYERS) -> list[Tensor]:
        """Activations [B,C,h,w] of the named layers, in that order.

        Args:
            images: after :func:`imagenet_normalize`; at least 16 pixels on each side for all layers.
            layers: names like "relu3_3" (stage, number of the convolution). Nothing behind the last one is computed.
        """
        positions = [self.position[layer] for layer in layers]
        found = {}
        x = images
        for index in range(max(positions) + 1):
            x = self.features[index](x)
            if index in positions:
                found[index] = x
        return [found[position] for position in positions]
