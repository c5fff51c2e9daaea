"""Which photos a data set itself says are held out: by its format, by lists beside it, or by the photos' names."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from difix3d.errors import UserError
from difix3d.files import read_json
from difix3d.scene.colmap import decode
from difix3d.scene.names import match

log = logging.getLogger(__name__)

Lists = tuple[list[int], list[int]]
"""Indices of the train and test photos; others are in neither."""

WORDS = (
    ("Difix3D, nerfstudio", r"(^|[_/.-])train([_/.-]|$)", r"(^|[_/.-])(eval|test)([_/.-]|$)"),
    ("nerfstudio", r"(^|[_/.-])train([_/.-]|$)", r"(^|[_/.-])val([_/.-]|$)"),
    ("Nerfbusters: frame_00001, frame_1_00001", r"(^|/)frame_\d{5}$", r"(^|/)frame_1_\d{5}$"),
)
"""Data sets that tell in the photos' names, without suffix, which are trained on and which are held out."""


def stated_split(names: list[str], folders: Sequence[Path], given: dict[str, list[str]]) -> Lists | None:
    """The split that a data set states, which is logged; ``None`` if it states none.

    Args:
        names: of the photos.
        folders: of the scene, in which lists may lie.
        given: the format's own lists of names, ``train`` and ``test``.
    """
    index = {name: i for i, name in enumerate(names)}
    if given.get("train"):
        own = [index[name] for name in given["train"]], [index[name] for name in given.get("test", [])]
        return _say(names, own, "as the cameras' file says")
    return _from_files(names, folders) or _from_names(names)


def _from_files(names: list[str], folders: Sequence[Path]) -> Lists | None:
    """``train_test_lists.json`` (ScanNet++), or ``test.txt`` and perhaps ``train.txt`` (3DGS, in ``sparse/0``)."""
    for folder in (place for home in folders for place in (home, home / "sparse" / "0", home / "sparse")):
        path = folder / "train_test_lists.json"
        if path.is_file():
            lists = read_json(path)
            train, test = lists.get("train") or [], lists.get("test") or []
            if not (isinstance(train, list) and isinstance(test, list)):
                raise UserError(f"{path} has something else than lists of names", "'train' and 'test' are lists")
        else:
            path = folder / "test.txt"
            train, test = _lines(folder / "train.txt"), _lines(path)
        found = _known(train, names), _known(test, names)
        if found[1]:
            lost = len(train) + len(test) - len(found[0]) - len(found[1])
            if lost:
                log.warning("%s: %d of %d names are of no photo", path, lost, len(train) + len(test))
            rest = sorted(set(range(len(names))) - set(found[1]))
            return _say(names, (found[0] or rest, found[1]), f"as {path} says")
        if test:
            log.warning("%s is not used: none of its %d names is of a photo, first %s", path, len(test), test[0])
    return None


def _known(listed: Sequence[str], names: list[str]) -> list[int]:
    return sorted(i for i in match([str(name) for name in listed], names) if i is not None)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    lines = (line.strip() for line in decode(path.read_bytes()).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _from_names(names: list[str]) -> Lists | None:
    stems = [name.replace("\\", "/").rsplit(".", 1)[0] for name in names]
    for of, train_word, test_word in WORDS:
        test = [i for i, stem in enumerate(stems) if re.search(test_word, stem)]
        train = [i for i, stem in enumerate(stems) if re.search(train_word, stem) and i not in set(test)]
        if train and test:
            return _say(names, (train, test), f"as the photos' names say ({of})")
    return None


def _say(names: list[str], lists: Lists, why: str) -> Lists:
    train, test = lists
    both = set(train) & set(test)
    if both:
        raise UserError(
            f"{len(both)} photos are in train and in test, {why}, first {names[min(both)]}",
            "A photo cannot be trained on and held out",
            "Choose another split by --split",
        )
    unused = len(names) - len(train) - len(test)
    rest = f", {unused} in neither" if unused else ""
    log.warning("split: %d photos to train on, %d held out%s, %s", len(train), len(test), rest, why)
    return lists
