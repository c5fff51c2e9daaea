"""The small files of a run: rows of JSON, checksums by which a change from outside is noticed, a lock.

A run writes them; people may look at them and, where they know what they do, change them.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from difix3d.errors import UserError
from difix3d.files import as_json, cannot_write, load_json, read_json, write_text

log = logging.getLogger(__name__)

CHECKSUMS, LOCK = "checksums.json", ".lock"


def write_state(path: Path, text: str) -> None:
    """Writes a file whole, and its SHA-256 into ``checksums.json`` beside it.

    The checksum goes first, and the one before stays: a program that is killed between the two leaves a file that fits.

    Raises:
        UserError: it cannot be written.
    """
    known = _checksums(path.parent)
    known[path.name] = [*known.get(path.name, [])[-1:], _sha256(text.encode())]
    write_text(path.parent / CHECKSUMS, json.dumps(known, indent=1))
    write_text(path, text)


def changed(path: Path) -> bool:
    """Whether a file is other than it was written, or missing; ``False`` where nothing is known of it, as in older
    runs."""
    known = _checksums(path.parent).get(path.name)
    return known is not None and not (path.is_file() and _sha256(path.read_bytes()) in known)


def refuse_foreign(folder: Path, names: Sequence[str], begun: Callable[[], bool], owner: str) -> None:
    """Refuses a folder with files of the names that a run writes, unless a run wrote them that got no further.

    Args:
        names: of these files.
        begun: whether a run wrote there; asked where one of them is there.
        owner: what they are not of, for the error.
    """
    taken = next((name for name in names if (folder / name).exists()), None)
    if taken is not None and not begun():
        raise UserError(
            f"{folder} holds a {taken} that is of no {owner}", "It would be overwritten", "Choose another --output-dir"
        )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """A JSON list of objects, as :func:`append_row` writes it; empty if there is no such file.

    Raises:
        UserError: the file holds something else.
    """
    rows = load_json(path) if path.exists() else []
    if not isinstance(rows, list) or not all(isinstance(row, dict) and type(row.get("step")) is int for row in rows):
        raise UserError(f"{path} is damaged", "A list of objects, each with a step, was expected", "Move it away")
    return rows


def append_row(path: Path, row: dict[str, Any], keep: Callable[[dict[str, Any]], bool]) -> None:
    """Adds a row to a JSON list, in the way of :func:`write_state`.

    Args:
        path: of the file, which need not be there yet.
        row: has a ``step``.
        keep: which of the rows that are there stay.

    Raises:
        UserError: the file is damaged, or cannot be written.
    """
    write_state(path, as_json([*filter(keep, read_rows(path)), row]))


def mend_rows(path: Path) -> None:
    """Moves a damaged list of rows aside, so that a run can go on; says so, or that rows are not as they were."""
    try:
        read_rows(path)
    except UserError as error:
        places = (path.with_name(f"{path.stem}.damaged{number or ''}{path.suffix}") for number in count())
        aside = next(place for place in places if not place.exists())
        os.replace(path, aside)
        log.warning("%s It is kept as %s, and the run goes on without its rows", error, aside.name)
        return
    if changed(path):
        what = "was changed after it was written; its rows are taken as they are"
        log.warning("%s %s", path, what if path.exists() else "is missing; the run goes on without its rows")


def lock(folder: Path) -> FileLock:
    """The lock of a folder, taken; the system frees it when the process ends, however it does.

    Raises:
        UserError: another process has it, or the folder cannot be written.
    """
    taken = FileLock(folder / LOCK, timeout=0)
    try:
        taken.acquire()
    except Timeout:
        raise UserError(
            f"{folder} is being written by another training",
            "A run has one writer",
            "Wait until it ends, stop it, or give another --output-dir",
        ) from None
    except NotImplementedError:  # a file system without locks
        log.warning("%s cannot be locked: do not start a second training there", folder)
    except OSError as error:
        raise cannot_write(folder / LOCK, error) from error
    return taken


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _checksums(folder: Path) -> dict[str, list[str]]:
    path = folder / CHECKSUMS
    try:
        known = read_json(path) if path.exists() else {}
    except UserError as error:
        log.warning("%s Nothing can be checked by it; it is written anew with the next file", error)
        return {}
    return {name: sums for name, sums in known.items() if isinstance(sums, list)}
