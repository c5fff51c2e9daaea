"""What a step of training moves: the Gaussians with their optimisers, densification, and corrections of the photos."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from difix3d.background import over
from difix3d.devices import seed_generators
from difix3d.gaussians.checkpoint import flatten, nested
from difix3d.losses import photometric, regularize, squared_error
from difix3d.ranks import ALONE, Ranks
from difix3d.render import rasterize
from difix3d.training.backdrop import backdrop_of
from difix3d.training.clear import ClearWay
from difix3d.training.config import TrainConfig
from difix3d.training.data import others_near
from difix3d.training.densify import Densifier
from difix3d.training.depth import SparseDepth
from difix3d.training.dropout import drop, rate_at, without
from difix3d.training.optim import SplatOptimizer
from difix3d.training.refine import Corrections
from difix3d.types import Cameras, Gaussians, Render, Scene, View


class SplatModel:
    """The model of a training, and the step that moves it.

    Args:
        config: what to do.
        scene: whose photos it is trained on.
        near: depth nearer than which nothing is drawn, in scene units.
        device: where it is trained.
        first: the Gaussians that it begins with, in the scene's world.
        ranks: the processes that share them out; this one has its part of them.

    Attributes:
        whole: whether all of it is of one step; an error may come when some has moved and some has not.
    """

    def __init__(
        self,
        config: TrainConfig,
        scene: Scene,
        near: float,
        device: torch.device,
        first: Gaussians,
        ranks: Ranks = ALONE,
    ):
        assert config.dropout is not None
        self.config = config
        self.dropout = config.dropout
        self.ranks = ranks
        self.settings = config.render_settings(scene, near, device)
        self.device = device
        self.whole = True
        self.splats = SplatOptimizer(
            first.map(ranks.part).to(device),
            config.optim,
            extent=scene.extent,
            batch_size=ranks.count * config.batch_size,
            max_steps=config.max_steps,
        )
        densify = replace(config.densify, cap_max=-(-config.densify.cap_max // ranks.count))
        self.backdrop = backdrop_of(scene, config.init, device)
        spared = None if self.backdrop is None else self.backdrop.beyond
        self.densifier = Densifier(densify, max_steps=config.max_steps, extent=scene.extent, spared=spared)
        trained = scene.cameras[scene.train].to(device)
        self.clear = ClearWay(
            trained,
            near,
            others_near(scene),
            split_until=self.densifier.stop,
            max_steps=config.max_steps,
            cap=densify.cap_max,
            set_back=self.densifier.resets_too_late,
            seed=config.seed,
        )
        self.corrections = Corrections(scene, config.refine, config.max_steps).to(device)
        self.sparse_depth = SparseDepth(scene, device) if config.loss.depth > 0 else None

    @property
    def gaussians(self) -> Gaussians:
        """As they are now; of several processes, this one's part."""
        return self.splats.gaussians

    def whole_gaussians(self) -> Gaussians:
        """Those of all processes."""
        return self.gaussians.map(self.ranks.whole)

    def put_backdrop_behind(self, scene: Scene) -> None:
        """Before the first step: behind what a splat file gave, unless that has as much out there itself."""
        backdrop = self.backdrop
        if backdrop is None or self.ranks.totals(int(backdrop.beyond(self.gaussians.means).sum()))[0] >= backdrop.count:
            return
        self.splats.add(backdrop.gaussians(scene, self.config.sh_degree).map(self.ranks.part))

    def shown(self, **options: Any) -> Callable[..., Render]:
        """Renders the Gaussians of all processes, as they are now, without the help of the others."""
        return partial(self.render, gaussians=self.whole_gaussians(), **options)

    def shown_surfaces(self) -> Callable[..., Render]:
        """The same without the backdrop."""
        surfaces = self.settings["surfaces"]
        return self.shown() if surfaces is None else self.shown(far=surfaces)

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
        seed_generators((config.seed << 32) + step * self.ranks.count + self.ranks.rank, self.device)
        captured = views[0].index >= 0
        cameras = Cameras.cat(view.camera for view in views)
        if captured:
            cameras = self.corrections.cameras(cameras, [view.index for view in views])
        rate = rate_at(self.dropout, step, config.max_steps) if captured else 0.0
        shown, keep = drop(self.gaussians, rate) if rate > 0 else (self.gaussians, None)
        out = self.render(
            cameras,
            shown,
            sh_degree=config.sh_degree_at(step),
            background=self._background(views),
            depth=self.sparse_depth is not None,
            absgrad=self.densifier.absgrad,
            near=self.clear.near_at(step) if captured else self.settings["near"],
            ranks=self.ranks,
        )
        if keep is not None:
            out = replace(out, info=without(out.info, keep))
        if densify:
            self.densifier.before_backward(self.splats, out, step)
        rgb = self.corrections.colors(out, views) if captured else out.rgb
        views = [over(view, out.background) for view in views]
        losses = photometric(rgb, views, config.loss) | regularize(self.gaussians, config.loss)
        if self.sparse_depth is not None and captured:
            losses["depth"] = config.loss.depth * self.sparse_depth(out, views)
        self.ranks.share_of_loss(sum(losses.values(), torch.zeros((), device=self.device))).backward()
        self.ranks.add_gradients(self.corrections.parameters())
        self.whole = False
        self.splats.step(step)
        self.corrections.step(step)
        if densify:
            self.densifier.after_backward(self.splats, out, step, weight=views[0].weight)
            self.clear(self.splats, self.densifier.by_gaussian, step)
        if self.backdrop is not None:
            self.backdrop.hold(self.splats, step)
        self.whole = True
        return {name: value.detach() for name, value in losses.items()}, squared_error(rgb, views)

    def render(self, cameras: Cameras, gaussians: Gaussians | None = None, **options: Any) -> Render:
        """Renders these or other Gaussians as configured; ``options`` go to :func:`difix3d.render.rasterize`."""
        shown = self.gaussians if gaussians is None else gaussians
        return rasterize(shown, cameras, **self.settings | options)

    def _background(self, views: list[View]) -> Tensor | None:
        """The colour behind photos and render in this step; ``None`` for black."""
        kind = self.config.background
        if kind == "auto":
            kind = "black" if all(view.alpha is None for view in views) else "random"
        if kind == "black":
            return None
        if kind == "white":
            return torch.ones(3, device=self.device)
        return torch.rand(3).to(self.device, non_blocking=True)

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

    def whole_state(self) -> dict[str, Tensor]:
        """What :meth:`state` is of all processes together, on the first."""
        return {
            name: self.ranks.whole_on_first(x) if self._by_gaussian(name) else x for name, x in self.state().items()
        }

    def load_whole_state(self, state: dict[str, Tensor]) -> None:
        """Takes this process's part of what :meth:`whole_state` gave, with as many processes or not."""
        self.load_state({name: self.ranks.part(x) if self._by_gaussian(name) else x for name, x in state.items()})

    def _by_gaussian(self, name: str) -> bool:
        """Whether a tensor of the state has a row for each Gaussian."""
        group, _, rest = name.partition(".")
        own = group == "densify" and rest in self.densifier.by_gaussian
        return group == "gaussians" or own or (group == "moments" and not rest.endswith(".step"))

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Puts back copies of what :meth:`state` gave, to the bit."""
        tree = nested({name: value.clone() for name, value in state.items()})
        self.whole = False
        self.splats.load(Gaussians(**tree["gaussians"]), tree["moments"])
        self.densifier.load(tree["densify"], self.device)
        self.corrections.load(tree["corrections"], tree["correction_moments"])
        self.whole = True
