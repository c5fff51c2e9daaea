"""Videos on disk: written frame by frame, there when they are complete."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from difix3d.errors import UserError
from difix3d.files import beside, cannot_write

WRITTEN = {".mp4", ".mov", ".avi", ".mkv"}
"""Suffixes of the videos that can hold what :func:`video_writer` writes."""
VIDEOS = WRITTEN | {".webm", ".m4v", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".wmv", ".gif"}
"""Suffixes of the files that are taken for videos, in lower case."""

OPTIONS = (
    "-vf scale=out_color_matrix=bt709:out_range=tv -color_range tv -colorspace bt709 -color_primaries bt709 "
    "-color_trc bt709 -preset veryfast"
)
"""ffmpeg's: the colours are named in the file (else players guess them by the size of the picture), and the encoder is
several times as fast as by default, in files of the same size."""
STREAMED = {".mp4": "-movflags +faststart", ".mov": "-movflags +faststart"}
"""Options for containers whose index would lie at the end: browsers play what they have when it lies at the start."""


@contextmanager
def video_writer(path: Path, fps: float) -> Iterator[Callable[[UInt8[np.ndarray, "H W 3"]], None]]:
    """A function that appends frames; the file appears at the end, if there was any frame and no error.

    It is H.264 in yuv420p, which all players show. That needs even sides: the last column or row of a frame with an odd
    side is there twice.

    Raises:
        UserError: a frame of another size than the first, or a file that cannot be written.
    """
    partial = beside(path)
    writer: Any = None
    first: tuple[int, ...] = ()

    def write(frame: UInt8[np.ndarray, "H W 3"]) -> None:
        nonlocal writer, first
        with _explained(path):
            if writer is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                writer, first = _open(partial, fps), frame.shape
            if frame.shape != first:
                raise UserError(
                    f"A frame of {path} is {frame.shape[1]} x {frame.shape[0]} pixels",
                    f"All frames of a video have the size of the first: {first[1]} x {first[0]}",
                )
            odd = frame.shape[0] % 2, frame.shape[1] % 2
            writer.append_data(np.pad(frame, ((0, odd[0]), (0, odd[1]), (0, 0)), "edge") if any(odd) else frame)

    try:
        yield write
        with _explained(path):
            if writer is not None:
                writer.close()
                partial.replace(path)
    finally:
        if writer is not None:
            writer.close()
            partial.unlink(missing_ok=True)


def _open(path: Path, fps: float) -> Any:
    import imageio.v2 as imageio

    options = f"{OPTIONS} {STREAMED.get(path.suffix.lower(), '')}"
    return imageio.get_writer(
        path,
        "ffmpeg",
        fps=fps,
        quality=9,
        macro_block_size=1,
        pixelformat="yuv420p",
        output_params=options.split(),
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
