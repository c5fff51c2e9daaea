"""The checkpoints of a training: written on its way, and where an error ends it; gone on from."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from difix3d.errors import UserError
from difix3d.training.config import TrainConfig
from difix3d.training.guard import LossGuard
from difix3d.training.model import SplatModel
from difix3d.training.rounds import Rounds
from difix3d.training.run import RunFolder

log = logging.getLogger(__name__)


class Saving:
    """Writes a training's state into its folder, and puts it back. Of several processes all have to call; the first one
    writes.

    Args:
        config, folder, model, rounds: of the training.
        guard: knows whether the model is worth it.

    Attributes:
        step: of the newest checkpoint; 0 before there is one.
    """

    def __init__(self, config: TrainConfig, folder: RunFolder, model: SplatModel, rounds: Rounds, guard: LossGuard):
        self.config = config
        self.folder = folder
        self.model = model
        self.rounds = rounds
        self.guard = guard
        self.ranks = model.ranks
        self.step = 0

    def save(self, step: int, drawn: int, *, export: bool) -> Path | None:
        """Writes a checkpoint, and returns its path on the first process.

        Args:
            drawn: batches of photos that are used.
            export: also write a .ply in the user's world, for other viewers.

        Raises:
            BadModel: it is not worth it.
        """
        self.guard.check(self.model.gaussians)
        tensors = self.model.whole_state() | self.rounds.state() | {"drawn": torch.tensor(drawn)}
        path = self.folder.save(step, tensors, keep=self.config.keep_checkpoints) if self.ranks.first else None
        if export:
            self.export()
        self.step = step
        return path

    def export(self) -> None:
        """Writes the .ply alone."""
        whole = self.model.whole_gaussians()
        if self.ranks.first:
            self.folder.export(whole, compressed=self.config.compressed_ply)

    def rescue(self, step: int, drawn: int) -> None:
        """Saves what an error has left whole, and says where; in no case hides that error."""
        if step == self.step or self.ranks.count > 1:  # the others would have to help
            return
        try:
            if not self.model.whole:
                raise UserError("It came in the middle of a step")
            self.save(step, drawn, export=False)
            log.warning("step %d: saved before the error; --resume goes on from there (%s)", step, self.folder.path)
        except Exception as error:
            log.warning("step %d could not be saved: %s", step, error)

    def load(self, step: int, state: dict[str, Tensor], *, rounds: bool) -> int:
        """Puts a checkpoint's state back; ``rounds``: with its novel views. Returns how many batches were drawn."""
        self.folder.check_step(step, self.config.max_steps)
        drawn = int(state.pop("drawn"))
        novel = {name: state.pop(name) for name in list(state) if name.startswith(("pseudo.", "rounds."))}
        if rounds:
            self.rounds.load(novel)
        self.model.load_whole_state(state)
        self.step = step
        return drawn
