"""What the readers of the file formats return: photos and cameras as the files say, before any choice is made."""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from difix3d.errors import UserError
from difix3d.types import Lens


@dataclass(frozen=True)
class Capture:
    """N photos with their cameras, in the user's world.

    Attributes:
        folder: what file names in errors and ``images_2`` folders are relative to.
        names: what the model calls the photos; unique.
        files: where they should be, at full size; need not exist.
        c2w: camera to world, OpenCV axes; unchecked.
        lenses: the camera models, at full size.
        masks: mask files, or ``None``.
        points, colors: sparse points; P may be 0.
        observations: pairs (point, photo), empty if unknown.
        splits: lists of names that the format itself gives ("train", "test").
        notes: what people should know about the reading, a line each.
    """

    folder: Path
    names: list[str]
    files: list[Path]
    c2w: Float[np.ndarray, "N 4 4"]
    lenses: list[Lens]
    masks: list[Path | None]
    points: Float[np.ndarray, "P 3"]
    colors: UInt8[np.ndarray, "P 3"]
    observations: Int[np.ndarray, "O 2"]
    splits: dict[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def subset(self, keep: Bool[np.ndarray, "N"]) -> "Capture":
        """Without the other photos; points stay, also those that only these see."""
        chosen = np.flatnonzero(keep)
        position = np.cumsum(keep) - 1
        gone = {name for name, stays in zip(self.names, keep, strict=True) if not stays}
        seen = self.observations[keep[self.observations[:, 1]]]
        return replace(
            self,
            names=[self.names[i] for i in chosen],
            files=[self.files[i] for i in chosen],
            c2w=self.c2w[chosen],
            lenses=[self.lenses[i] for i in chosen],
            masks=[self.masks[i] for i in chosen],
            observations=np.stack([seen[:, 0], position[seen[:, 1]]], 1),
            splits={role: [name for name in names if name not in gone] for role, names in self.splits.items()},
        )


def refuse_repeated(folder: Path, names: Sequence[str]) -> None:
    """Refuses names that stand there twice.

    Raises:
        UserError: a photo has two poses.
    """
    if len(set(names)) < len(names):
        repeated = Counter(names).most_common(1)[0][0]
        raise UserError(f"{folder} has more than one pose for {repeated}", "A photo has one pose", "Remove one")


def missing_photos(folder: Path, missing: Sequence[Path | str], total: int) -> UserError:
    """The error for photos that are not there; names what else could be meant by the first."""
    lost = [Path(path) for path in missing[:3]]
    first = ", ".join(map(str, lost)) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    if lost[0].is_symlink():
        return UserError(
            f"{len(missing)} of the {total} photos of {folder} are links to files that are not there: {first}",
            f"The first leads to {lost[0].readlink()}",
            "Copy the photos in place of the links",
        )
    near = sorted(path.name for path in lost[0].parent.glob(f"{glob.escape(lost[0].stem)}.*"))
    return UserError(
        f"{len(missing)} of the {total} photos of {folder} are missing: {first}",
        "Every camera needs its photo",
        f"There are {' and '.join(near)}: keep one of them"
        if near
        else "Copy them there, or leave their cameras out of the model",
    )
