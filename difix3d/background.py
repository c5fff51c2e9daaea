"""The colour behind a photo with alpha and behind the render that is compared with it: the same, everywhere.

Photos and renders are kept as seen over black, that is, multiplied by their alpha; another colour is added where it
shows through (Porter and Duff, Compositing Digital Images, 1984). A photo without alpha is wholly there.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.types import Render, View

Color = Float[Tensor, "3"]
COLORS: dict[str, Color | None] = {"": None, "black": None, "white": torch.ones(3)}
"""By name; black is ``None`` everywhere, and so is nothing that shows through."""


def over(view: View, background: Color | None) -> View:
    """The view without alpha, over a colour; ``None`` for black."""
    if view.alpha is None:
        return view
    return replace(view, image=behind(view.image, view.alpha, background), alpha=None)


def behind(image: Float[Tensor, "H W 3"], alpha: Float[Tensor, "H W"], background: Color | None) -> Tensor:
    """An image that is seen over black, over another colour."""
    return image if background is None else image + (1 - alpha)[..., None] * background.to(image)


def recolored(render: Render, background: Color | None) -> Render:
    """The same render over another colour; ``None`` for black."""
    if render.background is None and background is None:
        return render
    black = torch.zeros_like(render.rgb[0, 0, 0])
    old, new = (black if color is None else color.to(black) for color in (render.background, background))
    return replace(render, rgb=render.rgb + (1 - render.alpha) * (new - old), background=background)


def within(image: Float[Tensor, "H W 3"], alpha: Float[Tensor, "H W"]) -> Float[Tensor, "H W 3"]:
    """An image over black, no brighter than its alpha allows: what a fixer puts around an object is not there."""
    return torch.minimum(image, alpha[..., None].to(image))
