"""The terms of Difix's training loss (paper, section 4.1): one named function each.

All take images in 0..1 (the network's output is not clamped) and run in fp32.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from difix3d.difix_training.config import DifixLossConfig
from difix3d.features import imagenet_normalize
from difix3d.metrics import LPIPS

Images = Float[Tensor, "B 3 H W"]
GRAM_WEIGHTS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
"""Of relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 (Liu et al. 2018, as in the paper)."""
GRAM_CROP = 400
"""Pixels of a side of the crop that Gram matrices are compared on."""


def l2(fixed: Images, photo: Images) -> Float[Tensor, ""]:
    """Mean squared difference of the colours in -1..1, the range of the VAE."""
    return 4 * F.mse_loss(fixed, photo)


def lpips(fixed: Images, photo: Images, network: LPIPS) -> Float[Tensor, ""]:
    """Mean perceptual distance."""
    return network(fixed, photo).mean()


def gram(
    fixed: Images, photo: Images, features: Callable[[Tensor], Sequence[Tensor]], generator: torch.Generator
) -> Float[Tensor, ""]:
    """Mean squared differences of Gram matrices, a weighted sum over five layers (Reda et al. 2022, eq. 3).

    Args:
        features: the activations of VGG-16 for ImageNet-normalised images.
        generator: draws the crop of 400 x 400 pixels, or of the whole side where an image is smaller.
    """
    height, width = fixed.shape[-2:]
    box = (..., *random_crop(height, width, generator))
    with torch.no_grad():
        targets = [gram_matrix(layer) for layer in features(imagenet_normalize(photo[box]))]
    found = [gram_matrix(layer) for layer in features(imagenet_normalize(fixed[box]))]
    terms = [w * F.mse_loss(a, b) for w, a, b in zip(GRAM_WEIGHTS, found, targets, strict=True)]
    return torch.stack(terms).sum()


def gram_matrix(features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C C"]:
    """Products of all pairs of channels, summed over the pixels, divided by C x h x w."""
    flat = features.flatten(2)
    return flat @ flat.mT / features[0].numel()


def random_crop(height: int, width: int, generator: torch.Generator) -> tuple[slice, slice]:
    """Rows and columns of a square of ``GRAM_CROP`` pixels, or less where the image ends."""

    def part(size: int) -> slice:
        start = int(torch.randint(max(size - GRAM_CROP, 0) + 1, (), generator=generator))
        return slice(start, min(start + GRAM_CROP, size))

    return part(height), part(width)


def loss_terms(
    fixed: Images, photo: Images, network: LPIPS | None, config: DifixLossConfig, step: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """All terms that count at this step, times their weights.

    Args:
        network: LPIPS, whose VGG-16 also serves the Gram term; may be ``None`` if both have weight 0.
    """
    terms = {}
    if config.l2 > 0:
        terms["l2"] = config.l2 * l2(fixed, photo)
    first = step % config.perceptual_every  # each place of the batch in its turn
    fixed, photo = fixed[first :: config.perceptual_every], photo[first :: config.perceptual_every]
    if config.lpips > 0:
        assert network is not None
        terms["lpips"] = config.lpips * lpips(fixed, photo, network)
    if config.gram > 0 and step >= config.gram_start:
        assert network is not None
        terms["gram"] = config.gram * gram(fixed, photo, network.network, generator)
    return terms
