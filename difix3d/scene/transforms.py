"""``transforms.json`` of nerfstudio, instant-ngp and the Blender scenes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from difix3d.console import track
from difix3d.errors import UserError
from difix3d.files import is_file, read_json
from difix3d.formats import IMAGES
from difix3d.geometry.poses import FROM_OPENGL
from difix3d.scene.capture import Capture, missing_photos, refuse_repeated
from difix3d.scene.lenses import read_lens
from difix3d.scene.locate import are_there, find_photos, look_up, photo_folders
from difix3d.scene.masks import find_masks, mask_homes, named_mask
from difix3d.scene.names import match
from difix3d.scene.pointcloud import read_points
from difix3d.types import Lens

Frame = tuple[str, Path, dict[str, Any], dict[str, Any]]
"""Its role, its file, what all frames of the file share, and what it has itself."""

SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG", ".webp")
"""Tried in this order: Blender scenes leave out the extension."""
NOT_OF_LENSES = {"file_path", "transform_matrix", "mask_path", "depth_file_path", "colmap_im_id", "sharpness"}
"""Keys of frames that say nothing of the camera; frames that have the others in common share a lens."""


def find_transforms(folder: Path) -> list[dict[str, Path]]:
    """The descriptions in a folder: files by the role of their frames, ``train`` and ``test``, or ``""`` for all.

    ScanNet++ has ``transforms_undistorted.json`` beside or in place of ``transforms.json``.
    """
    train, whole = folder / "transforms_train.json", folder / "transforms.json"
    held_out = next((p for p in (folder / "transforms_test.json", folder / "transforms_val.json") if p.exists()), None)
    parts = {"train": train} | ({"test": held_out} if held_out else {})
    blender = {f"transforms_{role}.json" for role in ("train", "test", "val")}
    others = sorted(path for path in folder.glob("transforms_*.json") if path.name not in blender and _has_frames(path))
    return ([parts] if train.exists() else []) + [{"": path} for path in (whole, *others) if path.exists()]


def _has_frames(path: Path) -> bool:
    """Other files are called so, too: of normalisations, say."""
    return path.is_file() and b'"frames"' in path.read_bytes()


def read_transforms(files: dict[str, Path], scene: Path | None = None) -> Capture:
    """Reads the frames of the files, and the sparse points that ``ply_file_path`` names.

    Args:
        files: by the role of their frames.
        scene: folder around theirs, up to which photos are looked for.

    Raises:
        UserError: broken JSON, missing keys, photos missing where the image size has to come from them.
    """
    folder = next(iter(files.values())).parent
    frames = [(role or own, file, meta, frame) for role, file in files.items() for own, meta, frame in _frames(file)]
    refuse_repeated(folder, [str(frame["file_path"]) for *_, frame in frames])
    paths, note = _find_all(folder, [str(frame["file_path"]) for *_, frame in frames], scene or folder)
    unsized = [
        path
        for path, (_, _, meta, frame) in zip(paths, frames, strict=True)
        if not {"w", "h"} <= ({**meta, **frame}).keys() and not path.exists()
    ]
    if unsized:
        raise missing_photos(folder, unsized, len(frames))
    names = [_name(path, folder) for path in paths]
    order = sorted(range(len(names)), key=names.__getitem__)
    lenses = _lenses(frames, paths)
    points, colors = _points(folder, frames[0][2].get("ply_file_path"))
    splits, of_lists = _splits(frames, names)
    masks = _masks(folder, paths, names, [frame.get("mask_path") for *_, frame in frames])
    return Capture(
        folder=folder,
        names=[names[i] for i in order],
        files=[paths[i] for i in order],
        c2w=_poses(frames)[order] @ FROM_OPENGL,
        lenses=[lenses[i] for i in order],
        masks=[masks[i] for i in order],
        points=points,
        colors=colors,
        observations=np.zeros((0, 2), np.int64),
        splits=splits,
        notes=tuple(filter(None, (note, of_lists, _unused(files)))),
    )


def _unused(files: dict[str, Path]) -> str:
    """What to say of a third file beside Blender's two."""
    val = next(iter(files.values())).with_name("transforms_val.json")
    return (
        f"the photos of {val.name} are not used"
        if "test" in files and val not in files.values() and val.exists()
        else ""
    )


def _frames(file: Path) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(role, what all frames share, frame) for each frame of one file; ScanNet++ has ``test_frames`` of their own."""
    meta = read_json(file)
    frames, held_out = meta.pop("frames", None), meta.pop("test_frames", None) or []
    lists = isinstance(frames, list) and isinstance(held_out, list)
    if not lists or not frames or not all(isinstance(frame, dict) for frame in frames + held_out):
        raise UserError(
            f"{file} has no frames", "It must have a list 'frames' with a pose for each photo", "Export again"
        )
    roles = ["train" if held_out else ""] * len(frames) + ["test"] * len(held_out)
    frames = frames + held_out
    for number, frame in enumerate(frames):
        lost = {"file_path", "transform_matrix"} - frame.keys()
        if lost:
            raise UserError(f"Frame {number} of {len(frames)} in {file} has no {' and no '.join(sorted(lost))}")
        if not str(frame["file_path"]).strip("./"):
            raise UserError(f"Frame {number} of {len(frames)} in {file} has the file_path {frame['file_path']!r}")
    return [(role, meta, frame) for role, frame in zip(roles, frames, strict=True)]


def _splits(frames: list[Frame], names: list[str]) -> tuple[dict[str, list[str]], str]:
    """The names of the train and test photos, and what to say of nerfstudio's lists of them.

    The roles of files and lists of frames go first, then ``train_filenames``, ``test_filenames`` and ``val_filenames``:
    without test photos those of val are held out, and without train photos the others are trained on.
    """
    roles = [role for role, *_ in frames]
    if any(roles):
        return {role: sorted(n for n, own in zip(names, roles, strict=True) if own == role) for role in set(roles)}, ""
    meta, paths = frames[0][2], [str(frame["file_path"]) for *_, frame in frames]
    lists = {role: _listed(meta, f"{role}_filenames", frames[0][1]) for role in ("train", "test", "val")}
    found = {role: match(listed, paths) for role, listed in lists.items()}
    unknown = [path for role in lists for path, i in zip(lists[role], found[role], strict=True) if i is None]
    held_out = {names[i] for i in found["test"] if i is not None} or {names[i] for i in found["val"] if i is not None}
    train = {names[i] for i in found["train"] if i is not None} or set(names) - held_out
    both = len(train & held_out)
    if not any(lists.values()) or (not held_out and train == set(names)):
        return {}, ""
    notes = [f"{len(unknown)} names in its lists of photos are of no frame, first {unknown[0]}"] if unknown else []
    notes += [f"{both} photos are in train_filenames and held out: they are not trained on"] if both else []
    return {"train": sorted(train - held_out), "test": sorted(held_out)}, "; ".join(notes)


def _listed(meta: dict[str, Any], key: str, file: Path) -> list[str]:
    listed = meta.get(key) or []
    if not isinstance(listed, list):
        raise UserError(
            f"{key} in {file} is a {type(listed).__name__}", "It must be a list of names", "Correct it, or leave it out"
        )
    return [str(path) for path in listed]


def _find(folder: str, name: str, has: Callable[[str, str], bool]) -> str:
    """The photo, with an extension if the file leaves it out; a path that need not exist, if none is found."""
    place, name = os.path.split(os.path.join(folder, name.replace("\\", "/")))
    suffixes = SUFFIXES[:1] if os.path.splitext(name)[1].lower() in IMAGES else SUFFIXES
    return os.path.join(place, next((f"{name}{suffix}" for suffix in suffixes if has(place, f"{name}{suffix}")), name))


def _find_all(folder: Path, names: list[str], scene: Path) -> tuple[list[Path], str]:
    """The photos, and what to say if some are not where the file says: it may be of another computer."""
    has, named = look_up(), track(names, len(names), "looking for the photos")
    paths = [_find(str(folder), name, has) for name in named]  # text, as there may be a hundred thousand
    missing = [i for i, there in enumerate(are_there(paths)) if not there]
    if not missing:
        return list(map(Path, paths)), ""
    found = find_photos([names[i] for i in missing], photo_folders(scene, folder))
    moved = {i: file for i, file, there in zip(missing, found.files, are_there(found.files), strict=True) if there}
    if len(missing) == len(paths) and not moved:
        raise missing_photos(folder, paths, len(paths))
    files = list(map(Path, paths))
    used = set(files)
    moved = {i: file for i, file in moved.items() if file not in used}
    return [moved.get(i, file) for i, file in enumerate(files)], found.note if moved else ""


def _masks(folder: Path, paths: list[Path], names: list[str], given: list[str | None]) -> list[Path | None]:
    """The masks that the frames name, for the others those that are called as their photos."""
    homes = mask_homes(folder, paths)
    named = [named_mask(folder, str(path), homes) if path else None for path in given]
    if all(named):
        return named
    photos = folder / "images" if (folder / "images").is_dir() else folder
    found = find_masks(homes, photos, names)
    return [mask or other for mask, other in zip(named, found, strict=True)]


def _name(path: Path, folder: Path) -> str:
    """The photo's name as COLMAP would call it: relative to ``images/``."""
    parts = path.relative_to(folder).parts if path.is_relative_to(folder) else path.parts[-1:]
    return "/".join(parts[1:] if parts[0] == "images" and len(parts) > 1 else parts)


def _lenses(frames: list[Frame], paths: list[Path]) -> list[Lens]:
    """Of each frame; those that say the same of their cameras are read once."""
    known: dict[tuple[Path, str], Lens] = {}
    lenses = []
    for path, (_, file, meta, frame) in zip(paths, frames, strict=True):
        own = {key: value for key, value in frame.items() if key not in NOT_OF_LENSES}
        which = file, repr(own)
        if which not in known or not {"w", "h"} <= {*meta, *own}:  # the photo's size is asked for
            known[which] = read_lens({**meta, **own}, path, file)
        lenses.append(known[which])
    return lenses


def _poses(frames: list[Frame]) -> Float[np.ndarray, "N 4 4"]:
    """Of all frames: together where they are whole, which a hundred thousand are in a moment; else one by one."""
    try:
        poses = np.array([frame["transform_matrix"] for *_, frame in frames], np.float64)
        if poses.shape[1:] == (4, 4) and (poses[:, 3] == np.eye(4)[3]).all():
            return poses
    except (ValueError, TypeError):
        pass
    return np.stack([_pose(frame, file) for _, file, _, frame in frames])


def _pose(frame: dict[str, Any], file: Path) -> Float[np.ndarray, "4 4"]:
    try:
        matrix = np.array(frame["transform_matrix"], np.float64)
    except (ValueError, TypeError):
        matrix = np.zeros(0)
    where = f"The transform_matrix of {frame['file_path']} in {file}"
    if matrix.shape not in ((3, 4), (4, 4)):
        raise UserError(f"{where} is no matrix of 4 x 4 numbers")
    corner = np.eye(4)[3]
    last = matrix[3] if len(matrix) == 4 else corner
    if np.isfinite(matrix).all() and (np.abs(last[:3]).max() > 1e-6 or last[3] == 0):
        raise UserError(
            f"{where} has the last row {last.tolist()}",
            "It is 0, 0, 0, 1; the position is the last column",
            "Transpose the matrix" if not matrix[:3, 3].any() else "Export again",
        )
    return np.concatenate([matrix[:3] / last[3], corner[None]])


def _points(folder: Path, name: Any) -> tuple[Float[np.ndarray, "P 3"], UInt8[np.ndarray, "P 3"]]:
    """What ``ply_file_path`` names, also if that is a path of another computer; else what nerfstudio calls it."""
    path = folder / str(name or "sparse_pc.ply").replace("\\", "/")
    if not is_file(path) and is_file(folder / path.name):
        path = folder / path.name
    if not name and not path.exists():
        return np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    return read_points(path)
