"""Does fixing flicker? Warp errors along a path of a model's renders, and of the ways to fix them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.files import or_nan
from difix3d.geometry.warp import surface
from difix3d.images import strip, to_uint8
from difix3d.metrics import warp_error
from difix3d.types import Cameras, RenderFn
from difix3d.video import video_writer

SHORT, LONG = 1, 4
"""Frames from one of a pair to the other."""
FPS = 24.0


@dataclass(frozen=True)
class Steadiness:
    """How steady the frames of one way are.

    Attributes:
        row: whose: title of a row of the table.
        way: "render" (what nothing was done to: no fixer gets below it), "fixed", "carried", "mixed".
        short, long: warp error of frames one and four apart, 0..1, over the pixels whose surface both see; NaN if there
            are none.
        errors: of each pair of adjacent frames.
    """

    row: str
    way: str
    short: float
    long: float
    errors: tuple[float, ...]


@torch.no_grad()
def steadiness(
    row: str,
    ways: Mapping[str, Iterable[Float[Tensor, "H W 3"]]],
    render: RenderFn,
    cameras: Sequence[Cameras],
    video: Path | None = None,
) -> tuple[Steadiness, ...]:
    """Warp errors of some ways to make the frames of a path.

    Args:
        row: whose ways they are.
        ways: a frame for each camera, by the name of the way.
        render: the model, whose depth carries each frame into others.
        cameras: single cameras, all of one size.
        video: where to write all ways side by side.
    """
    whole = Cameras.cat(list(cameras)).to("cpu")
    outs = map(render, cameras)
    depths = [surface(out.depth_map, out.alpha[0, ..., 0]).cpu() for out in outs]
    frames = {way: [torch.from_numpy(to_uint8(image)) for image in images] for way, images in ways.items()}
    if video is not None:
        with video_writer(video, FPS) as write:
            for shown in zip(*frames.values(), strict=True):
                write(strip([picture.numpy() for picture in shown]))
    found = []
    for way, pictures in frames.items():
        short, long = (warp_error(pictures, depths, whole, step) for step in (SHORT, LONG))
        found.append(Steadiness(row, way, short.mean, long.mean, short.errors))
    return tuple(found)


def read_steadiness(content: Sequence[Mapping[str, Any]]) -> tuple[Steadiness, ...]:
    """From what JSON holds: a number that is not defined is ``null`` there."""
    numbers = ({key: or_nan(item[key]) for key in ("short", "long")} for item in content)
    errors = (tuple(or_nan(error) for error in item["errors"]) for item in content)
    return tuple(
        Steadiness(str(item["row"]), str(item["way"]), errors=each, **both)
        for item, both, each in zip(content, numbers, errors, strict=True)
    )
