"""The frames of a video: the sharpest of each half second, upright, in a folder that knows which video it is of."""

import hashlib
import logging
import math
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from difix3d.errors import UserError
from difix3d.files import read_json, refuse_pointer, write_json
from difix3d.images import write_image
from difix3d.sfm.database import progress
from difix3d.sfm.listing import FEWEST

log = logging.getLogger(__name__)

FRAMES_PER_SECOND = 2.0
MAX_FRAMES = 300
"""Of a video: one frame, the sharpest, out of each half second, or out of longer spans of a long video."""
MAX_FPS = 30.0
"""More frames a second are not looked at: they are alike, and decoding takes the time."""

RECORD = "video.json"
"""Beside ``images``: which video the frames are of."""

CURE = "Convert it to MP4 (H.264)"

TONEMAP = (
    "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,zscale=t=bt709:m=bt709:r=tv,"
    "format=yuv420p"
)
"""ffmpeg's filters from HDR (HLG of phones, PQ) to the range of other videos; without, frames are grey and flat."""


class Video(NamedTuple):
    """What ffmpeg says of a video before it decodes it; fps and seconds are 0 if unknown."""

    fps: float
    seconds: float
    hdr: bool


def extract_frames(video: Path, data_dir: Path, is_scene: Callable[[Path], object] | None = None) -> Path:
    """Writes the frames of a video to ``images`` of a folder of their own, unless they are there.

    The folder is ``data_dir/STEM``, or ``STEM-2`` and so on where that is taken by something else: by another video of
    that name, by this one before it was changed, or by photos with cameras, of which ``is_scene`` knows.

    Raises:
        UserError: the video cannot be read, or nothing can be written; nothing is left then.
    """
    what = _fingerprint(video)

    def free(folder: Path) -> bool:  # the video itself may lie in it
        return (
            not (folder / "images").exists() and not (folder / RECORD).exists() and not (is_scene and is_scene(folder))
        )

    folder = next(place for place in _places(data_dir, video.stem) if free(place) or _record(place) in (what, {}))
    if (folder / "images").is_dir():
        if not _record(folder):
            log.warning(
                "%s was made by an older version, which kept no record of its video: taken for the frames of %s. "
                "If they are not, move the folder away",
                folder / "images", video,
            )  # fmt: skip
        return folder
    if folder.name != video.stem:
        log.warning(
            "%s holds frames of another video, or of %s before it was changed: the frames go to %s",
            data_dir / video.stem, video, folder,
        )  # fmt: skip
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".frames-", dir=folder) as work:
            images = Path(work) / "images"
            images.mkdir()
            _extract(video, images)
            write_json(folder / RECORD, what)
            os.replace(images, folder / "images")
    except OSError as error:
        raise UserError(
            f"Cannot write to {folder} ({error.strerror or error})", "", "Choose another data_dir"
        ) from None
    finally:
        with suppress(OSError):
            if made:
                folder.rmdir()  # which leaves it if there is anything in it
    return folder


def list_frames(folder: Path) -> tuple[Path, list[str]]:
    """The folder of the frames that :func:`extract_frames` has written, and their names in order.

    Raises:
        UserError: there are fewer than 3.
    """
    names = sorted(path.name for path in (folder / "images").glob("*.jpg"))
    if len(names) < FEWEST:
        raise UserError(
            f"The video of {folder / 'images'} gave {len(names)} frames",
            f"To find the cameras takes {FEWEST} at least, and 20 to be good: {FRAMES_PER_SECOND:g} a second are kept",
            "Film for half a minute while walking around",
        )
    return folder / "images", names


def _fingerprint(video: Path) -> dict[str, Any]:
    """What tells a video from others, wherever it lies: its size and its first and last megabyte."""
    try:
        size = video.stat().st_size
        with video.open("rb") as file:
            ends = file.read(1 << 20)
            file.seek(max(0, size - (1 << 20)))
            ends += file.read()
    except OSError as error:
        raise UserError(f"The video {video} cannot be read ({error.strerror or error})", "", "Check the path") from None
    return {"video": video.name, "bytes": size, "sha256_of_ends": hashlib.sha256(ends).hexdigest()}


def _places(data_dir: Path, stem: str) -> Iterator[Path]:
    yield data_dir / stem
    yield from (data_dir / f"{stem}-{number}" for number in count(2))


def _record(folder: Path) -> dict[str, Any] | None:
    """Which video the frames of a folder are of; empty for frames without a record, ``None`` for other photos."""
    if (folder / RECORD).exists():
        with suppress(UserError):
            return read_json(folder / RECORD)
        return None
    frames = [path.name for path in (folder / "images").glob("*")]
    return {} if frames and all(re.fullmatch(r"\d{5}\.jpg", name) for name in frames) else None


def _extract(video: Path, folder: Path) -> None:
    import imageio_ffmpeg

    logging.getLogger("imageio_ffmpeg").setLevel(logging.ERROR)  # it warns of videos that are turned upright
    about = _probe(video, imageio_ffmpeg.get_ffmpeg_exe())
    fps = min(about.fps, MAX_FPS) or MAX_FPS
    span = max(1, round(fps / FRAMES_PER_SECOND), math.ceil(fps * about.seconds / MAX_FRAMES))
    filters = [f"fps={fps}"] + [TONEMAP] * about.hdr  # at a constant rate: that of phones is none
    read = written = 0

    def decoded() -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        nonlocal read
        for read, frame in enumerate(reader, 1):
            bar.update(read)
            yield np.frombuffer(frame, np.uint8).reshape(height, width, 3)

    with progress(f"reading {video.name}", math.ceil(fps * about.seconds) or None) as bar:
        try:
            reader = imageio_ffmpeg.read_frames(video, output_params=["-vf", ",".join(filters), "-an", "-sn"])
            width, height = next(reader)["size"]  # as it is seen: ffmpeg turns the videos of phones upright
            for frame in _sharpest(decoded(), span):
                write_image(folder / f"{written:05d}.jpg", frame, quality=95, subsampling=0)
                written += 1
        except (OSError, ValueError, RuntimeError, KeyError, IndexError, StopIteration) as error:
            log.debug("ffmpeg: %s", error)
    if not written:
        raise UserError(f"The video {video} cannot be read: it has no frames, or they are damaged", "", CURE)
    if read < 0.9 * fps * about.seconds:
        log.warning("%s is cut short or damaged: %.1f of %.1f seconds could be read", video, read / fps, about.seconds)


def _probe(video: Path, ffmpeg: str) -> Video:
    """Asks ffmpeg about a video.

    Raises:
        UserError: it has no pictures, or is no video.
    """
    refuse_pointer(video)
    told = subprocess.run([ffmpeg, "-hide_banner", "-i", str(video)], capture_output=True, stdin=subprocess.DEVNULL)
    text = told.stderr.decode(errors="replace")
    line = next((line for line in text.splitlines() if re.search(r"Stream #.*: Video: ", line)), "")
    if not line:
        if ": Audio: " in text:
            raise UserError(f"The video {video} cannot be read: it has sound, but no pictures", "", "Check the file")
        if "moov atom not found" in text:
            raise UserError(
                f"The video {video} cannot be read: its end is missing, with the index of the frames",
                "",
                "Copy it again from where it was recorded",
            )
        reason = (text.strip().splitlines() or ["no message"])[-1].removeprefix(f"{video}: ")
        raise UserError(f"The video {video} cannot be read ({reason})", "", CURE)
    fps = re.search(r"([\d.]+) fps", line)
    length = re.search(r"Duration: (\d+):(\d+):([\d.]+)", text)
    seconds = (
        sum(float(part) * unit for part, unit in zip(length.groups(), (3600, 60, 1), strict=True)) if length else 0.0
    )
    return Video(float(fps[1]) if fps else 0.0, seconds, bool(re.search(r"smpte2084|arib-std-b67", line)))


def _sharpest(frames: Iterator[Any], span: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    while (best := max(islice(frames, span), key=_sharpness, default=None)) is not None:
        yield best


def _sharpness(frame: UInt8[np.ndarray, "H W 3"]) -> float:
    """Variance of the Laplacian of the green channel."""
    g = frame[::2, ::2, 1].astype(np.float32)
    return float((g[1:-1, :-2] + g[1:-1, 2:] + g[:-2, 1:-1] + g[2:, 1:-1] - 4 * g[1:-1, 1:-1]).var())
