"""nerfstudio's pipeline with rounds of fixed novel views."""

import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from torch import Tensor

from difix3d.background import over
from difix3d.difix.load import load_fixer, resolve_fixer
from difix3d.distill import DistillConfig
from difix3d.distill.pseudo import PseudoViews, unpack
from difix3d.errors import UserError
from difix3d.evaluate import psnrs
from difix3d.integrations.nerfstudio.batches import batches_of
from difix3d.integrations.nerfstudio.fixing import FrameFixer
from difix3d.integrations.nerfstudio.render import Renderer, background, of_no_photo
from difix3d.integrations.nerfstudio.told import say, told
from difix3d.integrations.nerfstudio.trial import iterate, put_back
from difix3d.integrations.nerfstudio.viewer import NovelCameras
from difix3d.integrations.nerfstudio.world import read_world
from difix3d.limits import check_limits
from difix3d.scene import Views
from difix3d.training.config import TrainConfig
from difix3d.training.events import Event, RoundDone
from difix3d.training.presets import settle
from difix3d.training.rounds import Rounds
from difix3d.training.run import RunFolder
from difix3d.types import Fixer, View

# Learning rates in nerfstudio's checkpoints are numbers of numpy, which torch.load (2.6 and later) refuses otherwise.
_RATE = np.float64(0)
_REBUILD: Any = _RATE.__reduce__()[0]
torch.serialization.add_safe_globals([_REBUILD, np.dtype, type(_RATE.dtype)])

FIRST = "first"
"""Step from which the schedule of a training counts, in the state of a checkpoint."""

Draw = Callable[[int], tuple[list[View] | None, Collection[int]]]
"""What a step is trained on: novel views, or else photos but for some (by their place in the data set)."""


@dataclass
class DifixPipelineConfig(VanillaPipelineConfig):
    """Difix3D's options beside nerfstudio's."""

    _target: type = field(default_factory=lambda: DifixPipeline)
    fixer: str = "auto"
    """Difix weights that clean novel views: a hub id, a folder, a .pkl checkpoint, `mini` (small weights in the
    package, for CPUs), or `none`. `auto`: nvidia/difix_ref on a GPU, `mini` without."""
    anchor_colors: bool = True
    """Keep the renders' colours in what the fixer makes of them."""
    trust: bool = True
    """In fixed frames (the "+"), keep rendered pixels that photos agree with."""
    distill: DistillConfig = field(default_factory=DistillConfig)
    """Rounds of novel views; distances are in units of the scene, in which nine cameras of ten stand within one unit
    of their middle, whatever the data parser made of it."""


class DifixPipeline(VanillaPipeline):
    """Photos and, when the schedule says so, fixed novel views.

    Attributes:
        rounds: those of the training; ``None`` where nothing is trained or there is no fixer.
    """

    config: DifixPipelineConfig
    rounds: Rounds | None = None

    def __init__(
        self,
        config: DifixPipelineConfig,
        device: str | torch.device,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: Any = None,
    ):
        with told():
            check_limits(config.distill)
            if world_size > 1:
                raise UserError(f"The training runs on {world_size} GPUs", "Rounds of novel views run on one")
            place = torch.device(device)
            trains = test_mode == "val"
            check_data(config)
            self._loaded: dict[str, Tensor] = {}
            fixer = load(config, place) if trains else None
            super().__init__(config, device, test_mode, world_size, local_rank, grad_scaler)
            self._draw: Draw = lambda _step: (None, ())
            self._trained = 0
            if config.fixer == "none":
                return
            manager = self.datamanager
            self.world = read_world(manager.train_dataset, manager.eval_dataset, Path(manager.get_datapath()).stem)
            self.batches = batches_of(manager, self.world)
            color, views = background(self.model, manager.train_dataset), Views(self.world.scene, place)
            self.photo: Callable[[int], View] = lambda index: over(views[index], color)
            self.renderer = Renderer(self.model, self.world)
            self.fixer: Fixer | None = fixer
            self.novel_cameras = NovelCameras(self.world, self._novel_views)
            self.model.fix = FrameFixer(
                self.renderer, self._load_fixer, self.photo, config, lambda: self._trained, self.novel_cameras.lock
            )

    def _load_fixer(self) -> Fixer:
        if self.fixer is None:
            self.fixer = load(self.config, self.renderer.model.device)
        assert self.fixer is not None
        return self.fixer

    def _novel_views(self) -> PseudoViews | None:
        return unpack(self._loaded) if self.rounds is None else self.rounds.pseudo

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """nerfstudio's, and then the rounds: they begin where the model is as before a step."""
        callbacks = super().get_training_callbacks(training_callback_attributes)
        trainer = training_callback_attributes.trainer
        if self.config.fixer != "none" and trainer is not None:
            with told():
                self.rounds = self._rounds(trainer)
            self.novel_cameras.update()
            callbacks.append(
                TrainingCallback(
                    where_to_run=[TrainingCallbackLocation.BEFORE_TRAIN_ITERATION],
                    func=lambda step: self._before(step, trainer),
                )
            )
        return callbacks

    def _rounds(self, trainer: Any) -> Rounds:
        config = self.config
        self.first = int(self._loaded.get(FIRST, trainer._start_step))
        distill = config.distill
        if self.first > 0 and distill.start is None:  # what is trained already needs no start of its own
            distill = replace(distill, start=0)
        settings = TrainConfig(
            fixer=config.fixer,
            max_steps=self._steps(trainer),
            seed=trainer.config.machine.seed,
            batch_size=1,
            dropout=0.0,  # nerfstudio's own steps leave out none
            distill=distill,
        )
        path = Path(distill.targets).expanduser()
        targets = self.world.read_path(path) if distill.targets not in ("auto", "eval", "perturb") else None
        rounds = Rounds(
            settle(settings, self.model.device),
            self.world.scene,
            self.photo,
            self.fixer,
            targets,
            RunFolder(trainer.base_dir, self.world.scene),
            self.model.device,
        )
        rounds.load(self._loaded)
        self._draw = lambda step: (rounds.pick(step - self.first), ())
        return rounds

    def _before(self, step: int, trainer: Any) -> None:
        """The round before a step, if there is one."""
        rounds, step = self.rounds, step - self.first
        if rounds is None or not rounds.due(step):
            return
        start = time.perf_counter()

        def emit(event: Event) -> None:
            if isinstance(event, RoundDone):
                gain = event.verdict.gain
                known = "" if gain is None else f", {gain:+.2f} dB on photos left out"
                say(
                    f"round {event.number} of {event.total} before step {step + self.first}: {event.views} novel views,"
                    f" {event.verdict.decision}{known} ({time.perf_counter() - start:.0f} s)"
                )

        with told():
            rounds.run(step, self.renderer, lambda held_out, pseudo: self._trial(trainer, step, held_out, pseudo), emit)
        self.novel_cameras.update()
        self.train()

    def _trial(self, trainer: Any, step: int, held_out: list[int], pseudo: PseudoViews | None) -> list[float]:
        """A branch of the gate's trial: some iterations from here on without some photos, and with novel views in
        between (or nothing in their place); then all is put back.

        Returns PSNR of the photos that were left out.
        """
        rounds, draw = self.rounds, self._draw
        assert rounds is not None
        left_out = [self.world.index[i] for i in held_out]
        count = rounds.config.steps_of_trial(self._steps(trainer))
        numbers = [n for n in range(step, step + count) if pseudo is not None or not rounds.is_novel(n)]

        def given(number: int) -> tuple[list[View] | None, Collection[int]]:
            number -= self.first
            if pseudo is not None and rounds.is_novel(number):
                return rounds.draw(pseudo, number), ()
            return None, left_out

        self._draw = given
        try:
            with put_back(trainer), self.batches.repeated(rounds.seed + step):
                iterate(trainer, [number + self.first for number in numbers])
                return psnrs(self.renderer, map(self.photo, held_out))
        finally:
            self._draw = draw

    def _steps(self, trainer: Any) -> int:
        """Of the training: nerfstudio counts those that are still to be done."""
        return trainer._start_step - self.first + trainer.config.max_num_iterations

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
        """The losses of photos, or of a novel view."""
        if self.rounds is None:
            return super().get_train_loss_dict(step)
        self._trained += 1
        novel, left_out = self._draw(step)
        if novel is None:
            (given, batch), factor = self.batches.photos(step, left_out), 1.0
        else:
            (given, batch), factor = self.batches.novel(novel[0])
        with nullcontext() if novel is None else of_no_photo(self.model):
            outputs = self._model(given)
            metrics = self.model.get_metrics_dict(outputs, batch)
            losses = self.model.get_loss_dict(outputs, batch, metrics)
        losses[self.batches.color_loss] = losses[self.batches.color_loss] * factor
        return outputs, losses, metrics

    def get_average_eval_image_metrics(
        self, step: int | None = None, output_path: Path | None = None, get_std: bool = False
    ) -> dict[str, Any]:
        """nerfstudio's and, in ``ns-eval``, those of the fixed frames."""
        self.model.measured = self.test_mode == "test"
        with told():
            return super().get_average_eval_image_metrics(step, output_path, get_std)

    def get_extra_state(self) -> dict[str, Tensor]:
        """The novel views, for the checkpoint."""
        if self.rounds is None:
            return self._loaded
        with told():
            return {FIRST: torch.tensor(self.first), **self.rounds.state()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """The novel views of a checkpoint; the rounds take them when the training begins."""
        self._loaded = state


def load(config: DifixPipelineConfig, device: torch.device) -> Fixer | None:
    """The fixer of a configuration.

    Raises:
        UserError: its weights cannot be had.
    """
    try:
        name = resolve_fixer(config.fixer, device)
        return load_fixer(name, device, config.distill.references, anchor_colors=config.anchor_colors)
    except UserError as error:
        raise UserError(error.fact, error.limit, error.cure.replace("--fixer", "--pipeline.fixer")) from error


def check_data(config: DifixPipelineConfig) -> None:
    """Looks for the data before nerfstudio does, which would end in a traceback.

    Raises:
        UserError: it is not there, or not what the data parser reads.
    """
    manager = config.datamanager
    parser = getattr(manager, "dataparser", None)
    place = getattr(manager, "data", None) or getattr(parser, "data", None)
    if place is None:
        return
    if not Path(place).exists():
        raise UserError(
            f"There is no data in {place}", "It is a folder, or a file that the data parser reads", "Check --data"
        )
    is_default = isinstance(parser, NerfstudioDataParserConfig)
    needed = "transforms.json" if is_default else getattr(parser, "colmap_path", None)
    if needed is not None and Path(place).is_dir() and not (Path(place) / needed).exists():
        raise UserError(
            f"There is no {needed} in {place}",
            "The data parser nerfstudio-data reads a transforms.json, colmap what --colmap-path names",
            "End the command with another parser (colmap --data ... --colmap-path sparse/0), make the file by "
            "ns-process-data, or train by difix3d train, which finds cameras by itself",
        )
