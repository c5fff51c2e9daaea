"""Poses of photos, aligned with a model at test time: what a picture would score if its photo's pose were exact."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from difix3d.evaluate.results import ALIGNED, Variant
from difix3d.geometry.poses import moved
from difix3d.metrics import color_fit
from difix3d.types import Cameras, RenderFn, View

STEPS = 80
"""Of Adam."""
FIRST, LAST = 0.5, 0.01
"""Pixels by which the picture moves in the first step and in the last one."""


def align(render: RenderFn, view: View) -> Cameras:
    """The view's camera, moved to where the frozen model looks most like the photo.

    Adam on the mean absolute error of the render in the photo's colours (:func:`difix3d.metrics.color_fit`), through
    the rasteriser's gradient of the pose. Held-out poses of a run that refined those of its training photos need it, as
    the model follows the refined ones. It sees the photo: figures from such poses stand beside the raw ones only.

    Args:
        render: the model, differentiable in the camera.
        view: the photo; pixels outside of its mask do not count.
    """
    if view.mask is not None and not view.mask.any():
        return view.camera
    with torch.no_grad():
        start = render(view.camera)
        view = view.to(start.rgb.device)
        camera, mask = view.camera, view.mask
        seen = start.alpha[0, ..., 0] > 0.5
        depth = float(start.depth_map[seen].median()) if start.depth is not None and seen.any() else 1.0
    pixel = 1 / float(camera.K[0, 0, 0])
    scale = torch.tensor([pixel] * 3 + [pixel * depth] * 3, device=camera.c2w.device)
    motion = torch.zeros(1, 6, device=camera.c2w.device, requires_grad=True)
    optimizer = torch.optim.Adam([motion], lr=FIRST)
    best, least = camera, float("inf")
    with torch.enable_grad():
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = FIRST * (LAST / FIRST) ** (step / STEPS)
            at = replace(camera, c2w=moved(camera.c2w, motion * scale))
            rgb = render(at).rgb[0]
            fit = color_fit(rgb.detach(), view.image, mask)
            error = (rgb @ fit[:, :3].T + fit[:, 3] - view.image).abs()
            loss = error.mean() if mask is None else error[mask].mean()
            if loss.item() < least:
                best, least = replace(camera, c2w=at.c2w.detach()), loss.item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return best


def at_cameras(views: Iterable[View], cameras: Sequence[Cameras]) -> Iterable[View]:
    """The views, seen from these cameras instead of their own."""
    return (replace(view, camera=camera) for view, camera in zip(views, cameras, strict=True))


def beside(variant: Variant, aligned: Variant) -> Variant:
    """The variant with the metrics of pictures from aligned poses beside its own."""
    images = tuple(
        image | {ALIGNED + key: value for key, value in other.items() if key not in ("name", "seconds")}
        for image, other in zip(variant.images, aligned.images, strict=True)
    )
    return replace(variant, images=images)
