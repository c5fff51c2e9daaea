"""Which photos are trained on and which are held out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from difix3d.errors import UserError
from difix3d.files import read_json
from difix3d.scene.names import match
from difix3d.scene.protocols import stated_split

Split = tuple[Int[np.ndarray, "T"], Int[np.ndarray, "E"]]

EVERY = 8
"""The held-out share of the 3DGS and Mip-NeRF 360 papers: the first photo of each eight, sorted by name."""


def choose_split(split: str, names: list[str], folders: Sequence[Path], given: dict[str, list[str]]) -> Split:
    """Indices of the train and test photos.

    Args:
        split: ``auto`` (the top level of ``split.json``, else what the format itself, lists or the photos' names say
            (:mod:`difix3d.scene.protocols`), else ``every:8``), ``none`` (all train), ``every:N`` (the first of each N
            is test), ``extrapolation`` (the top level of ``split.json``), another of its keys such as
            ``interpolation``, or ``file:PATH`` to a JSON file with ``train`` and ``eval``.
        names: of the photos, sorted.
        folders: of the scene, where ``split.json`` and other lists may lie.
        given: the format's own lists, ``train`` and ``test``; may be empty.
    """
    kind, _, value = split.partition(":")
    path = next((f / "split.json" for f in folders if (f / "split.json").exists()), folders[0] / "split.json")
    train, test = list(range(len(names))), list[int]()
    if kind == "none":
        pass
    elif kind == "every":
        train, test = _every(names, value)
    elif kind == "file":
        train, test = _from_lists(read_json(Path(value)), names, Path(value))
    elif split == "auto" and not path.exists():
        train, test = stated_split(names, folders, given) or _every(names, str(EVERY))
    elif path.exists():
        train, test = _from_file(split, names, path)
    else:
        raise UserError(
            f"There is no split {split!r}: {folders[0]} has no split.json",
            "Without it there are auto, none, every:N and file:PATH",
            f"Use --split every:{EVERY}",
        )
    if not train:
        raise UserError(
            f"The split {split!r} leaves no photo to train on: all {len(names)} are test or unused",
            "At least one photo must be in train",
            "Change the split; --split none trains on all",
        )
    return np.array(train, np.int64), np.array(test, np.int64)


def _every(names: list[str], value: str) -> tuple[list[int], list[int]]:
    if not (value.isascii() and value.isdigit() and len(value) < 10) or int(value) < 1:
        raise UserError(f"The split every:{value} has no valid number", "N must be 2 or more", "Use --split every:8")
    test = list(range(0, len(names), int(value)))
    return sorted(set(range(len(names))) - set(test)), test


def _from_file(split: str, names: list[str], path: Path) -> tuple[list[int], list[int]]:
    lists = read_json(path)
    if split in ("auto", "extrapolation"):
        return _from_lists(lists, names, path)
    if not isinstance(lists.get(split), dict) or "train" not in lists[split]:
        known = [key for key, value in lists.items() if isinstance(value, dict) and "train" in value]
        raise UserError(
            f"{path} has no split {split!r}",
            f"It has {', '.join(['extrapolation (its top level)', *known])}",
            "Use one of these, every:N, none or file:PATH",
        )
    return _from_lists(lists[split], names, path)


def _from_lists(lists: dict[str, Any], names: list[str], source: Path) -> tuple[list[int], list[int]]:
    if not isinstance(lists.get("train"), list):
        raise UserError(f"{source} has no list 'train'", "A split has the lists 'train' and 'eval' of photo names")
    train = _positions(lists["train"], names, source)
    test = _positions(lists.get("eval", lists.get("test", [])), names, source)
    both = sorted(set(train) & set(test))
    if both:
        raise UserError(
            f"{source} has {len(both)} photos in train and in eval, first {names[both[0]]}",
            "A photo cannot be trained on and held out",
            "Remove them from one of the lists",
        )
    return train, test


def _positions(wanted: Any, names: list[str], source: Path) -> list[int]:
    """Indices of photos called by name, by file name or stem (where it is unique), or by sub-folder ("left/")."""
    index: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        path = Path(name)
        folders = {f"{parent.as_posix()}/" for parent in path.parents}
        for key in {name, path.name, path.stem, path.with_suffix("").as_posix()} | folders:
            index.setdefault(key, []).append(i)
    if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
        raise UserError(
            f"A split in {source} is no list of names", f"Photos have names like {names[0]!r}", "Correct it"
        )
    exact = {name: [i] for i, name in enumerate(names)}
    found = {name: exact.get(name, index.get(name, [])) for name in wanted}
    loose = match([name for name, hits in found.items() if not hits], names)
    for name, hit in zip([name for name, hits in found.items() if not hits], loose, strict=True):
        found[name] = [] if hit is None else [hit]
    bad = [name for name, hits in found.items() if not hits or (len(hits) > 1 and not name.endswith("/"))]
    if bad:
        raise UserError(
            f"{len(bad)} of the {len(wanted)} names in {source} fit no single photo of the scene, first {bad[0]!r}",
            f"The scene's {len(names)} photos have names like {names[0]!r}",
            "Correct the names",
        )
    return sorted({i for hits in found.values() for i in hits})
