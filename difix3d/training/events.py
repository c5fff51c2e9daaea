"""What the trainer says while it works: progress bars, loggers and the viewer listen; it knows none of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from difix3d.distill import Verdict
from difix3d.evaluate import Variant
from difix3d.training.pilot import Pilot


@dataclass(frozen=True)
class Started:
    """Training begins: ``first`` of ``last`` steps are done already (more than 0 if resumed). ``note`` has a line
    for each thing that was chosen or found: the dropout, how many sparse points are not used, that nothing can be added
    to a splat file, what memory a GPU needs; it may be empty."""

    first: int
    last: int
    run: Path
    device: str
    gaussians: int
    note: str = ""


@dataclass(frozen=True)
class Stepped:
    """One step is done. ``losses`` and ``mse`` are still on the device: reading them waits for it."""

    step: int
    losses: dict[str, Tensor]
    mse: Tensor
    gaussians: int


@dataclass(frozen=True)
class Evaluated:
    """The views of a split were rendered (``plus``: and fixed) and compared."""

    step: int
    result: Variant
    plus: bool
    split: str


@dataclass(frozen=True)
class PilotProgress:
    """``done`` of ``total`` steps of the pilot before the first round are done."""

    done: int
    total: int


@dataclass(frozen=True)
class PilotDone:
    """It is known whether the fixer helps: what follows are rounds, or else plain training."""

    step: int
    pilot: Pilot
    seconds: float


@dataclass(frozen=True)
class RoundProgress:
    """``done`` of ``total`` novel views of the round before a step are fixed."""

    step: int
    done: int
    total: int


@dataclass(frozen=True)
class RoundDone:
    """A round is fixed and judged: ``number`` of ``total``; ``seconds`` by phase."""

    step: int
    number: int
    total: int
    views: int
    verdict: Verdict
    seconds: dict[str, float]


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written."""

    step: int
    path: Path


@dataclass(frozen=True)
class Paused:
    """Training waits before the step after this one."""

    step: int


@dataclass(frozen=True)
class Resumed:
    """Training goes on."""

    step: int


@dataclass(frozen=True)
class Finished:
    """Training ended: at its last step, or ``interrupted`` before. ``memory`` compares the peak on a GPU with what was
    estimated."""

    step: int
    seconds: float
    interrupted: bool
    memory: str = ""


Event = (
    Started
    | Stepped
    | PilotProgress
    | PilotDone
    | RoundProgress
    | RoundDone
    | Evaluated
    | Saved
    | Paused
    | Resumed
    | Finished
)
Listener = Callable[[Event], None]
