"""Safe places for names that come out of other people's files; the cache folder."""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from difix3d.errors import UserError

LONGEST, KEPT = 100, 60
"""Bytes of a part of a path that :func:`safe_names` makes, and of those that stay of a longer one; file systems take
255."""
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""What Windows takes for devices."""


def safe_names(names: Sequence[str]) -> list[str]:
    """Where files called after these names go: relative paths without a suffix, which stay inside of their folder and
    apart from each other, also where letters' case and their composition do not count.

    Names may come out of anybody's files: ``left/0001.jpg`` becomes ``left/0001``, ``/home/me/a.jpg`` ``home/me/a``,
    ``../b.png`` ``_/b``. ``a.jpg`` beside ``a.png`` keep their suffixes.
    """
    places = [os.path.splitext(_inside(name))[0] for name in names]
    for longer in (_inside, *(_numbered for _ in names)):  # a numbered one may be what another was called
        shared = Counter(map(_same, places))
        made = [longer(name) if shared[_same(place)] > 1 else place for name, place in zip(names, places, strict=True)]
        if longer is _numbered and made == places:
            break
        places = made
    return places


def _same(place: str) -> str:
    """What two places have in common that are one to some file system (Unicode's canonical caseless matching)."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", place).casefold())


def _inside(name: str) -> str:
    """The name as a relative path that leads nowhere else, of characters that all file systems take."""
    *folders, last = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")] or ["_"]
    # folders are called as no picture: x.jpg, which becomes x.png, may lie beside x.png/y.jpg
    return "/".join([*(_part(re.sub(r"\.(?=[a-z]\w{1,4}$)", "_", part, flags=re.I)) for part in folders), _part(last)])


def _numbered(name: str) -> str:
    return f"{_inside(name)}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:12]}"


def _part(part: str) -> str:
    part = re.sub(r'[\x00-\x1f\x7f-\x9f<>:"|?*\ud800-\udfff]', "_", part).rstrip(". ") or "_"
    part = f"_{part}" if RESERVED.fullmatch(part) else part
    if len(part.encode()) <= LONGEST:
        return part
    begin, suffix = part.encode()[:KEPT].decode(errors="ignore"), os.path.splitext(part)[1].encode()[:12]
    return f"{begin}-{hashlib.sha256(part.encode()).hexdigest()[:12]}{suffix.decode(errors='ignore')}"


def cache_folder() -> Path:
    """The user's own: ``$XDG_CACHE_HOME/difix3d``, or ``~/.cache/difix3d``; it need not exist.

    Raises:
        UserError: nobody knows where the user's home is.
    """
    root = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(root):  # the XDG specification has others ignored
        return Path(root) / "difix3d"
    try:
        return Path.home() / ".cache" / "difix3d"
    except RuntimeError as error:
        raise UserError(f"There is no home folder ({error})", "", "Set HOME or XDG_CACHE_HOME to a folder") from None
