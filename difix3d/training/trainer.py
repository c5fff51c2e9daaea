"""The training loop."""

import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from filelock import FileLock

from difix3d.background import over
from difix3d.devices import choose_device
from difix3d.difix.load import load_fixer
from difix3d.distill.pseudo import PseudoViews
from difix3d.evaluate import ABLATION, psnrs, seen_pixels
from difix3d.interrupt import interruptible
from difix3d.limits import check_limits
from difix3d.ranks import ALONE, Ranks
from difix3d.render.backend import require_kernels
from difix3d.scene import Views
from difix3d.scene.batches import batches
from difix3d.training.config import TrainConfig
from difix3d.training.control import Control, Interrupted
from difix3d.training.data import check_world, initial_gaussians, near_plane, remark, scene_of
from difix3d.training.evaluation import as_row, evaluate, evaluated, fixed, shown
from difix3d.training.events import Evaluated, Event, Finished, Listener, Paused, Resumed, Saved, Started, Stepped
from difix3d.training.far_views import settle_far_views
from difix3d.training.guard import SIGHT_STEPS, BadModel, LossGuard, check_ranks, check_sight, out_of_memory
from difix3d.training.memory import settle_memory
from difix3d.training.model import SplatModel
from difix3d.training.pilot import run_pilot, steps_of
from difix3d.training.presets import settle
from difix3d.training.rounds import Rounds, views_asked_for
from difix3d.training.run import RunFolder, gaussians_in
from difix3d.training.saving import Saving
from difix3d.types import Cameras, Fixer, Gaussians, Scene, View


class Trainer:
    """Trains one model on one scene, into one folder.

    Args:
        config: what to do.
        scene: the scene, if it is loaded already; else ``config.scene`` is loaded.
        listeners: are called with each event (``training/events.py``).
        fixer: cleans the renders of novel cameras; by default what ``config.fixer`` names.
        targets: where novel cameras go, in the scene's world; by default what ``config.distill.targets`` says.
        ranks: the processes that train it together; the first of them evaluates and writes.
        gaussians: those to begin with, if they are there already; else ``config.init`` says.

    Attributes:
        control: takes requests from other threads: pause, stop, save, a round; of one process only.

    Raises:
        UserError: the scene, the folder, the checkpoint or the fixer's weights cannot be used.
    """

    def __init__(
        self,
        config: TrainConfig,
        scene: Scene | None = None,
        listeners: Sequence[Listener] = (),
        fixer: Fixer | None = None,
        targets: Cameras | None = None,
        ranks: Ranks = ALONE,
        gaussians: Gaussians | None = None,
    ):
        check_limits(config)
        check_ranks(config, ranks)
        self.ranks = ranks
        self.device = ranks.device(choose_device(config.device))
        config = settle(config, self.device)
        ranks.after_first(lambda: require_kernels(self.device))
        self.listeners = listeners
        self.scene = scene or ranks.after_first(lambda: scene_of(config))
        self.near = near_plane(self.scene, config)
        wanted = (config.fixer, self.device, config.distill.references)
        self.fixer = fixer or ranks.after_first(lambda: load_fixer(*wanted, anchor_colors=config.anchor_colors))
        self.folder = RunFolder(ranks.of_first(lambda: RunFolder.find(config, self.scene).path), self.scene)
        config = self.folder.as_begun(config) if config.resume else config
        asked = views_asked_for(config, self.scene, targets, self.fixer)
        small = fixer is None and config.fixer == "mini"
        config, self._chosen = settle_far_views(config, self.scene, asked, small=small)
        loaded = self.folder.load() if config.resume else None
        if loaded is not None:
            first = gaussians_in(loaded[1])
        elif gaussians is not None:
            first = gaussians
        else:
            first = ranks.of_first(partial(initial_gaussians, self.scene, config, self.device))
        config, plan = settle_memory(config, self.scene, self.fixer, len(first), self.device, ranks)
        self.config, self.plan = config, plan
        self.views = Views(self.scene, self.device, plan.photo_limit(config), plan.photos_on)
        self.model = SplatModel(config, self.scene, self.near, self.device, first, ranks)
        if config.init.ply is not None and loaded is None:
            check_world(config.init.ply, self.scene, self.model.shown(), self.shown)
        photo = self.views.__getitem__
        pilot = None
        if self.fixer is not None and steps_of(config, self.scene):
            pilot = partial(run_pilot, config, self.views, self.fixer, self.device, lambda: self.interrupted)
        self.rounds = Rounds(config, self.scene, photo, self.fixer, targets, self.folder, self.device, ranks, pilot)
        self.control = Control()
        self._signal: Callable[[], int] = lambda: 0
        self._lock: FileLock | None = None
        self._guard = LossGuard(self.folder.path)
        self.saving = Saving(config, self.folder, self.model, self.rounds, self._guard)
        self.drawn = 0 if loaded is None else self.saving.load(*loaded, rounds=self.fixer is not None)
        self.first = self.saving.step

    @property
    def gaussians(self) -> Gaussians:
        """The model as it is now; of several processes, this one's part."""
        return self.model.gaussians

    def begin(self) -> None:
        """Writes the run's settings into its folder, from which it is resumed; before, nothing is written. From here to
        the end of the training no other may write there."""
        if self._lock is None and self.ranks.first:
            self._lock = self.folder.taken(self.config, near=self.near)

    @property
    def interrupted(self) -> int:
        """The number of the signal that asked this training to end (SIGINT if ``control.stop()`` did); 0 for none."""
        return self._signal() or (signal.SIGINT if self.control.stopped else 0)

    def _to_stop(self) -> bool:
        """Whether any of the processes was asked to end."""
        return self.ranks.most(self.interrupted) > 0

    def train(self) -> Gaussians:
        """Trains to the last step, or until it is interrupted; then it saves, and evaluates what is due when it is
        resumed. Returns the model."""
        config, start = self.config, time.perf_counter()
        self.begin()
        (count,) = self.ranks.totals(len(self.gaussians))
        note = self.plan.table("" if self.first else remark(self.scene, config, count, self._chosen))
        self.plan.begin()
        begun = Started(self.first, config.max_steps, self.folder.path, str(self.device), count, note)
        autosave = time.monotonic()
        photos = self.photos(self.scene, self.drawn)
        done = exported = self.first
        most = count
        try:
            with interruptible() as self._signal:
                self.emit(begun)
                if config.init.ply is not None and self.first == 0:
                    self._save(0, export=config.max_steps == 0)  # from here on the file is not needed any more
                if config.init.ply is not None or done:
                    self._evaluate(done, missing=True)
                if config.init.ply is not None and done == 0 < config.max_steps:
                    self.model.put_backdrop_behind(self.scene)
                while done < config.max_steps and not self._to_stop():
                    self._handle_requests(done)
                    if done in SIGHT_STEPS:
                        check_sight(self.scene.train, self.views.__getitem__, self.model.shown_surfaces(), done)
                    if self.rounds.due(done) and not self._round(done):
                        break
                    novel = self.rounds.pick(done)
                    views = next(photos) if novel is None else novel
                    losses, mse = self.model.step(views, done)
                    self.drawn += novel is None
                    done += 1
                    self._guard.watch(done, views, losses)
                    late = 0 < config.autosave_minutes * 60 < time.monotonic() - autosave
                    count, due = self.ranks.totals(len(self.gaussians), late)
                    most = max(most, count)
                    self.emit(Stepped(done, losses, mse, count))
                    export = done == config.max_steps or done in config.save_steps
                    if export or due:
                        self._save(done, export=export)
                        exported, autosave = done if export else exported, time.monotonic()
                    self._evaluate(done)
                if done != exported:
                    self._save(done, export=True)
                elif done == self.first > 0:  # its checkpoint does not tell whether the .ply could be written as well
                    self.saving.export()
                self.rounds.settle()
        except Exception as error:
            if not isinstance(error, BadModel):
                self.saving.rescue(done, self.drawn)
            if not isinstance(error, torch.OutOfMemoryError):
                raise
            raise out_of_memory(done, len(self.gaussians), self.ranks, packed=config.packed) from error
        finally:
            photos.close()
            self.rounds.close()
            self._release()
        number = self.ranks.most(self.interrupted)  # all go on, or none does
        self._signal = lambda: number
        self.emit(Finished(done, time.perf_counter() - start, number > 0, self.plan.measured(most)))
        return self.model.whole_gaussians()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release(force=True)
            self._lock = None

    def _handle_requests(self, step: int) -> None:
        """Does what was asked for since the last step; while it is paused, waits here."""
        control, paused = self.control, self.control.paused
        if paused:
            self.emit(Paused(step))
        while True:
            if control.pop("save"):
                self._save(step, export=True)
            targets = control.pop_targets()
            if targets is not None:
                self.rounds.set_targets(targets)
            if control.pop("round") and self.fixer is not None:
                self._round(step)
            if not (paused and control.paused) or self.interrupted:
                break
            control.wait(0.1)
        if paused:
            self.emit(Resumed(step))

    def _round(self, step: int) -> bool:
        """A round of novel views of the model as it is, unless the step has had one; ``False`` if it was broken off."""
        render, trial = self.model.shown(depth=True), partial(self.trial, step)
        try:
            self.rounds.run(step, render, trial, self.emit, self._to_stop)
        except Interrupted:
            return False
        return True

    def trial(self, step: int, held_out: list[int], pseudo: PseudoViews | None) -> list[float]:
        """A branch of the gate's trial: a few steps from here on without some photos, with novel views in between (or
        nothing in their place). Densification rests, so that all that differs is the views; then all is put back.

        Returns PSNR of the photos that were left out.
        """
        before = {name: value.clone() for name, value in self.model.state().items()}
        others = replace(self.scene, train=np.setdiff1d(self.scene.train, held_out))
        try:
            with closing(self.photos(others, self.drawn)) as photos:
                for number in range(step, step + self.config.distill.steps_of_trial(self.config.max_steps)):
                    if self._to_stop():
                        raise Interrupted
                    if not self.rounds.is_novel(number):
                        self.model.step(next(photos), number, densify=False)
                    elif pseudo is not None:
                        self.model.step(self.rounds.draw(pseudo, number), number, densify=False)
            render = self.model.shown()
            return self.ranks.of_first(lambda: psnrs(render, map(self.shown, held_out)))
        finally:
            self.model.load_state(before)

    def photos(self, scene: Scene, start: int) -> Generator[list[View], None, None]:
        """Endless batches of the scene's training photos, from the batch of that number on."""
        size = self.ranks.count * self.config.batch_size
        return self.views.batches(map(self.ranks.share, batches(scene, size, self.config.seed, start)))

    def shown(self, index: int) -> View:
        """A photo as it is looked at and measured: with alpha, over the colour that renders are shown over."""
        return over(self.views[index], self.model.settings["background"])

    def _wanted(self, index: int) -> View:
        """A photo as it is shown; raises :class:`Interrupted` if the training was asked to end."""
        if self.interrupted:
            raise Interrupted
        return self.shown(index)

    def _evaluate(self, step: int, *, missing: bool = False) -> None:
        """Where it is due (a splat file: before the first step), evaluates the model and, after the last step, the
        model with the fixer behind it.

        Args:
            missing: only what is not there, as the run was stopped or killed before.
        """
        last = step == self.config.max_steps
        if not (last or step == 0 or step in self.config.eval_steps):
            return
        whole, (count,) = self.model.shown(), self.ranks.totals(len(self.gaussians))
        if not self.ranks.first:
            return
        self.rounds.settle()  # its row tells whether this is still plain 3DGS
        known = evaluated(self.folder, step) if missing else []
        model = self.folder.model_at(step)
        seen = seen_pixels(whole, self.scene.cameras[self.scene.train].to(self.device))
        for row in (model, fixed(model)) if last and self.config.plus and self.fixer is not None else (model,):
            trust = ABLATION[row].trust
            if (trust is not None) in known or self.interrupted:
                continue
            render = as_row(row, whole, self.fixer, self.views, self.config.distill.confidence)
            facts = (step, count, self.config.refine)
            with suppress(Interrupted):  # it is made when the training goes on
                result = evaluate(self.folder, self._wanted, row, render, *facts, seen, self.device)
                self.emit(Evaluated(step, result, trust is not None, shown(self.scene)))

    def _save(self, step: int, *, export: bool) -> None:
        path = self.saving.save(step, self.drawn, export=export)
        if path is not None:
            self.emit(Saved(step, path))

    def emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)
