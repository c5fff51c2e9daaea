"""The training loop."""

import signal
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain, tee
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difix3d.devices import choose_device
from difix3d.difix.load import load_fixer
from difix3d.distill.pseudo import PseudoViews
from difix3d.errors import UserError
from difix3d.evaluate import ABLATION, psnrs
from difix3d.gaussians import initial_gaussians
from difix3d.gaussians.checkpoint import flatten, nested
from difix3d.interrupt import interruptible
from difix3d.limits import check_limits
from difix3d.losses import photometric, regularize, squared_error
from difix3d.postrender import PostRender
from difix3d.render import rasterize
from difix3d.scene import Views, load_scene, near_depth, visible_points
from difix3d.scene.batches import batches
from difix3d.training.config import TrainConfig
from difix3d.training.control import Control
from difix3d.training.densify import Densifier
from difix3d.training.depth import SparseDepth
from difix3d.training.evaluation import evaluate, fixed, shown
from difix3d.training.events import Evaluated, Event, Finished, Listener, Paused, Resumed, Saved, Started, Stepped
from difix3d.training.guard import LossGuard
from difix3d.training.optim import SplatOptimizer
from difix3d.training.presets import settle
from difix3d.training.refine import Corrections
from difix3d.training.rounds import Rounds
from difix3d.training.run import RunFolder
from difix3d.types import Cameras, Fixer, Gaussians, Render, RenderFn, Scene, View


class Trainer:
    """Trains one model on one scene, into one folder.

    Args:
        config: what to do.
        scene: the scene, if it is loaded already; else ``config.scene`` is loaded.
        listeners: are called with each event (``training/events.py``).
        fixer: cleans the renders of novel cameras; by default what ``config.fixer`` names.
        targets: where novel cameras go, in the scene's world; by default what ``config.distill.targets`` says.

    Attributes:
        control: takes requests from other threads: pause, stop, save, paint.

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
    ):
        check_limits(config)
        self.device = choose_device(config.device)
        self.config = config = settle(config, self.device)
        self.listeners = listeners
        self.scene = scene or load_scene(
            config.scene, data_dir=config.data_dir, split=config.split, resolution=config.resolution, seed=config.seed
        )
        self.near = near_depth(self.scene) if config.near is None else config.near
        self.fixer = fixer or load_fixer(
            config.fixer, self.device, config.distill.references, anchor_colors=config.anchor_colors
        )
        self.run = RunFolder.find(config, self.scene)
        self.views = Views(self.scene, self.device, memory_limit_bytes=int(config.memory_limit * 1e9))
        seen = visible_points(self.scene, at_least=config.init.seen_by)
        first = initial_gaussians(self.scene, seen, config.init, sh_degree=config.sh_degree, seed=config.seed)
        self.splats = SplatOptimizer(
            first.to(self.device),
            config.optim,
            extent=self.scene.extent,
            batch_size=config.batch_size,
            max_steps=config.max_steps,
        )
        self.densifier = Densifier(config.densify, max_steps=config.max_steps, extent=self.scene.extent)
        self.corrections = Corrections(self.scene, config.refine).to(self.device)
        self.sparse_depth = SparseDepth(self.scene, self.device) if config.loss.depth > 0 else None
        self.rounds = Rounds(config, self.scene, self.views.__getitem__, self.fixer, targets, self.run, self.device)
        self.control = Control()
        self._signal: Callable[[], int] = lambda: 0
        self.drawn = 0
        self.first = self._resume() if config.resume else 0

    @property
    def gaussians(self) -> Gaussians:
        """The model as it is now."""
        return self.splats.gaussians

    def begin(self) -> None:
        """Writes the run's settings into its folder, from which it is resumed; before, nothing is written."""
        self.run.begin(self.config, near=self.near)

    @property
    def interrupted(self) -> int:
        """The number of the signal that asked this training to end (SIGINT if ``control.stop()`` did); 0 for none."""
        return self._signal() or (signal.SIGINT if self.control.stopped else 0)

    def train(self) -> Gaussians:
        """Trains to the last step, or until it is interrupted; then it saves, and evaluates what is due when it is
        resumed. Returns the model."""
        config, start = self.config, time.perf_counter()
        self.begin()
        self.emit(Started(self.first, config.max_steps, self.run.path, str(self.device), len(self.gaussians)))
        guard = LossGuard(self.run.path)
        autosave = time.monotonic()
        photos = self.photos(self.scene, self.drawn)
        done = exported = self.first
        try:
            with interruptible() as self._signal:
                if done:
                    self._evaluate(done, missing=True)
                while done < config.max_steps and not self.interrupted:
                    self._attend(done, guard)
                    if self.rounds.due(done):
                        self._round(done)
                    views = self.rounds.pick(done)
                    if views is None:
                        views = next(photos)
                        self.drawn += 1
                    losses, mse = self.step(views, done)
                    done += 1
                    guard.watch(done, views, losses)
                    self.emit(Stepped(done, losses, mse, len(self.gaussians)))

                    export = done == config.max_steps or done in config.save_steps
                    if export or 0 < config.autosave_minutes * 60 < time.monotonic() - autosave:
                        guard.check()
                        self._save(done, export=export)
                        exported, autosave = done if export else exported, time.monotonic()
                    self._evaluate(done)
                if done != exported:
                    guard.check()
                    self._save(done, export=True)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"The GPU ran out of memory at step {done} with {len(self.gaussians):,} Gaussians",
                cure="Lower --densify.cap, --resolution or --batch-size, or add --packed; then go on with --resume",
            ) from error
        finally:
            photos.close()
        self.emit(Finished(done, time.perf_counter() - start, self.interrupted > 0))
        return self.gaussians

    def _attend(self, step: int, guard: LossGuard) -> None:
        """Does what was asked for since the last step; while it is paused, waits here."""
        control, paused = self.control, self.control.paused
        if paused:
            self.emit(Paused(step))
        while True:
            if control.take("save"):
                guard.check()
                self._save(step, export=True)
            targets = control.take_targets()
            if targets is not None:
                self.rounds.aim(targets)
            if control.take("paint") and self.fixer is not None:
                self._round(step)
            if not (paused and control.paused) or self.interrupted:
                break
            control.wait(0.1)
        if paused:
            self.emit(Resumed(step))

    def _round(self, step: int) -> None:
        """A round of novel views of the model as it is, unless the step has had one."""
        self.rounds.run(step, partial(self.render, self.gaussians, depth=True), partial(self.trial, step), self.emit)

    def trial(self, step: int, held_out: list[int], pseudo: PseudoViews | None) -> list[float]:
        """A branch of the gate's trial: a few steps from here on without some photos, with novel views in between (or
        nothing in their place). Densification rests, so that all that differs is the views; then all is put back.

        Returns:
            PSNR of the photos that were left out.
        """
        before = {name: value.clone() for name, value in self.state().items()}
        others = replace(self.scene, train=np.setdiff1d(self.scene.train, held_out))
        with closing(self.photos(others, self.drawn)) as photos:
            for number in range(step, step + self.config.distill.probe_steps(self.config.max_steps)):
                if not self.rounds.is_novel(number):
                    self.step(next(photos), number, densify=False)
                elif pseudo is not None:
                    self.step(self.rounds.draw(pseudo, number), number, densify=False)
        scores = self.psnrs(held_out)
        self.load_state(before)
        return scores

    def photos(self, scene: Scene, start: int) -> Generator[list[View], None, None]:
        """Endless batches of the scene's training photos, from the batch of that number on."""
        order, coming = tee(batches(scene, self.config.batch_size, self.config.seed, start))
        with closing(self.views.stream(chain.from_iterable(coming))) as stream:
            for batch in order:
                yield [next(stream) for _ in batch]

    def step(self, views: list[View], step: int, *, densify: bool = True) -> tuple[dict[str, Tensor], Tensor]:
        """One step on a batch of views of one size: render, compare, move, densify.

        Args:
            views: all photos, or all novel (index -1), for which there are no corrections and no sparse depth.
            step: its number.
            densify: whether Gaussians may be added and removed.

        Returns:
            The terms of the loss, detached, and the mean squared error of the render.
        """
        config = self.config
        # all randomness follows from the seed and the step: a checkpoint has none to store
        torch.manual_seed((config.seed << 32) + step)
        gaussians = self.gaussians
        captured = views[0].index >= 0
        cameras = Cameras.cat(view.camera for view in views)
        if captured:
            cameras = self.corrections.cameras(cameras, [view.index for view in views])
        out = self.render(
            gaussians,
            cameras,
            sh_degree=config.sh_degree_at(step),
            background=self._background(),
            depth=self.sparse_depth is not None,
            absgrad=self.densifier.absgrad,
        )
        if densify:
            self.densifier.before_backward(self.splats, out, step)
        rgb = self.corrections.colors(out.rgb, views) if captured else out.rgb
        losses = photometric(rgb, views, config.loss) | regularize(gaussians, config.loss)
        if self.sparse_depth is not None and captured:
            losses["depth"] = config.loss.depth * self.sparse_depth(out, views)
        sum(losses.values(), torch.zeros((), device=self.device)).backward()
        self.splats.step(step)
        self.corrections.step()
        if densify:
            self.densifier.after_backward(self.splats, out, step, packed=config.packed, weight=views[0].weight)
        return {name: value.detach() for name, value in losses.items()}, squared_error(rgb, views)

    def render(self, gaussians: Gaussians, cameras: Cameras, **options: Any) -> Render:
        """Renders as this run is configured; ``options`` go to :func:`difix3d.render.rasterize`."""
        return rasterize(gaussians, cameras, **self.config.render_settings(self.near, self.device) | options)

    def _background(self) -> Tensor | None:
        if self.config.background == "black":
            return None
        fill = torch.rand(3) if self.config.background == "random" else torch.ones(3)
        return fill.to(self.device)

    def psnrs(self, indices: Iterable[int]) -> list[float]:
        """Of the model as it is now, against photos."""
        return psnrs(partial(self.render, self.gaussians), (self.views[index] for index in indices))

    def _evaluate(self, step: int, *, missing: bool = False) -> None:
        """Where it is due, evaluates the model and, after the last step, the model with the fixer behind it.

        Args:
            missing: only what was not recorded, as the run was stopped or killed before.
        """
        last = step == self.config.max_steps
        if not (last or step in self.config.eval_steps):
            return
        known = [row["plus"] for row in self.run.rows("metrics.json") if missing and row["step"] == step]
        model = self.run.model_at(step)
        for row in (model, fixed(model)) if last and self.config.plus and self.fixer is not None else (model,):
            trust = ABLATION[row].trust
            if (trust is not None) in known or self.interrupted:
                continue
            render: RenderFn = partial(self.render, self.gaussians, depth=trust is not None)
            if self.fixer is not None and trust is not None:
                options: dict[str, Any] = {"trust": trust, "confidence": self.config.distill.confidence}
                photo = self.views.__getitem__
                render = PostRender(render, self.fixer, self.scene, photo, device=self.device, **options)
            result = evaluate(self.run, self.views, row, render, step, len(self.gaussians), self.config.refine)
            self.emit(Evaluated(step, result, trust is not None, shown(self.scene)))

    def state(self) -> dict[str, Tensor]:
        """All that training goes on from, by dotted names; the tensors themselves, not copies."""
        return flatten(
            {
                "gaussians": self.gaussians.as_dict(),
                "moments": self.splats.moments(),
                "densify": self.densifier.state,
                "corrections": dict(self.corrections.state_dict()),
                "correction_moments": self.corrections.moments(),
            }
        )

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Puts back copies of what :meth:`state` gave, to the bit."""
        tree = nested({name: value.clone() for name, value in state.items()})
        self.splats.load(Gaussians(**tree["gaussians"]), tree["moments"])
        self.densifier.load(tree["densify"], self.device)
        self.corrections.load(tree["corrections"], tree["correction_moments"])

    def _save(self, step: int, *, export: bool) -> None:
        """Writes a checkpoint, and a .ply in the user's world for other viewers."""
        tensors = self.state() | self.rounds.state() | {"drawn": torch.tensor(self.drawn)}
        path = self.run.save(step, tensors, keep=self.config.keep_checkpoints)
        if export:
            self.run.export(self.gaussians, compressed=self.config.compressed_ply)
        self.emit(Saved(step, path))

    def _resume(self) -> int:
        loaded = self.run.load()
        if loaded is None:
            return 0
        step, state = loaded
        if step > self.config.max_steps:
            raise UserError(
                f"The run in {self.run.path} is at step {step} already",
                f"--max-steps is {self.config.max_steps}",
                "Raise --max-steps, or leave out --resume and give another --output-dir",
            )
        self.drawn = int(state.pop("drawn"))
        pseudo = {name: state.pop(name) for name in list(state) if name.startswith("pseudo.")}
        if self.fixer is not None:
            self.rounds.load(pseudo)
        self.load_state(state)
        return step

    def emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)
