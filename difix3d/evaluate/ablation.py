"""The rows of tables, those of the paper's ablation: what each is called, what makes it, what it is compared with."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Name = Literal["given", "given+", "3dgs", "3dgs+difix", "difix3d", "difix3d+paper", "difix3d+"]


@dataclass(frozen=True)
class Method:
    """One way to get pictures from a run.

    Attributes:
        name, title: its key, and what tables call it.
        against: keys of the rows that it may be compared with; the first one that there is counts.
        trust: of the fixer behind the rasteriser: whether rendered pixels that photos agree with are kept; ``None``
            without such a fixer.
    """

    name: Name
    title: str
    against: tuple[Name, ...] = ()
    trust: bool | None = None

    @property
    def model(self) -> Name:
        """Key of the row that is its model's plain render."""
        return self.name if self.trust is None else self.against[0]

    def compared_with(self, rows: Collection[str]) -> str | None:
        """Title of the row that it is compared with, if that is among ``rows`` (keys)."""
        return next((ABLATION[name].title for name in self.against if name in rows), None)


ABLATION: dict[Name, Method] = {
    method.name: method
    for method in (
        Method("given", "As it came"),
        Method("given+", "As it came, fixed (+)", ("given",), trust=True),
        Method("3dgs", "3DGS"),
        Method("3dgs+difix", "3DGS + Difix", ("3dgs",), trust=False),
        Method("difix3d", "Difix3D", ("3dgs", "given")),
        Method("difix3d+paper", "Difix3D+ (paper)", ("difix3d",), trust=False),
        Method("difix3d+", "Difix3D+", ("difix3d",), trust=True),
    )
}
"""In the order of tables; the last one that a run has is what the run is about. ``given``: a splat file of any trainer,
before the first step."""

TITLES = {method.title: name for name, method in ABLATION.items()}
"""The keys by title."""
