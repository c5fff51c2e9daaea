"""Batches of crops, and what is changed in them at random."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Crops in 0..1; ``V`` references of each pair, perhaps none.

    ``images`` are the renders' RGB, and the guide (alpha, RGBA of each layer of warped references) if there is one.
    """

    images: Float[Tensor, "B K H W"]
    photos: Float[Tensor, "B 3 H W"]
    references: Float[Tensor, "B V 3 H W"]
    prompts: list[str]


@dataclass(frozen=True)
class Augmentation:
    """Changes a batch at random, each time anew; see ``TrainDifixConfig`` for its parts."""

    shuffle_channels: bool = False
    color_jitter: float = 0.0
    identity_prob: float = 0.0
    plain_prob: float = 0.0

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The changed batch."""
        if self.plain_prob and rng.random() < self.plain_prob:
            batch = before_plain(batch, rng)
        if self.shuffle_channels:
            batch = permuted(batch, rng.permutation(3).tolist())
        if self.color_jitter:
            batch = jittered(batch, self.color_jitter, rng)
        return identical(batch, alone=rng.random() < 0.5) if rng.random() < self.identity_prob else batch


def before_plain(batch: Batch, rng: np.random.Generator) -> Batch:
    """The same batch before a plain background: what the render does not cover has one colour, in the photo and in the
    layers as well. Half of the colours are black, as behind objects that were cut out; the others fade from top to
    bottom, as skies do."""
    height = batch.photos.shape[2]
    ends = np.zeros((2, 3)) if rng.random() < 0.5 else (rng.random(3) + rng.uniform(-0.2, 0.2, (2, 1))).clip(0, 1)
    fade = np.linspace(0, 1, height)[:, None]
    plain = torch.from_numpy((1 - fade) * ends[0] + fade * ends[1]).float().T[..., None]
    covered = batch.images[:, 3:4]
    images = batch.images.clone()
    for first in range(0, images.shape[1], 4):
        valid = images[:, first + 3 : first + 4] if first else 1
        images[:, first : first + 3] = covered * images[:, first : first + 3] + (1 - covered) * plain * valid
    return replace(batch, images=images, photos=covered * batch.photos + (1 - covered) * plain)


def permuted(batch: Batch, order: list[int]) -> Batch:
    """The same batch with its colour channels in another order."""
    colors = [4 * picture + i for picture in range(batch.images.shape[1] // 4) for i in (*order, 3)] or order
    return replace(
        batch, images=batch.images[:, colors], photos=batch.photos[:, order], references=batch.references[:, :, order]
    )


def jittered(batch: Batch, amount: float, rng: np.random.Generator) -> Batch:
    """The same batch under other light: all its pictures get one random gamma, and one random gain for each channel.

    Args:
        amount: gamma is between exp(-amount) and exp(amount), a gain within half of that; 0.4 is much.
    """
    gamma = float(np.exp(rng.uniform(-amount, amount)))
    gain = torch.from_numpy(np.exp(rng.uniform(-amount / 2, amount / 2, 3))).float()[:, None, None]

    def lit(colors: Tensor) -> Tensor:
        return (gain * colors**gamma).clamp(0, 1)

    images = batch.images.clone()
    for first in range(0, images.shape[1], 4):  # RGB and alpha of the render, and of each layer
        images[:, first : first + 3] = lit(images[:, first : first + 3])
    return replace(batch, images=images, photos=lit(batch.photos), references=lit(batch.references))


def identical(batch: Batch, alone: bool = False) -> Batch:
    """The same batch with the photo as its render, all opaque: there is nothing to fix.

    Args:
        alone: no layer is valid either. A network that always has layers to copy from need not learn to keep the
            render, and takes contrast away where no photo sees it.
    """
    images = batch.images.clone()
    images[:, :3], images[:, 3:4] = batch.photos, 1
    if alone:
        images[:, 4:] = 0
    return replace(batch, images=images)
