"""How well a Difix does on pairs: PSNR and LPIPS before and after, and pictures to look at."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from difix3d.difix_training.batch import Batch
from difix3d.difix_training.dataset import Pair, centre
from difix3d.images import strip, to_uint8, write_image
from difix3d.metrics import LPIPS, psnr


@dataclass(frozen=True)
class PairScore:
    """One pair: PSNR in dB and LPIPS (VGG) of the render and of the fixed image; no LPIPS without its network."""

    id: str
    psnr_before: float
    psnr_after: float
    lpips_before: float | None
    lpips_after: float | None


def validate(
    fix: Callable[[Batch], Float[Tensor, "B 3 H W"]],
    pairs: Iterable[Pair],
    inputs: tuple[tuple[int, int], int, int],
    lpips: LPIPS | None,
    folder: Path,
    pictures: frozenset[str] = frozenset(),
) -> list[PairScore]:
    """Fixes the central crop of each pair; writes those of the named pairs as ``folder/ID.png``.

    Args:
        inputs: (height, width) of the crops, how many references, and how many layers of warped ones.

    Numbers are of 8-bit images at the resolution that is trained at.
    """
    scores = []
    for pair in pairs:
        batch = centre(pair, *inputs)
        fixed = fix(batch)
        render, photo, after = (
            torch.from_numpy(to_uint8(x[0, :3].permute(1, 2, 0))) for x in (batch.images, batch.photos, fixed)
        )
        distances = [None if lpips is None else lpips.score(image, photo) for image in (render, after)]
        scores.append(PairScore(pair.id, psnr(render, photo), psnr(after, photo), *distances))
        if pair.id in pictures:
            name = pair.id.replace("/", "_")
            write_image(folder / f"{name}.png", picture(batch, fixed))
    return scores


def picture(batch: Batch, fixed: Float[Tensor, "1 3 H W"]) -> UInt8[np.ndarray, "H _ 3"]:
    """Render, fixed, photo, the layers of warped references and the references of one pair, side by side."""
    layers = batch.images[0, 4:].unflatten(0, (-1, 4))[:, :3]
    views = [batch.images[0, :3], fixed[0], batch.photos[0], *layers, *batch.references[0]]
    return strip([to_uint8(view.permute(1, 2, 0)) for view in views])


def means(scores: list[PairScore]) -> dict[str, float]:
    """Mean of each number over the pairs."""
    names = ("psnr_before", "psnr_after", "lpips_before", "lpips_after")
    found = {name: [getattr(score, name) for score in scores] for name in names}
    return {name: float(np.mean(values)) for name, values in found.items() if values and values[0] is not None}


def evenly(items: list[Any], count: int) -> list[Any]:
    """At most ``count`` of the items, evenly spread."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]
