"""Names of files that come from a browser."""

import re
from pathlib import Path

from difix3d.errors import UserError


def result_path(folder: Path, name: str, suffix: str) -> Path:
    """A file of that name in the folder, and nowhere else.

    Raises:
        UserError: the name has other characters than letters, digits, ``-``, ``_`` and ``.``, or begins with a dot.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", name):
        raise UserError(
            f"A file cannot be called {name[:100]!r}", "Names have 1 to 100 letters, digits, - and _", "Choose another"
        )
    return folder / f"{name.removesuffix(suffix)}{suffix}"
