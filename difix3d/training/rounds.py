"""The rounds of a training: novel views are fixed when the schedule says so, judged, and mixed in with the photos."""

import logging
import time
from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from difix3d.distill import Distiller, judge
from difix3d.distill.pictures import RoundPictures
from difix3d.distill.pseudo import PseudoViews, draw, pack, unpack
from difix3d.errors import UserError
from difix3d.ranks import ALONE, Ranks
from difix3d.scene.pathfile import read_path
from difix3d.training.config import TrainConfig
from difix3d.training.control import Interrupted
from difix3d.training.events import Listener, PilotDone, PilotProgress, RoundDone, RoundProgress
from difix3d.training.pilot import Pilot, Progress
from difix3d.training.run import RunFolder
from difix3d.types import Cameras, Degraded, Fixer, RenderFn, Scene, View

log = logging.getLogger(__name__)

Trial = Callable[[list[int], PseudoViews | None], list[float]]
"""Trains a little without these photos and with these novel views, puts all back, and returns the photos' PSNR."""
MakePilot = Callable[[Cameras | None, Progress], tuple[Pilot, UInt8[np.ndarray, "_ _ 3"]]]
"""Finds out whether the fixer helps at such targets, and makes a picture of it."""


class Rounds:
    """What distillation adds to a training: its novel views, and when it is their turn.

    Args:
        config: of the training, settled.
        scene: whose captured cameras the novel ones start from.
        photo: gives a captured view by its index.
        fixer: cleans renders; without one the schedule is empty, and every step is the photos'.
        targets: where the novel cameras go; by default what the configuration says.
        folder: where rounds are recorded.
        device: where the model renders.
        ranks: the processes that share the work of a round.
        pilot: is asked before the first round, if there is one.

    Attributes:
        pseudo: the novel views in use; ``None`` before the first round and after a rollback.
        helps: whether the fixer does, as the pilot found; ``None`` before it.
    """

    def __init__(
        self,
        config: TrainConfig,
        scene: Scene,
        photo: Callable[[int], View],
        fixer: Fixer | None,
        targets: Cameras | None,
        folder: RunFolder,
        device: torch.device,
        ranks: Ranks = ALONE,
        pilot: MakePilot | None = None,
    ):
        assert config.distill.novel_prob is not None
        self.novel_prob = config.distill.novel_prob
        self.ranks = ranks
        self.size = ranks.count * config.batch_size
        self.seed = config.seed
        self.config = config.distill
        if fixer is None:
            self.config = replace(self.config, mode="off", targets="perturb")
        self.scene = scene
        self.photo = photo
        self.folder = folder
        self.device = device
        self.pilot = pilot
        self.helps: bool | None = None
        self.pseudo: PseudoViews | None = None
        self._done = -1
        self._write: Callable[[], Future[None]] | None = None  # what the last round has still to leave on disk
        self._writing: Future[None] | None = None
        self._asked: list[int] = []
        self._targets: Cameras | None = None
        self.distiller = Distiller(
            self.config,
            scene,
            photo,
            fixer or no_fixer,
            targets=choose_targets(self.config.targets, scene) if targets is None else targets,
            max_steps=config.max_steps,
            seed=config.seed,
            device=device,
            ranks=ranks,
        )

    def set_targets(self, targets: Cameras) -> None:
        """Sends the novel cameras of further rounds there, also after a resume."""
        self._targets = targets.to("cpu")
        self.distiller.targets = targets.to(self.device)

    def due(self, step: int) -> bool:
        """Whether the schedule has a round before a step."""
        return step in self.distiller.steps and self.helps is not False

    def run(
        self, step: int, render: RenderFn, trial: Trial, emit: Listener, interrupted: Callable[[], bool] = lambda: False
    ) -> None:
        """Makes the novel views anew, before any step, and keeps them if they do no harm. Its pictures are written, and
        then its row, while the training goes on (:meth:`settle`).

        A round beside the schedule counts as one of it: the later ones go as much further. A step has one round. Before
        the first one of the schedule comes the pilot; if that declines, there is none.

        Args:
            step: of the training.
            render: the model, with depth.
            trial: for the gate.
            emit: is told how it goes.
            interrupted: is asked before the round and after each view.

        Raises:
            Interrupted: the round is left undone, as after any error.
            UserError: the fixer gives no images, or what the round before left cannot be written.
        """

        def progress(count: int, of: int) -> None:
            emit(RoundProgress(step, count, of))
            if interrupted():
                raise Interrupted

        steps = self.distiller.steps
        if step == self._done:
            return
        if step not in steps:
            self._add(step)
        elif self.pilot is not None and self.helps is None:
            self._ask_pilot(self.pilot, step, emit)
            if not self.helps:
                return
        if interrupted():
            raise Interrupted
        done = self.distiller.run_round(render, step, progress)
        held_out = self.distiller.held_out(step)
        start = time.perf_counter()
        pseudo, verdict = judge(done.pseudo, partial(trial, held_out) if held_out else None, self.config)
        seconds = done.seconds | {"judge": time.perf_counter() - start}
        start = time.perf_counter()
        self.settle()  # one round at most waits in memory
        seconds["write"] = time.perf_counter() - start
        row = {
            "step": step,
            "decision": verdict.decision,
            "gain": verdict.gain,
            "weight": 0.0 if pseudo is None else pseudo.weight,
            "held_out": [self.scene.photos[i].name for i in held_out],
            "psnr_without": verdict.without,
            "trials": [{"weight": weight, "psnr": psnr} for weight, psnr in verdict.trials],
            "confidence": [float(weights.float().mean()) / 255 for weights in done.pseudo.confidence],
            "references": [self.scene.photos[i].name for i in done.pseudo.reference.tolist() if i >= 0],
            "cameras": done.pseudo.cameras.c2w.tolist(),
            "K": done.pseudo.cameras.K.tolist(),
            "seconds": seconds,
        }
        if self.ranks.first:
            pictures = RoundPictures(done, self.folder.path / "rounds" / f"step_{step:06d}", self.photo)
            self._write = partial(pictures.write, partial(self.folder.record, "rounds.json", row))
            self._writing = self._write()
        self.pseudo, self._done = pseudo, step
        emit(RoundDone(step, steps.index(step) + 1, len(steps), len(done.pseudo), verdict, seconds))

    def _ask_pilot(self, pilot: MakePilot, step: int, emit: Listener) -> None:
        start = time.perf_counter()

        def first() -> Pilot | None:
            with suppress(Interrupted):  # the other processes wait for an answer
                found, sheet = pilot(self.distiller.targets, lambda done, total: emit(PilotProgress(done, total)))
                self.folder.keep_pilot(found.row(), sheet)
                return found
            return None

        found = self.ranks.of_first(first)
        if found is None:
            raise Interrupted
        self.helps = found.helps
        emit(PilotDone(step, found, time.perf_counter() - start))

    def settle(self) -> None:
        """Waits until the pictures of the last round, and after them its row, are on disk.

        Raises:
            UserError: they cannot be written; the next call tries it once more.
        """
        if self._write is None:
            return
        self._writing = self._writing or self._write()
        try:
            self._writing.result()
        except Exception:
            self._writing = None
            raise
        self._write = self._writing = None

    def close(self) -> None:
        """Waits until nothing is written any more. An error is only told: another one ends the training already."""
        if self._writing is None:
            return
        try:
            self.settle()
        except Exception as error:
            log.warning("The pictures of the last round are not whole: %s", error)

    def pick(self, step: int) -> list[View] | None:
        """The novel views to train on at a step; ``None`` if it is the photos' turn."""
        return self.draw(self.pseudo, step) if self.pseudo is not None and self.is_novel(step) else None

    def state(self) -> dict[str, Tensor]:
        """The novel views, and what was asked for beside the schedule, as tensors of a checkpoint; no checkpoint is
        ahead of what its rounds leave on disk (:meth:`settle`)."""
        self.settle()
        state = {} if self.pseudo is None else pack(self.pseudo)
        if self._asked:
            state |= {"rounds.asked": torch.tensor(self._asked), "rounds.done": torch.tensor(self._done)}
        if self.helps is not None:
            state["rounds.helps"] = torch.tensor(self.helps)
        if self._targets is not None:
            state |= {f"rounds.targets.{name}": value for name, value in vars(self._targets).items()}
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts back what :meth:`state` gave."""
        self.pseudo = unpack(state)
        self._done = int(state.get("rounds.done", -1))
        self.helps = bool(state["rounds.helps"]) if "rounds.helps" in state else None
        for step in state.get("rounds.asked", torch.empty(0)).tolist():
            self._add(step)
        prefix = "rounds.targets."
        targets = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if targets:
            self.set_targets(Cameras(**targets))

    def _add(self, step: int) -> None:
        """A round that the schedule does not have."""
        self._asked.append(step)
        if step not in self.distiller.steps:
            insort(self.distiller.steps, step)

    def is_novel(self, step: int) -> bool:
        """Whether it is the novel views' turn, if there are any."""
        return self._random(step, 0).random() < self.novel_prob

    def draw(self, pseudo: PseudoViews, step: int) -> list[View]:
        """Some of the novel views, for a step."""
        drawn = self.ranks.share(draw(pseudo, self.size, self._random(step, 1)))
        return [pseudo.view(i, self.device) for i in drawn]

    def _random(self, step: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, step, purpose))


def no_fixer(degraded: Iterable[Degraded]) -> Iterator[Tensor]:
    """What a schedule without rounds never calls."""
    del degraded
    yield from ()


def views_asked_for(config: TrainConfig, scene: Scene, targets: Cameras | None, fixer: Fixer | None) -> Cameras | None:
    """The cameras that a training is judged by: its novel cameras' targets, else those of held-out photos, if there are
    any of either."""
    if targets is not None:
        return targets
    found = choose_targets("auto" if fixer is None else config.distill.targets, scene)
    return scene.cameras[scene.test] if found is None and len(scene.test) else found


def choose_targets(name: str, scene: Scene) -> Cameras | None:
    """Where novel cameras go, by the name in the configuration; ``None`` to perturb the captured ones."""
    if name == "perturb" or (name == "auto" and len(scene.test) == 0):
        return None
    if name not in ("auto", "eval"):
        return read_path(Path(name), scene).cameras
    if len(scene.test) == 0:
        raise UserError(
            "The novel cameras have no targets",
            "--distill.targets eval needs held-out photos, and this split has none",
            "Use --distill.targets perturb, a camera path file, or another --split",
        )
    return scene.cameras[scene.test]
