"""The training loop."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, tee
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difix3d.errors import UserError
from difix3d.evaluate import evaluate
from difix3d.gaussians import from_points, random_points, write_ply
from difix3d.gaussians.checkpoint import flatten
from difix3d.gaussians.transform import transform
from difix3d.losses import photometric, regularize
from difix3d.render import rasterize
from difix3d.scene import Views, load_scene, near_depth, visible_points
from difix3d.training.config import TrainConfig
from difix3d.training.densify import Densifier
from difix3d.training.depth import SparseDepth
from difix3d.training.events import Evaluated, Event, Finished, Listener, Saved, Started, Stepped
from difix3d.training.guard import LossGuard, interruptible
from difix3d.training.optim import SplatOptimizer
from difix3d.training.refine import Corrections
from difix3d.training.run import RunFolder
from difix3d.types import Cameras, Gaussians, Render, Scene, View


class Trainer:
    """Trains one model on one scene, into one folder.

    Args:
        config: what to do.
        scene: the scene, if it is loaded already; else ``config.scene`` is loaded.
        listeners: are called with each event (``training/events.py``).

    Raises:
        UserError: the scene, the folder or the checkpoint cannot be used.
    """

    def __init__(self, config: TrainConfig, scene: Scene | None = None, listeners: Sequence[Listener] = ()):
        self.config = config
        self.listeners = listeners
        self.device = choose_device(config.device)
        self.scene = scene or load_scene(
            config.scene, data_dir=config.data_dir, split=config.split, resolution=config.resolution, seed=config.seed
        )
        self.near = near_depth(self.scene) if config.near is None else config.near
        self.run = RunFolder.open(config, self.scene, near=self.near)
        self.views = Views(self.scene, self.device, memory_limit_bytes=int(config.memory_limit * 1e9))
        self.splats = SplatOptimizer(
            initial_gaussians(self.scene, config).to(self.device),
            config.optim,
            extent=self.scene.extent,
            batch_size=config.batch_size,
            max_steps=config.max_steps,
        )
        self.densifier = Densifier(config.densify, max_steps=config.max_steps, extent=self.scene.extent)
        self.corrections = Corrections(len(self.scene.photos), config.refine).to(self.device)
        self.sparse_depth = SparseDepth(self.scene, self.device) if config.loss.depth > 0 else None
        self.first = self._resume() if config.resume else 0

    @property
    def gaussians(self) -> Gaussians:
        """The model as it is now."""
        return self.splats.gaussians

    def train(self) -> Gaussians:
        """Trains to the last step, or until Ctrl-C; both save and evaluate nothing twice. Returns the model."""
        config, start = self.config, time.perf_counter()
        self._emit(Started(self.first, config.max_steps, self.run.path, str(self.device), len(self.gaussians)))
        guard = LossGuard(self.run.path)
        autosave = time.monotonic()
        order, coming = tee(batches(self.scene, config.batch_size, config.seed, self.first))
        stream = self.views.stream(chain.from_iterable(coming))
        done = self.first
        try:
            with interruptible() as interrupted:
                while done < config.max_steps and not interrupted():
                    views = [next(stream) for _ in next(order)]
                    losses, mse = self.step(views, done)
                    done += 1
                    guard.watch(done, views, losses)
                    self._emit(Stepped(done, losses, mse, len(self.gaussians)))

                    last = done == config.max_steps
                    due = 0 < config.autosave_minutes * 60 < time.monotonic() - autosave
                    if last or interrupted() or due or done in config.save_steps:
                        guard.check()
                        self._save(done, export=last or interrupted() or done in config.save_steps)
                        autosave = time.monotonic()
                    if last or done in config.eval_steps:
                        self._evaluate(done)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"The GPU ran out of memory at step {done} with {len(self.gaussians):,} Gaussians",
                cure="Lower --densify.cap, --resolution or --batch-size, or add --packed; then go on with --resume",
            ) from error
        finally:
            stream.close()
        self._emit(Finished(done, time.perf_counter() - start, done < config.max_steps))
        return self.gaussians

    def step(self, views: list[View], step: int) -> tuple[dict[str, Tensor], Tensor]:
        """One step on a batch of views of one size: render, compare, move, densify.

        Returns:
            The terms of the loss, detached, and the mean squared error of the render.
        """
        config = self.config
        # all randomness follows from the seed and the step: a checkpoint has none to store
        torch.manual_seed((config.seed << 32) + step)
        gaussians = self.gaussians
        cameras = self.corrections.cameras(stack([view.camera for view in views]), [view.index for view in views])
        out = self.render(
            gaussians,
            cameras,
            sh_degree=config.sh_degree_at(step),
            background=self._background(),
            depth=self.sparse_depth is not None,
            absgrad=self.densifier.absgrad,
        )
        self.densifier.before_backward(self.splats, out, step)
        rgb = self.corrections.colors(out.rgb, views)
        losses = photometric(rgb, views, config.loss) | regularize(gaussians, config.loss)
        if self.sparse_depth is not None:
            losses["depth"] = config.loss.depth * self.sparse_depth(out, views)
        sum(losses.values(), torch.zeros((), device=self.device)).backward()
        self.splats.step(step)
        self.corrections.step()
        self.densifier.after_backward(self.splats, out, step, packed=config.packed)
        with torch.no_grad():
            mse = torch.stack([(x - view.image).square().mean() for x, view in zip(rgb, views, strict=True)]).mean()
        return {name: value.detach() for name, value in losses.items()}, mse

    def render(self, gaussians: Gaussians, cameras: Cameras, **options: Any) -> Render:
        """Renders as this run is configured (near plane, antialiasing, packing)."""
        config = self.config
        return rasterize(
            gaussians, cameras, near=self.near, antialiased=config.antialiased, packed=config.packed, **options
        )

    def _background(self) -> Tensor | None:
        if self.config.background == "black":
            return None
        fill = torch.rand(3) if self.config.background == "random" else torch.ones(3)
        return fill.to(self.device)

    def _evaluate(self, step: int) -> None:
        """Renders the test views, or the training views where none are held out, and writes pictures and metrics."""
        split, indices = ("test", self.scene.test) if len(self.scene.test) else ("train", self.scene.train)
        background = torch.ones(3, device=self.device) if self.config.background == "white" else None
        render = partial(self.render, self.gaussians, background=background, depth=False)
        views = (self.views[int(index)] for index in indices)
        result = evaluate(render, views, split=split, folder=self.run.path / "eval" / f"step_{step:06d}")
        self.run.record(step, result, gaussians=len(self.gaussians))
        self._emit(Evaluated(step, result))

    def _save(self, step: int, *, export: bool) -> None:
        """Writes a checkpoint, and a .ply in the user's world for other viewers."""
        tensors = {
            "gaussians": self.gaussians.as_dict(),
            "moments": self.splats.moments(),
            "densify": self.densifier.state,
            "corrections": dict(self.corrections.state_dict()),
            "correction_moments": self.corrections.moments(),
        }
        path = self.run.save(step, flatten(tensors), keep=self.config.keep_checkpoints)
        if export:
            to_input = np.linalg.inv(self.scene.from_input)
            model = transform(self.gaussians.map(torch.Tensor.detach), to_input)
            write_ply(model, self.run.path / "point_cloud.ply")
            if self.config.compressed_ply:
                write_ply(model, self.run.path / "point_cloud.compressed.ply", compressed=True)
        self._emit(Saved(step, path))

    def _resume(self) -> int:
        step, state = self.run.load()
        if step > self.config.max_steps:
            raise UserError(
                f"The run in {self.run.path} is at step {step} already",
                f"--max-steps is {self.config.max_steps}",
                "Raise --max-steps, or leave out --resume and give another --output-dir",
            )
        self.splats.load(Gaussians(**state["gaussians"]), state["moments"])
        self.densifier.load(state["densify"], self.device)
        self.corrections.load(state["corrections"], state["correction_moments"])
        return step

    def _emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is a GPU; asking for CUDA without one is an error."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "There is no CUDA device that torch can use",
            f"torch {torch.__version__} is installed",
            "Install a CUDA build of torch (pytorch.org), or leave out --device to train on the CPU",
        )
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def initial_gaussians(scene: Scene, config: TrainConfig) -> Gaussians:
    """Gaussians on the sparse points that enough training photos see, or on random points where there are none."""
    keep = visible_points(scene, at_least=config.init.seen_by)
    points, colors = scene.points[keep], scene.colors[keep]
    if len(points) == 0:
        points, colors = random_points(config.init.points, 3 * scene.extent, config.seed)
    return from_points(
        points.astype(np.float32),
        colors,
        sh_degree=config.sh_degree,
        opacity=config.init.opacity,
        scale=config.init.scale,
    )


def batches(scene: Scene, size: int, seed: int, start: int) -> Iterator[list[int]]:
    """Endless batches of training photos, each of one image size; every photo comes once an epoch.

    The batch of a step follows from the seed and the step alone, so that a resumed run needs no history.
    """
    sizes = torch.stack([scene.cameras.width, scene.cameras.height], 1).cpu().numpy()[scene.train]
    groups = [scene.train[(sizes == value).all(1)] for value in np.unique(sizes, axis=0)]
    per_epoch = sum(-(-len(group) // size) for group in groups)
    epoch, skip = divmod(start, per_epoch)
    while True:
        rng = np.random.default_rng((seed, epoch))
        chunks = [
            shuffled[i : i + size].tolist()
            for shuffled in map(rng.permutation, groups)
            for i in range(0, len(shuffled), size)
        ]
        for position in rng.permutation(per_epoch)[skip:]:
            yield chunks[position]
        epoch, skip = epoch + 1, 0


def stack(cameras: list[Cameras]) -> Cameras:
    """Single cameras as one batch."""
    return Cameras(
        *(torch.cat([getattr(camera, name) for camera in cameras]) for name in ("c2w", "K", "width", "height"))
    )
