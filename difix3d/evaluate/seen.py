"""What training photos show of the evaluated views: pixels that a model can know, and pixels that it can only guess."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difix3d.evaluate.results import SEEN, UNSEEN
from difix3d.geometry.warp import surface
from difix3d.images import read_image, write_image
from difix3d.metrics import reached, visibility
from difix3d.types import Cameras, RenderFn, View

SURFACE = 320
"""Long side, in pixels, of the depth maps of training cameras that tell what they see."""
FEWEST = 0.01
"""Share of a picture's pixels below which its seen, or its unseen, pixels have no figures of their own."""

Seen = Callable[[View], Bool[Tensor, "H W"]]
"""The pixels of a view that some training photo shows."""


def seen_pixels(render: RenderFn, train: Cameras) -> Seen:
    """Finds what training photos show of a view, each by its own rendered depth (:func:`difix3d.metrics.reached`).

    Args:
        render: the model, with depth; drawn when the first view is asked for.
        train: the photos' cameras.
    """

    @cache
    def depths() -> list[Float[Tensor, "_ _"]]:
        outs = (render(train[i].limited(SURFACE)) for i in range(len(train)))
        return [surface(out.depth_map, out.alpha[0, ..., 0]) for out in outs]

    @torch.no_grad()
    def find(view: View) -> Bool[Tensor, "H W"]:
        return reached(view.camera, train, depths()).cpu()

    return find


def noted(seen: Seen, folder: Path) -> Seen:
    """The same, which also leaves what it finds in a folder, as pictures: white is seen."""

    def find(view: View) -> Bool[Tensor, "H W"]:
        found = seen(view)
        write_image(folder / f"{view.place}.png", (found[..., None].expand(-1, -1, 3) * 255).to(torch.uint8))
        return found

    return find


def as_noted(folder: Path) -> Seen:
    """What :func:`noted` left in a folder."""
    return lambda view: torch.from_numpy(read_image(folder / f"{view.place}.png"))[..., 0] > 0


def only_visible(views: Iterable[View], render: RenderFn, train: Cameras) -> Iterator[View]:
    """The views, masked down to what training cameras see, by the depth of a model (Nerfbusters' protocol)."""
    small = [train[i].limited(SURFACE) for i in range(len(train))]
    depths = [render(camera).depth_map for camera in small]
    for view in views:
        seen = visibility(render(view.camera).depth_map, view.camera, Cameras.cat(small), depths).to(view.image.device)
        yield replace(view, mask=seen if view.mask is None else seen & view.mask)


def parts(
    seen: Bool[Tensor, "H W"], mask: Bool[Tensor, "H W"] | None
) -> tuple[dict[str, float], dict[str, Bool[Tensor, "H W"]]]:
    """The pixels that count, apart.

    Returns:
        ``seen``, the share of them that is seen (nothing if none counts), and the pixels of each part by the prefix of
        its metrics; a part of less than :data:`FEWEST` is left out.
    """
    counted = torch.ones_like(seen) if mask is None else mask
    total = int(counted.sum())
    if total == 0:
        return {}, {}
    apart = {SEEN: seen & counted, UNSEEN: ~seen & counted}
    share = int(apart[SEEN].sum()) / total
    return {"seen": share}, {name: part for name, part in apart.items() if int(part.sum()) >= FEWEST * total}
