"""Pictures of a render (colours, depth, coverage, what photos saw and what was invented), and of it beside another."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difix3d.distill.references import References
from difix3d.geometry.poses import pose_distance
from difix3d.geometry.warp import seen_by, unproject
from difix3d.types import Cameras, Render, RenderFn

Layer = Literal["colour", "depth", "coverage", "seen or invented"]
LAYERS: tuple[Layer, ...] = get_args(Layer)
Comparison = Literal["off", "photo", "side by side", "difference", "blink"]
COMPARISONS: tuple[Comparison, ...] = get_args(Comparison)
Image = Float[Tensor, "H W 3"]

NEIGHBOURS = 12
"""Captured cameras that are asked whether they see a pixel: the nearest ones."""
SIDE = 160
"""Long side of their depth maps, in pixels."""
GRID = 320
"""Long side of the grid that they are asked on."""
TOLERANCE = 0.1
"""Difference in depth, as a share of it, up to which two cameras see the same surface; the maps are coarse."""
GAIN = 3.0
"""Factor of differences, so that they are seen."""
RAMP = torch.tensor(
    [
        [0.19, 0.07, 0.23],
        [0.27, 0.42, 0.91],
        [0.10, 0.80, 0.80],
        [0.55, 0.98, 0.33],
        [0.98, 0.75, 0.22],
        [0.75, 0.15, 0.02],
    ]
)
"""Near to far, about as in the colour map "turbo"."""
SEEN, ONCE, INVENTED = torch.tensor([[0.16, 0.53, 0.93], [0.55, 0.78, 0.98], [0.98, 0.45, 0.10]])
"""Two or more photos see a pixel; one does; none does."""


def picture(layer: Layer, out: Render, seen: Callable[[], Int[Tensor, "H W"]]) -> Float[Tensor, "H W 3"]:
    """A render as the chosen layer shows it, 0..1.

    Args:
        layer: which.
        out: of a single camera, with depth.
        seen: counts the photos that see each pixel; only called if the layer needs it.
    """
    rgb, alpha = out.rgb[0].clamp(0, 1), out.alpha[0]
    if layer == "depth":
        return depth_colors(out.depth_map) * alpha
    if layer == "coverage":
        return alpha.expand(-1, -1, 3).clamp(0, 1)
    if layer == "seen or invented":
        return seen_colors(rgb, alpha[..., 0], seen())
    return rgb


def depth_colors(depth: Float[Tensor, "H W"]) -> Float[Tensor, "H W 3"]:
    """Colours by inverse depth, between the 2nd and the 98th percentile of what is seen; black where nothing is."""
    there = depth > 0
    if not there.any():
        return torch.zeros(*depth.shape, 3, device=depth.device)
    inverse = 1 / depth.clamp(min=1e-9)
    some = inverse[there]
    some = some[:: max(1, len(some) // 10_000)]
    low, high = some.quantile(0.02), some.quantile(0.98)
    far = 1 - ((inverse - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    ramp, position = RAMP.to(depth.device), far * (len(RAMP) - 1)
    left = position.long().clamp(max=len(RAMP) - 2)
    share = (position - left)[..., None]
    return (ramp[left] * (1 - share) + ramp[left + 1] * share) * there[..., None]


def seen_colors(
    rgb: Float[Tensor, "H W 3"], alpha: Float[Tensor, "H W"], count: Int[Tensor, "H W"]
) -> Float[Tensor, "H W 3"]:
    """The picture in grey, tinted: blue where photos see it, orange where it was invented; black where nothing is."""
    grey = rgb.mean(-1, keepdim=True)
    tint = torch.stack([INVENTED, ONCE, SEEN]).to(rgb.device)[count.clamp(max=2)]
    return (0.35 * tint + 0.65 * tint * grey.sqrt()) * (alpha >= 0.5)[..., None]


class Seen:
    """Counts the training photos that see each pixel of a render, by the model's own depth.

    Args:
        cameras: of the training photos.
        render: the model, with depth.
    """

    def __init__(self, cameras: Cameras, render: RenderFn):
        self._references = References(cameras, range(len(cameras)), render)

    @torch.no_grad()
    def __call__(self, camera: Cameras, depth: Float[Tensor, "H W"]) -> Int[Tensor, "H W"]:
        """For each pixel of the camera, with its rendered depth; counted on a grid of at most 320 pixels a side."""
        captured, size = self._references.cameras, depth.shape
        camera = camera.limited(GRID)
        depth = torch.nn.functional.interpolate(depth[None, None], camera.size[::-1], mode="nearest")[0, 0]
        count = torch.zeros(depth.shape, dtype=torch.long, device=depth.device)
        points = unproject(depth, camera)
        order = pose_distance(camera.c2w, captured.c2w).argsort()[:NEIGHBOURS]
        for index in order.tolist():
            theirs = self._references.depth(index, SIDE)
            small = captured[index].resized(theirs.shape[1], theirs.shape[0])
            count += seen_by(points, small, theirs, TOLERANCE)[0] & (depth > 0)
        return torch.nn.functional.interpolate(count[None, None].float(), size, mode="nearest")[0, 0].long()


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
