"""Safe places for names that come out of other people's files; the cache folder."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from difix3d.errors import UserError

LONGEST = 100
"""Characters of a part of a path that :func:`safe_names` makes; file systems take 255 bytes."""


def safe_names(names: Sequence[str]) -> list[str]:
    """Where files called after these names go: relative paths without a suffix, which stay inside of their folder and
    apart from each other, also where letters' case does not count.

    Names may come out of anybody's files: ``left/0001.jpg`` becomes ``left/0001``, ``/home/me/a.jpg`` ``home/me/a``,
    ``../b.png`` ``_/b``. ``a.jpg`` beside ``a.png`` keep their suffixes.
    """
    places = [os.path.splitext(_inside(name))[0] for name in names]
    for longer in (_inside, _numbered):
        shared = Counter(place.casefold() for place in places)
        pairs = zip(names, places, strict=True)
        places = [longer(name) if shared[place.casefold()] > 1 else place for name, place in pairs]
    return places


def _inside(name: str) -> str:
    """The name as a relative path that leads nowhere else, of characters that all file systems take."""
    parts = [_part(part) for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return "/".join(parts) or "_"


def _numbered(name: str) -> str:
    return f"{_inside(name)}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:12]}"


def _part(part: str) -> str:
    part = re.sub(r'[\x00-\x1f\x7f-\x9f<>:"|?*\ud800-\udfff]', "_", part).rstrip(". ") or "_"
    if len(part) <= LONGEST:
        return part
    return f"{part[:60]}-{hashlib.sha256(part.encode()).hexdigest()[:12]}{os.path.splitext(part)[1][:12]}"


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
