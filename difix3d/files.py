"""Files: written whole or not at all, looked at before they are opened; JSON without NaN."""

import errno
import json
import math
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from difix3d.errors import UserError

LFS = b"version https://git-lfs"
"""How the files begin that stand for those of Git LFS."""

LARGE = 1_000_000
"""Bytes from which a file is looked at for holes."""

DIGITS = 100
"""Of integers in JSON, at most."""

SHOWN = 200
"""Characters of a path that cannot be one, in errors."""

OWN = ".difix3d"
"""File that marks folders which :func:`claim` made."""

LEFT_SECONDS = 3600
"""Age of a half-written file from which :func:`sweep` may delete it."""

_numbers = count()


def beside(path: Path) -> Path:
    """A new name in the same folder, with the same suffix (which tells many writers the format)."""
    return path.with_name(f".{os.getpid()}-{next(_numbers)}.partial{path.suffix}")


def sweep(folder: Path) -> None:
    """Deletes what processes that were killed have left of files they wrote, anywhere below a folder.

    A process of another machine may write there as well, of which nothing is known here: files of the last hour stay.
    """
    for path in folder.rglob(".*.partial*"):
        pid = re.fullmatch(r"\.(\d+)-\d+\.partial(\..*)?", path.name)
        with suppress(OSError):
            if pid and not _alive(int(pid[1])) and time.time() - path.stat().st_mtime > LEFT_SECONDS:
                path.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True


@contextmanager
def whole_file(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """The name to write a file under; it is given its own when the block has ended well. Its folder is made.

    Args:
        path: where the file appears, whole or not at all; an older one is replaced.
        sync: bring it to the disk first, so that not even a power cut leaves half of it. Pictures can do without.

    Raises:
        UserError: it cannot be written (any :class:`OSError` in the block); nothing is left of it then.
    """
    partial = beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if sync:
            with partial.open("r+b") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def claim(folder: Path) -> None:
    """Makes a folder for this program alone, or finds one that it made: only there may it delete older files.

    Raises:
        UserError: the folder holds files of somebody else, or cannot be made.
    """
    if (folder / OWN).is_file():
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"{folder} holds files that difix3d did not write",
            "Files of an earlier call are replaced there",
            "Choose another output folder, or move them away",
        )
    write_bytes(folder / OWN, b"")


def cannot_write(path: Path, error: OSError) -> UserError:
    """What to say about a file that could not be written."""
    if is_folder(path):
        return UserError(f"Cannot write {path}: a folder is in its place", "", "Move it away")
    reason = (error.strerror or str(error)).strip().splitlines() or [type(error).__name__]
    return UserError(f"Cannot write {path} ({reason[0]})", cure="Free some space, or choose another folder")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with whole_file(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes a file in UTF-8 with the line ends of the text, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all; NaN and infinity, which JSON does not have, become ``null``.

    Raises:
        UserError: it cannot be written.
    """
    write_text(path, as_json(content))


def as_json(content: Any) -> str:
    """JSON, with ``null`` for NaN and infinity."""
    return json.dumps(finite(content), indent=1, allow_nan=False)


def finite(value: Any) -> Any:
    """The same value with ``None`` in place of NaN and infinity, however deep."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def or_nan(value: Any) -> Any:
    """NaN for ``None``, which :func:`write_json` made of it; anything else as it is."""
    return math.nan if value is None else value


def check_file(path: Path) -> None:
    """Refuses what is there and no file: reading a named pipe would wait, and a device may never end.

    Raises:
        UserError: it is a folder, a named pipe, a socket or a device; or its name is one that no file has.
    """
    mode = check_name(path)
    if mode and not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a named pipe, a socket or a device"
        raise UserError(f"{path} cannot be read: it is {what}", "A file was expected", "Check the path")


def check_name(path: Path) -> int:
    """The mode of what is there, 0 if nothing is.

    Raises:
        UserError: the name is too long or has a NUL in it.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except (OSError, ValueError) as error:
        name = str(path)
        name = name if len(name) <= SHOWN else f"{name[:SHOWN]}..."
        raise UserError(f"{name} cannot be read ({getattr(error, 'strerror', None) or error})") from None


def is_file(path: Path) -> bool:
    """Whether a file is there; its name may be of any length and of any characters."""
    with suppress(OSError, ValueError):
        return path.is_file()
    return False


def is_folder(path: Path) -> bool:
    """Whether a folder is there; its name may be of any length and of any characters."""
    with suppress(OSError, ValueError):
        return path.is_dir()
    return False


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: what is wrong with the file, and where.
    """
    content = load_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}", "A JSON object was expected")
    return content


def walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """``os.walk`` into folders behind links, too, each once."""
    seen = set()
    for place, inside, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            inside.clear()
        else:
            seen.add(real)
            yield place, inside, files


def is_pointer(path: Path) -> bool:
    """Whether a file stands for one that Git LFS has not fetched."""
    with path.open("rb") as file:
        return file.read(len(LFS)) == LFS


def refuse_pointer(path: Path) -> None:
    """Looks whether a file is there at all.

    Raises:
        UserError: it is empty, mostly holes, or stands for one that Git LFS has not fetched.
    """
    if is_pointer(path):
        raise UserError(f"{path} is a pointer of Git LFS, not the file itself", "", "git lfs pull")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty", "", "Copy it again, or take it away")
    size = path.stat().st_size
    if size > LARGE and hasattr(os, "SEEK_DATA") and (filled := _filled(path)) < size / 2:
        why = f"{filled:,} of {size:,} bytes were ever written: a copy or a download was broken off"
        raise UserError(f"{path} is mostly holes", why, "Copy it again, or take it away")


def _filled(path: Path) -> int:
    """Bytes of a file that are no holes, counted up to half of it; all where its file system does not say."""
    size = path.stat().st_size
    filled = at = 0
    with path.open("rb") as file:
        while filled < size / 2:
            try:
                begin = os.lseek(file.fileno(), at, os.SEEK_DATA)
                at = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            except OSError as error:
                return filled if error.errno == errno.ENXIO else size  # ENXIO: no data from there on
            filled += at - begin
    return filled


def load_json(path: Path) -> Any:
    """Whatever a JSON file holds.

    Raises:
        UserError: what is wrong with the file, and where.
    """
    check_file(path)
    try:
        return json.loads(path.read_bytes(), parse_int=_integer)  # in UTF-8, or what its byte-order mark says
    except FileNotFoundError:
        raise UserError(f"{path} does not exist", "", "Check the path") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})", "", "Check the path") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text", "A JSON file was expected") from None
    except json.JSONDecodeError as error:
        refuse_pointer(path)
        raise UserError(f"{path} is broken at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # thousands of digits, or of brackets
        raise UserError(f"{path} cannot be read as JSON ({error})") from None


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:  # more are no count, and too many for floats
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)
