"""Where a folder says how its cameras stood, and which of these descriptions is taken if there are several."""

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from difix3d.errors import UserError
from difix3d.geometry.lens import is_pinhole
from difix3d.scene.capture import Capture
from difix3d.scene.colmap import is_model, read_colmap
from difix3d.scene.locate import REDUCED, are_there, images_below
from difix3d.scene.transforms import find_transforms, read_transforms

log = logging.getLogger(__name__)

WORKSPACES = re.compile(
    r"(sparse|dense|colmap|distorted|undistorted|sfm|models?|glomap|mapper|hloc|aligned|text|bin|export|nerfstudio"
    r"|gaussian_splat|(instant[-_]?)?ngp)(\W.*|_.*|\d*)|\d{1,3}",
    re.IGNORECASE,
)
"""Folders inside a scene in which programs leave cameras; each may hold further ones."""

DEPTH = 4
"""Levels of such folders that are looked into."""

REASONS = (
    "the most photos",
    "it says which photos are held out",
    "the most masks",
    "its photos are undistorted",
    "the usual place",
)
"""Why a description is preferred: the first in which two differ decides."""


@dataclass(frozen=True)
class Candidate:
    """A folder with a COLMAP model, or files like ``transforms.json`` by the role of their frames."""

    place: Path
    transforms: dict[str, Path]

    def read(self, scene: Path) -> Capture:
        """The cameras; photos are looked for up to the scene's folder."""
        return read_transforms(self.transforms, scene) if self.transforms else read_colmap(scene, self.place)


def read_best(folder: Path, model: Path | None = None) -> Capture | None:
    """The cameras of a scene as the best description of them has them, or ``None`` if there is none.

    The best has the most photos that are there; then :data:`REASONS` in their order. What is chosen among several, and
    what cannot be read beside it, is logged.

    Args:
        folder: of the scene.
        model: the description to take, in the scene's folder or in the current one.

    Raises:
        UserError: none can be read; ``model`` is not there; the folder holds several scenes.
    """
    found = _given(folder, model) if model else candidates(folder) or _in_subfolder(folder) or _around(folder)
    read = [(candidate.place, _try(candidate, folder)) for candidate in found]
    captures = [(place, capture) for place, capture in read if isinstance(capture, Capture)]
    errors = [error for _, error in read if isinstance(error, UserError)]
    if not captures:
        if errors:
            raise errors[0]
        return None
    for error in errors:
        log.warning("left out, as there are other cameras: %s", error)
    best = 0
    if len(captures) > 1:
        ranks = [_rank(capture) for _, capture in captures]
        best = ranks.index(max(ranks))
        log.warning("%s", _choice(folder, [place for place, _ in captures], ranks, best))
    chosen = captures[best][1]
    if len(chosen.observations):
        return chosen
    rest = [_try(candidate, folder) for candidate in candidates(folder)] if model else [other for _, other in captures]
    return _with_points(chosen, [other for other in rest if isinstance(other, Capture)])


def _try(candidate: Candidate, scene: Path) -> Capture | UserError:
    try:
        return candidate.read(scene)
    except UserError as error:
        return error


def candidates(folder: Path) -> list[Candidate]:
    """All descriptions in a scene's folder, the usual place first: ``sparse``, the top level, others."""

    def usual(place: Path) -> tuple[int, list[tuple[int, str]]]:
        parts = place.relative_to(folder).parts
        order = 1 if not parts else 0 if parts[0] == "sparse" else 2
        return order, [(int(part) if part.isdigit() else -1, part) for part in parts]

    return [candidate for place in sorted(_places(folder), key=usual) for candidate in _here(place)]


def _places(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    yield folder
    for inside in _folders(folder) if depth else []:
        if WORKSPACES.fullmatch(inside.name):
            yield from _places(inside, depth - 1)


def _folders(folder: Path) -> list[Path]:
    try:
        return [Path(entry) for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:  # not ours to look into
        return []


def _here(place: Path) -> list[Candidate]:
    found = [Candidate(next(iter(files.values())), files) for files in find_transforms(place)]
    return [*found, Candidate(place, {})] if is_model(place) else found


def _in_subfolder(folder: Path) -> list[Candidate]:
    """Of a folder around the scene's own, as archives make it, or around several such folders."""
    inside: dict[Path, list[Candidate]] = {}
    level = [folder]
    while level and not any(inside.values()) and len(level[0].relative_to(folder).parts) < DEPTH:
        level = sorted(below for entry in level for below in _folders(entry))
        inside = {entry: candidates(entry) for entry in level}
    scenes = [entry for entry, found in inside.items() if found and images_below(entry)]
    if len(scenes) > 1:
        names = ", ".join(entry.relative_to(folder).as_posix() for entry in scenes[:5])
        raise UserError(
            f"{folder} holds {len(scenes)} scenes: {names}{' and more' if len(scenes) > 5 else ''}",
            "A scene is one set of photos with one set of cameras",
            f"Give one of them, such as {scenes[0]}",
        )
    found = [candidate for entry in inside.values() for candidate in entry]
    if found:
        log.warning("%s has no cameras itself; they are taken from %s", folder, found[0].place.parent)
    return found


def _around(images: Path) -> list[Candidate]:
    """Of the scene, where the folder of its photos was given."""
    found = candidates(images.parent) if images.name in ("images", "input", *REDUCED) else []
    if found:
        log.warning("%s has no cameras itself; those beside it, in %s, are taken", images, images.parent)
    return found


def _given(folder: Path, model: Path) -> list[Candidate]:
    path = next((path for path in (folder / model, model) if path.exists()), None)
    if path is not None and path.resolve().is_relative_to(folder.resolve()):
        path = folder / path.resolve().relative_to(folder.resolve())
    found = [] if path is None else candidates(path) if path.is_dir() else _file(path)
    if found:
        return found
    there = ", ".join(str(_short(candidate.place, folder)) for candidate in candidates(folder))
    raise UserError(
        f"There is no model {model}" if path is None else f"{model} holds no cameras",
        "A model is a COLMAP model's folder or a transforms.json, in the scene's folder or the current one",
        f"There is {there}" if there else "Leave out --model",
    )


def _file(path: Path) -> list[Candidate]:
    if path.suffix == ".json":
        return [Candidate(path, {"": path})]
    return [Candidate(path.parent, {})] if is_model(path.parent) else []


def _rank(capture: Capture) -> tuple[int, ...]:
    """In the order of :data:`REASONS`."""
    there = sum(are_there(capture.files))
    masks = sum(mask is not None for mask in capture.masks)
    return there, int(bool(capture.splits)), masks, int(all(map(is_pinhole, capture.lenses)))


def _choice(folder: Path, places: list[Path], ranks: list[tuple[int, ...]], best: int) -> str:
    others = sorted((rank, -i) for i, rank in enumerate(ranks) if i != best)[::-1]
    why = next((why for why, a, b in zip(REASONS, ranks[best], others[0][0], strict=False) if a != b), REASONS[-1])
    rest = ", ".join(f"{_short(places[-i], folder)} ({rank[0]})" for rank, i in others)
    taken = f"{_short(places[best], folder)} ({ranks[best][0]} photos)"
    return f"{folder}: cameras are taken from {taken}: {why}; not from {rest}. --model PATH chooses"


def _short(place: Path, folder: Path) -> Path:
    inside = place.relative_to(folder) if place.is_relative_to(folder) else place
    return place if inside == Path() else inside


def _with_points(capture: Capture, others: list[Capture]) -> Capture:
    """A capture that does not know which photos see its points, with the points of another that has the same cameras.

    nerfstudio makes its ``transforms.json`` of a COLMAP model, which it turns (``applied_transform``) and leaves there.
    """
    for other in others:
        row = {name: i for i, name in enumerate(other.names)}
        if len(other.observations) == 0 or not set(capture.names) <= row.keys():
            continue
        photos = np.array([row[name] for name in capture.names])
        turn = capture.c2w @ np.linalg.inv(other.c2w[photos])
        same = np.abs(turn - turn[0]).max() < 1e-4 * max(1.0, float(np.abs(turn[0]).max()))
        if same and len(capture.points) in (0, len(other.points)):
            position = np.full(len(other.names), -1)
            position[photos] = np.arange(len(photos))
            seen = np.stack([other.observations[:, 0], position[other.observations[:, 1]]], 1)
            points = other.points @ turn[0, :3, :3].T + turn[0, :3, 3]
            return replace(capture, points=points, colors=other.colors, observations=seen[seen[:, 1] >= 0])
    return capture
