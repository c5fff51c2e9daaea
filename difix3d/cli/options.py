"""What the commands on trained runs have in common."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from difix3d.devices import Device
from difix3d.limits import Limits
from difix3d.training.load import TrainedRun
from difix3d.training.splatfile import load_model


@dataclass(frozen=True)
class Address:
    """Where a viewer is found, and by whom."""

    _: KW_ONLY
    host: str = "127.0.0.1"
    """Address that the viewer listens on. On any other than this machine's own, the printed address holds a token, and
    whoever has it can pause a training and write files into the run's folder."""
    port: Annotated[int, Limits(min=0, max=65_535)] = 8080
    """Port of the viewer; the next free one is taken if it is not, and any that is free for 0."""
    allow_origin: tuple[str, ...] = ()
    """Further origins whose pages may use the viewer, as of a proxy before it: https://machine.example. Other web pages
    are refused."""


@dataclass(frozen=True)
class RunOptions:
    """Which model of a run, where its scene lies, and what cleans its renders."""

    _: KW_ONLY
    fixer: str | None = None
    """Difix weights: a hub id, a folder, a .pkl checkpoint, `mini` (small weights in the package, for CPUs), or `none`;
    default is what the run was trained with."""
    step: Annotated[int | None, Limits(min=0)] = None
    """Training step of the checkpoint to take; default is the newest."""
    scene: str | None = None
    """Where the run's scene lies now, if it has moved since. Of a splat file: the photos and cameras that it was made
    from."""
    data_dir: Path | None = None
    """Where downloaded and generated scenes lie, if not where they were."""
    device: Device = "auto"
    """`auto`: CUDA if there is a GPU."""

    def load(self, run: Path, step: int | None = None) -> TrainedRun:
        """A run's model, as it was after a step (or the newest), or that of a splat file; and its scene."""
        return load_model(run, step=step, scene=self.scene, data_dir=self.data_dir, device=self.device)
