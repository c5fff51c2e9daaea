"""Photos or a video without cameras: structure from motion by pycolmap, its result kept beside the photos."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import UInt8

from difix3d.console import Bar, console
from difix3d.errors import UserError
from difix3d.formats import IMAGES
from difix3d.images import image_size, write_image
from difix3d.scene.candidates import read_best
from difix3d.scene.capture import Capture
from difix3d.scene.colmap import read_colmap
from difix3d.video import VIDEOS

log = logging.getLogger(__name__)


FRAMES_PER_SECOND = 2.0
MAX_FRAMES = 300
"""Of a video: one frame, the sharpest, out of each half second, or out of longer spans of a long video."""

MIN_REGISTERED = 0.3
"""Share of the photos (3 at least) whose cameras must be found."""

CURE = "Take more photos that overlap by two thirds, move sideways rather than turn, avoid blur and bare walls"


def reconstruct(path: Path, data_dir: Path, seed: int = 0) -> Capture:
    """Finds the cameras of a folder of photos, or of a video, whose frames go to ``data_dir``.

    The model is written to ``sparse/0`` beside the photos, whole or not at all, and read from there the next time.
    """
    if path.is_file() and path.suffix.lower() not in VIDEOS:
        raise UserError(
            f"{path} is not a scene",
            f"A file must be a transforms.json or a video ({', '.join(sorted(VIDEOS))})",
            "Give the folder of the photos",
        )
    folder = path if path.is_dir() else extract_frames(path, data_dir / path.stem)
    known = read_best(folder) if path.is_file() else None
    if known is None:
        root = folder / "images" if (folder / "images").is_dir() else folder
        names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix.lower() in IMAGES)
        if len(names) < 3:
            raise UserError(
                f"{path} has no COLMAP model, no transforms.json and {len(names)} photos",
                "To find the cameras takes 3 photos at least, and 20 to be good",
                "Check the path, or add photos",
            )
        model = find_cameras(root, names, folder / "sparse" / "0", path.is_file(), seed)
        known = read_colmap(folder, model)
    return known


def find_cameras(root: Path, names: list[str], model: Path, video: bool, seed: int) -> Path:
    """Runs structure from motion (SIFT on the CPU, or on CUDA where pycolmap has it) and writes the largest model.

    One OPENCV camera is shared by all photos of one size in one folder; photos of different sizes get one each.
    """
    import pycolmap

    reader = pycolmap.ImageReaderOptions(camera_model="OPENCV")
    pycolmap.set_random_seed(seed)
    with TemporaryDirectory(prefix=".sfm-", dir=_writable(model.parent.parent)) as work, _quiet(pycolmap):
        database, out = Path(work) / "database.db", Path(work) / "models"
        with _progress(f"finding features in {len(names)} photos"):
            pycolmap.extract_features(
                database,
                root,
                image_names=names,
                camera_mode=_camera_mode(pycolmap, root, names),
                reader_options=reader,
            )
        with _progress("matching them"):
            (pycolmap.match_sequential if video else pycolmap.match_exhaustive)(database)
        with _progress("finding the cameras", len(names)) as bar:
            placed = iter(range(3, len(names) + 1))
            out.mkdir()
            options = pycolmap.IncrementalPipelineOptions(random_seed=seed)
            models = pycolmap.incremental_mapping(
                database, root, out, options=options,
                next_image_callback=lambda: bar.update(next(placed, len(names))),
            )  # fmt: skip
        best = max(models.values(), key=lambda m: m.num_reg_images(), default=pycolmap.Reconstruction())
        _check_registered(names, {image.name for image in best.images.values()})
        finished = Path(work) / "0"
        finished.mkdir()
        best.write(finished)
        model.parent.mkdir(exist_ok=True)
        os.replace(finished, model)
    return model


def _check_registered(names: list[str], registered: set[str]) -> None:
    left_out = sorted(set(names) - registered)
    if len(registered) < max(3, MIN_REGISTERED * len(names)):
        raise UserError(
            f"Only {len(registered)} of the {len(names)} photos could be placed",
            f"At least {max(3, round(MIN_REGISTERED * len(names)))} are needed",
            CURE,
        )
    first = f"; left out: {', '.join(left_out[:5])}{' and more' if len(left_out) > 5 else ''}" if left_out else ""
    log.warning("found the cameras of %d of %d photos%s", len(registered), len(names), first)


def _camera_mode(pycolmap: Any, root: Path, names: list[str]) -> Any:
    """Which photos share a camera."""
    sizes: dict[str, set[tuple[int, int]]] = {}
    for name in names:
        sizes.setdefault(os.path.dirname(name), set()).add(image_size(root / name))
    if any(len(of_folder) > 1 for of_folder in sizes.values()):
        return pycolmap.CameraMode.PER_IMAGE
    return pycolmap.CameraMode.PER_FOLDER if len(sizes) > 1 else pycolmap.CameraMode.SINGLE


def extract_frames(video: Path, folder: Path) -> Path:
    """Writes the sharpest frame of each span of a video to ``folder/images``, once."""
    if (folder / "images").is_dir():
        return folder
    made = not folder.exists()
    import imageio.v3 as iio

    try:
        meta = iio.immeta(video, plugin="FFMPEG")
        count = meta["fps"] * meta["duration"]
        span = max(1, round(meta["fps"] / FRAMES_PER_SECOND), int(np.ceil(count / MAX_FRAMES)))
        with TemporaryDirectory(prefix=".frames-", dir=_writable(folder)) as work, _progress(f"reading {video.name}"):
            images = Path(work) / "images"
            for number, frame in enumerate(_sharpest(iio.imiter(video, plugin="FFMPEG"), span)):
                write_image(images / f"{number:05d}.jpg", frame, quality=95, subsampling=0)
            if not images.is_dir():
                raise UserError(f"The video {video} has no frames", "", "Convert it to MP4 (H.264)")
            os.replace(images, folder / "images")
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        with suppress(OSError):
            if made:
                folder.rmdir()  # which leaves it if there is anything in it
        raise UserError(f"The video {video} cannot be read ({error})", "", "Convert it to MP4 (H.264)") from None
    return folder


def _sharpest(frames: Iterator[Any], span: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    while (best := max(islice(frames, span), key=_sharpness, default=None)) is not None:
        yield best


def _sharpness(frame: UInt8[np.ndarray, "H W 3"]) -> float:
    """Variance of the Laplacian of the green channel."""
    g = frame[::2, ::2, 1].astype(np.float32)
    return float((g[1:-1, :-2] + g[1:-1, 2:] + g[:-2, 1:-1] + g[2:, 1:-1] - 4 * g[1:-1, 1:-1]).var())


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to {folder} ({error.strerror})", "", "Copy the photos elsewhere") from None
    if not os.access(folder, os.W_OK):
        raise UserError(
            f"Cannot write to {folder}",
            "The cameras that are found are kept beside the photos",
            "Copy the photos elsewhere",
        )
    return folder


@contextmanager
def _quiet(pycolmap: Any) -> Iterator[None]:
    """COLMAP logs thousands of lines; errors still come as exceptions."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise UserError(f"COLMAP failed: {error}", "", CURE) from error
    finally:
        pycolmap.logging.minloglevel = level


@contextmanager
def _progress(text: str, total: int | None = None) -> Iterator[Bar]:
    """A bar on a terminal, one line at the start elsewhere."""
    if not console.is_terminal:
        console.print(text)
    with Bar(text, total) as bar:
        yield bar
