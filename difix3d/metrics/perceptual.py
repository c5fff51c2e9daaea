"""LPIPS (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"), version 0.1."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from difix3d.errors import UserError
from difix3d.features import VGG16, AlexNet, imagenet_normalize, weights

Net = Literal["vgg", "alex"]
CHANNELS = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}
HEADS = {"vgg": weights.LPIPS_VGG, "alex": weights.LPIPS_ALEX}
SMALLEST = {"vgg": 16, "alex": 31}
"""Pixels on the shorter side, below which nothing is left for the last layers."""


class LPIPS(nn.Module):
    """Perceptual distance with the published linear heads: 0 for equal images, about 0.8 for unrelated ones.

    Papers on view synthesis report ``vgg`` mostly; the authors of LPIPS recommend ``alex`` for comparing, ``vgg`` as a
    loss. The network is frozen and differentiable with respect to the images.

    Raises:
        UserError: its weights are not to be had (:mod:`difix3d.features.weights`).
    """

    def __init__(self, net: Net = "vgg"):
        super().__init__()
        self.net = net
        self.network = VGG16.pretrained() if net == "vgg" else AlexNet.pretrained()
        shapes = {f"lin{i}.model.1.weight": (1, width, 1, 1) for i, width in enumerate(CHANNELS[net])}
        heads = weights.load(HEADS[net], shapes)
        self.heads = nn.ParameterList(head for head in heads.values()).requires_grad_(False)

    def forward(self, a: Float[Tensor, "B 3 H W"], b: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B"]:
        """Distances between images in 0..1, mean over each image."""
        return torch.stack([layer.mean((1, 2, 3)) for layer in self._layers(a, b)]).sum(0)

    def map(self, a: Float[Tensor, "B 3 H W"], b: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B H W"]:
        """Distance at each pixel: the layers' maps, enlarged bilinearly and summed ("spatial" in the reference)."""
        layers = [F.interpolate(layer, a.shape[2:], mode="bilinear") for layer in self._layers(a, b)]
        return torch.stack(layers).sum(0)[:, 0]

    @torch.no_grad()
    def score(
        self, image: UInt8[Tensor, "H W 3"], target: UInt8[Tensor, "H W 3"], mask: Bool[Tensor, "H W"] | None = None
    ) -> float:
        """Distance of two pictures; with a mask the mean of the map on its pixels, NaN if it is empty.

        What lies outside of the mask is made equal before, so that it does not count through the pixels next to it.
        """
        if mask is not None:
            image = torch.where(mask[..., None], image, target)
        device = self.heads[0].device
        a, b = (x.to(device).permute(2, 0, 1)[None].float() / 255 for x in (image, target))
        return float(self(a, b) if mask is None else self.map(a, b)[0][mask.to(device)].mean())

    def _layers(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """Weighted squared differences [B,1,h,w] of the features of each layer, which have length 1 at each pixel."""
        height, width = a.shape[2:]
        if min(height, width) < SMALLEST[self.net]:
            raise UserError(
                f"An image of {width} x {height} pixels is too small for LPIPS ({self.net})",
                f"Its network needs {SMALLEST[self.net]} pixels on each side",
                "Compare larger images, or leave LPIPS out",
            )
        # one after the other: where only one has a gradient, as a loss does, the other is not gone back through
        features = (self.network(imagenet_normalize(images)) for images in (a, b))
        differences = []
        for layers, head in zip(zip(*features, strict=True), self.heads, strict=True):
            x, y = (F.normalize(layer, dim=1, eps=1e-10) for layer in layers)
            differences.append(F.conv2d((x - y).square(), head))
        return differences
