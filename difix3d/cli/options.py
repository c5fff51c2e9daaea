"""What the commands on trained runs have in common."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from difix3d.devices import Device
from difix3d.limits import Limits
from difix3d.training.load import TrainedRun, load_run


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
    """Where the run's scene lies now, if it has moved since."""
    data_dir: Path | None = None
    """Where downloaded and generated scenes lie, if not where they were."""
    device: Device = "auto"
    """`auto`: CUDA if there is a GPU."""

    def load(self, run: Path, step: int | None = None) -> TrainedRun:
        """A run's model, as it was after a step (or the newest), and its scene."""
        return load_run(run, step=step, scene=self.scene, data_dir=self.data_dir, device=self.device)
