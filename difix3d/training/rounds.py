"""The rounds of a training: novel views are painted when the schedule says so, judged, and mixed in with the photos."""

import time
from bisect import insort
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from difix3d.distill import Distiller, judge
from difix3d.distill.pictures import write_round
from difix3d.distill.pseudo import PseudoViews, draw, pack, unpack
from difix3d.errors import UserError
from difix3d.scene.paths import read_path
from difix3d.training.events import Painted, Painting
from difix3d.types import Cameras, Fixer, Scene, View


class Rounds:
    """What distillation adds to a trainer.

    Args:
        trainer: the :class:`~difix3d.training.Trainer` whose model is rendered, tried and rolled back.
        fixer: cleans renders.
        targets: where the novel cameras go; by default what the configuration says.

    Attributes:
        pseudo: the novel views in use; ``None`` before the first round and after a rollback.
    """

    def __init__(self, trainer: Any, fixer: Fixer, targets: Cameras | None = None):
        config = trainer.config
        assert config.distill.share is not None  # the trainer has settled it
        self.share = config.distill.share
        self.trainer = trainer
        self.config = config.distill
        self.pseudo: PseudoViews | None = None
        self._painted: int | None = None
        self.distiller = Distiller(
            self.config,
            trainer.scene,
            trainer.views.__getitem__,
            fixer,
            targets=choose_targets(self.config.targets, trainer.scene) if targets is None else targets,
            max_steps=config.max_steps,
            seed=config.seed,
            device=trainer.device,
        )

    def update(self, step: int) -> None:
        """Before a step of the schedule: paints the novel views anew."""
        if step in self.distiller.steps and step != self._painted:
            self.paint(step)

    def aim(self, targets: Cameras) -> None:
        """Sends the novel cameras of further rounds there."""
        self.distiller.targets = targets.to(self.trainer.device)

    def paint(self, step: int) -> None:
        """Paints the novel views anew, before any step, and keeps them if they do no harm.

        A round beside the schedule counts as one of it: the later ones go as much further. A step has one round.
        """
        steps, trainer = self.distiller.steps, self.trainer
        if step == self._painted:
            return
        if step not in steps:
            insort(steps, step)
        self._painted = step
        render = partial(trainer.render, trainer.gaussians, depth=True)
        painted = self.distiller.paint(render, step, lambda done, of: trainer.emit(Painting(step, done, of)))
        held_out = self.distiller.held_out(step)
        start = time.perf_counter()
        self.pseudo, verdict = judge(
            painted.pseudo, partial(self._probe, held_out, step) if held_out else None, self.config
        )
        seconds = painted.seconds | {"judge": time.perf_counter() - start}
        write_round(painted, trainer.run.path / "rounds" / f"step_{step:06d}", trainer.views.__getitem__)
        row = {
            "step": step,
            "decision": verdict.decision,
            "gain": verdict.gain,
            "weight": 0.0 if self.pseudo is None else self.pseudo.weight,
            "held_out": [trainer.scene.photos[i].name for i in held_out],
            "psnr_without": verdict.without,
            "trials": [{"weight": weight, "psnr": psnr} for weight, psnr in verdict.trials],
            "confidence": [float(weights.float().mean()) / 255 for weights in painted.pseudo.confidence],
            "references": [trainer.scene.photos[i].name for i in painted.pseudo.reference.tolist() if i >= 0],
            "cameras": painted.pseudo.cameras.c2w.tolist(),
            "K": painted.pseudo.cameras.K.tolist(),
            "seconds": seconds,
        }
        trainer.run.record("rounds.json", row)
        trainer.emit(Painted(step, steps.index(step) + 1, len(steps), len(painted.pseudo), verdict, seconds))

    def pick(self, step: int) -> list[View] | None:
        """The novel views to train on at a step; ``None`` if it is the photos' turn."""
        return self._draw(self.pseudo, step) if self.pseudo is not None and self._is_novel(step) else None

    def state(self) -> dict[str, Tensor]:
        """The novel views, as tensors of a checkpoint."""
        return {} if self.pseudo is None else pack(self.pseudo)

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts back the novel views from the tensors of a checkpoint."""
        self.pseudo = unpack(state)

    def _is_novel(self, step: int) -> bool:
        """Whether it is the novel views' turn, if there are any."""
        return self._random(step, 0).random() < self.share

    def _draw(self, pseudo: PseudoViews, step: int) -> list[View]:
        return draw(pseudo, self.trainer.config.batch_size, self._random(step, 1), self.trainer.device)

    def _random(self, step: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng((self.trainer.config.seed, step, purpose))

    def _probe(self, held_out: list[int], step: int, pseudo: PseudoViews | None) -> list[float]:
        """A branch of the gate's trial; densification rests, so that all that differs is the views."""
        trainer = self.trainer
        before = {name: value.clone() for name, value in trainer.state().items()}
        others = replace(trainer.scene, train=np.setdiff1d(trainer.scene.train, held_out))
        photos = trainer.photos(others, trainer.drawn)
        for number in range(step, step + self.config.probe_steps(trainer.config.max_steps)):
            if not self._is_novel(number):
                trainer.step(next(photos), number, densify=False)
            elif pseudo is not None:
                trainer.step(self._draw(pseudo, number), number, densify=False)
        photos.close()
        scores: list[float] = trainer.psnrs(held_out)
        trainer.load_state(before)
        return scores


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
