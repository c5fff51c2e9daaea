"""``load_scene``: from a name or a folder to a :class:`Scene`."""

import difflib
import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from difix3d.errors import UserError
from difix3d.files import check_name
from difix3d.geometry.lens import is_pinhole, undistorted
from difix3d.geometry.normalize import extent, plausible_points, similarity, transform_points, transform_poses
from difix3d.images import image_size
from difix3d.scene.alpha import photos_have_alpha
from difix3d.scene.candidates import read_best
from difix3d.scene.capture import Capture, missing_photos
from difix3d.scene.checks import checked, in_place
from difix3d.scene.panorama import cut_panoramas, is_panorama
from difix3d.scene.splits import choose_split
from difix3d.scene.turns import choose_mask_turn, choose_turns, near_size, same_shape
from difix3d.scene.unused import report_unused
from difix3d.types import Cameras, Lens, Photo, Scene

log = logging.getLogger(__name__)

LONG_SIDE = 1600
"""Larger photos are trained at this many pixels on the long side unless the user asks for more, as in 3DGS."""


def load_scene(
    source: str | Path,
    *,
    data_dir: Path = Path("data"),
    split: str = "auto",
    resolution: int | None = None,
    normalize: bool = True,
    seed: int = 0,
    model: str | Path | None = None,
) -> Scene:
    """Loads photos with known cameras, or finds the cameras first.

    Args:
        source: ``demo``, ``synthetic:SEED``, the folder of a scene (COLMAP model, ``transforms.json``, or just photos),
            a ``transforms.json``, a video, or the name of a scene in ``data_dir`` or of one that can be downloaded.
        data_dir: where downloaded and generated scenes lie.
        split: which photos are held out; see :func:`difix3d.scene.splits.choose_split`.
        resolution: long side in pixels that photos are reduced to; they are never enlarged. ``None``: at most 1600.
        normalize: move the world so that the cameras are about one unit from its origin, z up; else keep the user's.
        seed: of structure from motion, where cameras have to be found.
        model: the COLMAP model's folder or ``transforms.json`` to take, in the scene's folder or the current one, where
            there are several; by default the one with the most photos.

    Raises:
        UserError: whatever is wrong with the input.
    """
    if resolution is not None and resolution < 16:
        raise UserError(f"The resolution is {resolution}", "The long side must be at least 16 pixels")
    path = find_source(str(source), data_dir)
    capture = checked(read_capture(path, data_dir, seed, Path(model) if model else None))
    folders = [path, capture.folder] if path.is_dir() else [capture.folder]
    train, test = choose_split(split, capture.names, folders, capture.splits)
    scene = scene_of_capture(
        path.stem if path.is_file() else path.resolve().name,
        capture,
        train,
        test,
        resolution=resolution,
        normalize=normalize,
    )
    if len(scene.points) == 0:
        log.warning("%s has no sparse points", capture.folder)
    return scene


def scene_of_capture(
    name: str,
    capture: Capture,
    train: Int[np.ndarray, "T"],
    test: Int[np.ndarray, "E"],
    *,
    resolution: int | None = None,
    normalize: bool = True,
) -> Scene:
    """The scene of photos with known cameras.

    Args:
        name: of the scene.
        capture: with rigid poses and intrinsics of its photos' size (:func:`difix3d.scene.checks.checked`).
        train, test: indices of its photos.
        resolution, normalize: as for :func:`load_scene`.

    Raises:
        UserError: photos are missing, or have another shape than their camera or mask.
    """
    near, used = in_place(capture, train)
    capture, photo_of = cut_panoramas(capture)
    near = near[photo_of]
    files = choose_files(capture, resolution or LONG_SIDE)
    points, colors, observations = _clean_points(capture, near)
    from_input = similarity(capture.c2w[near], points) if normalize else np.eye(4)
    c2w, points = transform_poses(from_input, capture.c2w), transform_points(from_input, points)
    photos = [
        Photo(name, file.path, None if is_pinhole(lens) else lens, mask, file.turn, file.mask_turn)
        for name, file, lens, mask in zip(capture.names, files, capture.lenses, capture.masks, strict=True)
    ]
    return Scene(
        name=name,
        cameras=_cameras(c2w, capture.lenses, files),
        photos=tuple(photos),
        points=points,
        colors=colors,
        observations=observations,
        train=np.flatnonzero(np.isin(photo_of, train[used[train]])),
        test=np.flatnonzero(np.isin(photo_of, test[used[test]])),
        from_input=from_input,
        extent=extent(c2w[near, :3, 3]),
        alpha=photos_have_alpha(capture.folder, [photo.path for photo in photos if not is_panorama(photo.lens)]),
    )


def places(source: str, data_dir: Path) -> list[Path]:
    """Where a scene may lie, whether it is there or not; the first that exists is meant."""
    from difix3d.synthetic import parse

    if parse(source) is not None:
        return [data_dir / source.replace(":", "-")]
    return [Path(os.path.expanduser(source)), data_dir / source]


def find_source(source: str, data_dir: Path) -> Path:
    """The folder or file that a source names; a scene to generate or download is made first, if it is not there."""
    from difix3d.synthetic import parse, write_scene

    check_name(Path(source))
    seed, candidates = parse(source), places(source, data_dir)
    if seed is not None:
        return write_scene(seed, candidates[0])
    for candidate in candidates:
        if candidate.exists():
            return candidate
    from difix3d.download import SCENES, download

    if source in SCENES:
        return download(source, data_dir)
    present = [entry.name for entry in data_dir.iterdir() if entry.is_dir()] if data_dir.is_dir() else []
    close = difflib.get_close_matches(source, [*SCENES, "demo", *present], n=3)
    raise UserError(
        f"There is no scene {source!r}: no such folder, nor {data_dir / source}",
        "A scene is a folder, demo, synthetic:SEED, or a name that can be downloaded",
        f"Did you mean {' or '.join(close)}?" if close else "Check the path",
    )


@contextmanager
def _no_collection() -> Iterator[None]:
    """Lets the collector of garbage rest: of a hundred thousand photos it takes half the time, for nothing."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_no_collection()
def read_capture(path: Path, data_dir: Path, seed: int = 0, model: Path | None = None) -> Capture:
    """Reads a scene in the format that it has; see :func:`load_scene`."""
    if path.is_file() and model is not None:
        raise UserError(f"{path} is a file", "--model chooses among the cameras in a folder", "Leave out --model")
    if path.is_file() and path.suffix == ".json":
        path, model = path.parent, path
    known = read_best(path, model) if path.is_dir() else None
    if known is None:
        from difix3d.scene.photos import reconstruct

        return report_unused(reconstruct(path, data_dir, seed), told=True)
    return report_unused(known)


@dataclass(frozen=True)
class _File:
    """The image file that a photo is decoded from, and the pinhole camera that it is decoded to."""

    path: Path
    turn: int
    mask_turn: int
    pinhole: tuple[float, float, float, float, int, int]


def choose_files(capture: Capture, long_side: int) -> list[_File]:
    """For each photo the smallest of ``images``, ``images_2``, ``images_4``, ``images_8`` that is large enough.

    Raises:
        UserError: files are missing, or have another shape than their camera or mask.
    """
    factors = [n for n in (2, 4, 8) if (capture.folder / f"images_{n}").is_dir()]
    paths = [
        _smallest(file, capture.folder, factors, max(undistorted(lens)[4:]) / long_side)
        for file, lens in zip(capture.files, capture.lenses, strict=True)
    ]
    missing = [file for file, path in zip(capture.files, paths, strict=True) if path is None]
    if missing:
        raise missing_photos(capture.folder, missing, len(paths))
    found = [path for path in paths if path is not None]
    turns = choose_turns(found, capture.lenses)
    return [
        _file(path, turn, lens, mask, long_side)
        for path, turn, lens, mask in zip(found, turns, capture.lenses, capture.masks, strict=True)
    ]


def _smallest(file: Path, folder: Path, factors: list[int], shrink: float) -> Path | None:
    """The file or its copy in ``images_N``: N as large as ``shrink`` allows, else whichever there is."""
    inside = file.relative_to(folder).parts if file.is_relative_to(folder) else ()
    copies = {1: file}
    if inside[:1] == ("images",):
        copies |= {n: folder.joinpath(f"images_{n}", *inside[1:]) for n in factors}
    enough = [n for n in copies if n <= 1.01 * shrink]  # 1.01: sizes are rounded
    order = sorted(enough, reverse=True) + sorted(set(copies) - set(enough))
    return next((copies[n] for n in order if copies[n].exists()), None)


def _file(path: Path, turn: int, lens: Lens, mask: Path | None, long_side: int) -> _File:
    file, mask_turn = image_size(path, turn), 1
    _check_shape(path, file, (lens.width, lens.height))
    if mask is not None:
        mask_turn = choose_mask_turn(mask, path, turn)
        size = image_size(mask, mask_turn)
        if not same_shape(size, file):
            raise UserError(
                f"The mask {mask} is {size[0]} x {size[1]} pixels",
                f"Its photo {path.name} is {file[0]} x {file[1]}",
                "Make them the same size, or the same shape",
            )
    fx, fy, cx, cy, width, height = undistorted(lens)
    scale = min(1.0, long_side / max(width, height), max(file) / max(lens.width, lens.height))
    target = max(1, round(width * scale)), max(1, round(height * scale))
    if is_pinhole(lens) and near_size(target, file):
        target = file  # spares a resampling by a pixel or two
    sx, sy = target[0] / width, target[1] / height
    return _File(path, turn, mask_turn, (fx * sx, fy * sy, cx * sx, cy * sy, *target))


def _check_shape(path: Path, size: tuple[int, int], camera: tuple[int, int]) -> None:
    if same_shape(size, camera):
        return
    turned = ": it is turned by 90 degrees" if (size[0] > size[1]) != (camera[0] > camera[1]) else ""
    raise UserError(
        f"The photo {path} is {size[0]} x {size[1]} pixels{turned}",
        f"Its camera is {camera[0]} x {camera[1]}",
        "Use the images that the cameras were found with",
    )


def _cameras(c2w: Float[np.ndarray, "N 4 4"], lenses: list[Lens], files: list[_File]) -> Cameras:
    pinholes = np.array([file.pinhole for file in files])
    K = np.tile(np.eye(3), (len(lenses), 1, 1))
    K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2] = pinholes[:, :4].T
    width, height = torch.from_numpy(pinholes[:, 4:].astype(np.int64)).unbind(1)
    return Cameras(torch.from_numpy(c2w).float(), torch.from_numpy(K).float(), width.clone(), height.clone())


def _clean_points(
    capture: Capture, near: Bool[np.ndarray, "N"]
) -> tuple[Float[np.ndarray, "P 3"], np.ndarray, Int[np.ndarray, "O 2"]]:
    """Points, colours and observations without the points that are not finite or absurdly far from the near cameras."""
    keep = plausible_points(capture.points, capture.c2w[near, :3, 3])
    if keep.all():
        return capture.points, capture.colors, capture.observations
    if not keep.any():
        raise UserError(
            f"None of the {len(keep)} points of {capture.folder} has finite coordinates", "", "Export the model again"
        )
    log.warning("%s: left out %d of %d points, at infinity or nearly", capture.folder, (~keep).sum(), len(keep))
    row = np.cumsum(keep) - 1
    seen = capture.observations[keep[capture.observations[:, 0]]]
    return capture.points[keep], capture.colors[keep], np.stack([row[seen[:, 0]], seen[:, 1]], 1)
