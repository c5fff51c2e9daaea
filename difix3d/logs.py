"""Listeners to the trainer's events: a progress bar for people, TensorBoard for later."""

import logging
import math
from pathlib import Path

from rich.console import Console

from difix3d.console import Bar, RunningMean, console
from difix3d.training.events import (
    Evaluated,
    Event,
    Finished,
    Paused,
    PilotDone,
    PilotProgress,
    RoundDone,
    RoundProgress,
    Saved,
    Started,
    Stepped,
)
from difix3d.training.pilot import in_words

log = logging.getLogger(__name__)

DECLINED = "\nnothing is distilled; --distill.pilot-steps 0 distils all the same"

PERIOD = 50
"""Steps between the losses that TensorBoard gets; reading one waits for the GPU."""


class ProgressLog:
    """A live bar on a terminal; in a pipe or a log file, a line for every tenth of the run.

    Args:
        to: where.
        whole: the run to go on with after an interruption, if this one is only a part of it.
    """

    def __init__(self, to: Console = console, whole: Path | None = None):
        self.console, self._whole = to, whole
        self._bar = Bar("train", to=to)
        self._loss, self._mse = RunningMean(0.9), RunningMean(0.9)

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._run = event.run
                resumed = f", resumed at step {event.first:,}" if event.first else ""
                if event.note:
                    self.print(event.note)
                what = "training" if event.last else "evaluating, without training,"
                self.print(f"{what} on {event.device} from {event.gaussians:,} Gaussians into {event.run}{resumed}")
                self._bar = Bar("train", event.last, first=event.first, to=self.console).__enter__()
            case Stepped():
                self._stepped(event)
            case PilotProgress(done, total):
                self._bar.status(f"pilot, step {done:,} of {total:,}")
            case PilotDone(step, pilot, seconds):
                ending = "" if pilot.helps else DECLINED
                self.print(f"step {step:,}: pilot: {in_words(pilot.row())}; {seconds:.0f} s{ending}")
            case RoundProgress(step, done, total):
                self._bar.status(f"fixing novel view {done} of {total}")
            case RoundDone():
                self.print(round_line(event))
            case Evaluated(step, result, plus, split):
                corrected = f" ({result.mean('cc_psnr'):.2f} colour-corrected)" if "cc_psnr" in result.metrics else ""
                model = f"step {step:,}" if step else "as it came"
                self.print(
                    f"{model}{', fixed at render time (+)' if plus else ''}: "
                    f"PSNR {result.mean('psnr'):.2f} dB{corrected}, SSIM {result.mean('ssim'):.3f} "
                    f"on {len(result.images)} {split} views, {result.mean('seconds') * 1e3:.1f} ms per frame"
                )
            case Saved(step, path):
                self.print(f"step {step:,}: saved {path.name}")
            case Paused(step):
                self.print(f"step {step:,}: paused")
            case Finished():
                self.close()
                if event.memory:
                    self.print(event.memory)
                self.print(self._farewell(event))

    def close(self) -> None:
        """Takes the bar off the terminal and gives the cursor back, also after an error."""
        self._bar.__exit__()

    def print(self, line: str) -> None:
        """A line above the bar."""
        self._bar.print(line)

    def _stepped(self, event: Stepped) -> None:
        if event.step % 10 and not self._bar.is_tenth(event.step):  # reading a loss waits for the GPU
            self._bar.update(event.step)
            return
        loss = self._loss(sum(float(value) for value in event.losses.values()))
        psnr = -10 * math.log10(max(self._mse(float(event.mse)), 1e-12))
        self._bar.step(event.step, f"loss {loss:.4f}  PSNR {psnr:.2f}  {event.gaussians:,} Gaussians")

    def _farewell(self, event: Finished) -> str:
        if event.interrupted:
            return f"stopped at step {event.step:,}; go on with: --resume --output-dir {self._whole or self._run}"
        return f"done in {event.seconds / 60:.1f} min: {self._run}"


def round_line(event: RoundDone) -> str:
    """A round in one line: how many views, what the gate found, and how long it took."""
    verdict = event.verdict
    found = f" ({verdict.gain:+.2f} dB on {len(verdict.without)} photo(s) left out)" if verdict.gain is not None else ""
    times = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in event.seconds.items())
    return (
        f"step {event.step:,}: round {event.number} of {event.total}, {event.views} novel views: "
        f"{verdict.decision}{found}; {times}"
    )


class TensorBoardLog:
    """Scalars for TensorBoard, in the run's folder: losses every :data:`PERIOD` steps, and each evaluation."""

    def __init__(self) -> None:
        self._failed = False

    def __call__(self, event: Event) -> None:
        if self._failed:
            return
        try:
            self._log(event)
        except OSError as error:
            self._failed = True
            log.warning("TensorBoard's log cannot be written any more (%s)", error)

    def _log(self, event: Event) -> None:
        match event:
            case Started():
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(event.run / "tensorboard"), purge_step=event.first or None)
            case Stepped() if event.step % PERIOD == 0:
                for name, value in event.losses.items():
                    self._writer.add_scalar(f"loss/{name}", float(value), event.step)
                self._writer.add_scalar("train/psnr", -10 * math.log10(max(float(event.mse), 1e-12)), event.step)
                self._writer.add_scalar("train/gaussians", event.gaussians, event.step)
            case RoundDone() if event.verdict.gain is not None:
                self._writer.add_scalar("gate/gain", event.verdict.gain, event.step)
            case Evaluated(step, result, plus, split):
                for metric in ("psnr", "ssim", "seconds"):
                    name = f"{split}{'_plus' if plus else ''}/{metric}"
                    self._writer.add_scalar(name, result.mean(metric), step)
            case Finished():
                self._writer.close()
