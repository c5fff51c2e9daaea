"""Pictures of two pictures."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

Comparison = Literal["off", "photo", "side by side", "difference", "blink"]
COMPARISONS: tuple[Comparison, ...] = get_args(Comparison)

GAIN = 3.0
"""Factor of differences, so that they are seen."""

Image = Float[Tensor, "H W 3"]


def split(left: Image, right: Image, share: float) -> Image:
    """The left picture up to a share (0..1) of the width, then the right one, with a white line between them."""
    width = left.shape[1]
    column = round(min(1.0, max(0.0, share)) * width)
    both = torch.cat([left[:, :column], right[:, column:]], 1)
    both[:, max(0, column - 1) : column + 1] = 1.0
    return both


def compared(mode: Comparison, render: Image, photo: Image, tick: int) -> Float[Tensor, "_ _ 3"]:
    """A render and a photo of the same size, as the mode shows them; ``blink`` by whether ``tick`` is odd."""
    if mode == "photo" or (mode == "blink" and tick % 2):
        return photo
    if mode == "side by side":
        return torch.cat([render, photo], 1)
    if mode == "difference":
        return ((render - photo).abs() * GAIN).clamp(max=1.0)
    return render


def letterbox(image: Image, aspect: float) -> Float[Tensor, "_ _ 3"]:
    """The picture with grey bars, so that its width is ``aspect`` times its height."""
    height, width = image.shape[:2]
    sides, ends = max(0, round(height * aspect) - width), max(0, round(width / aspect) - height)
    padding = (0, 0, sides // 2, sides - sides // 2, ends // 2, ends - ends // 2)
    return torch.nn.functional.pad(image, padding, value=0.2)
