"""Whether photos have alpha: they show an object, and say what around it is empty."""

import logging
from pathlib import Path

from difix3d.errors import UserError
from difix3d.images import may_be_transparent, read_photo

log = logging.getLogger(__name__)

LOOKED_AT = 16
"""Photos, at most and spread evenly, that are decoded to know: a file with alpha may be opaque throughout."""


def photos_have_alpha(folder: Path, files: list[Path]) -> bool:
    """Whether some of the photos are transparent somewhere; says how many have no alpha, if others do.

    Raises:
        UserError: all that were looked at are wholly transparent.
    """
    able = [path for path in files if may_be_transparent(path)]
    looked_at = able[:: -(-len(able) // LOOKED_AT) or 1]
    empty = 0
    for path in looked_at:
        pixels = read_photo(path)
        if pixels.shape[2] == 3:
            continue
        if pixels[..., 3].any():
            if len(able) < len(files):
                first = next(path for path in files if path not in set(able))
                log.warning(
                    "%s: %d of %d photos have no alpha, first %s: all that they show counts as there",
                    *(folder, len(files) - len(able), len(files), first.name),
                )
            return True
        empty += 1
    if empty and empty == len(looked_at):
        raise UserError(
            f"The photos of {folder} are wholly transparent, first {looked_at[0].name}",
            "Alpha 0 says that nothing is there",
            "Export them again with alpha where the object is, or without alpha",
        )
    return empty > 0
