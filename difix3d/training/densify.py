"""Where Gaussians are added and removed: gsplat's strategies, on any device."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from difix3d import native
from difix3d.errors import UserError
from difix3d.limits import Formerly, Limits
from difix3d.render.strategies import strategies_on, strategy_info
from difix3d.training.optim import SplatOptimizer
from difix3d.types import Render


@dataclass(frozen=True)
class DensifyConfig:
    """Where Gaussians are added and removed."""

    kind: Literal["default", "mcmc", "none"] = "default"
    """`default`: clone and split by gradient (3DGS). `mcmc`: relocate and sample up to `cap_max` (3DGS as MCMC)."""
    cap_max: Annotated[int, Formerly("cap"), Limits(min=1)] = 1_000_000
    """The most Gaussians: `mcmc` grows up to it (by a quarter a time at most), `default` stops once it is passed."""
    start: Annotated[int, Limits(min=0)] = 500
    """First step of densification, at the latest a tenth of the run."""
    stop: Annotated[float, Limits(min=0, max=1)] = 0.5
    """Last step of densification, as a share of the run."""
    every: Annotated[int, Limits(min=1)] = 100
    """Steps between densifications."""
    grow_grad2d: Annotated[float, Formerly("grad"), Limits(min=0)] = 0.0002
    """`default`: gradient of the projected means, in normalised screen units, above which a Gaussian is cloned or
    split. With `absgrad`, 0.0008 is the usual value."""
    absgrad: bool = False
    """`default`: sum the gradients' absolute values over the pixels (AbsGS), so that opposite pulls do not cancel."""
    revised_opacity: bool = True
    """`default`: lower the opacity of the halves of a split, so that the pair covers what the one did."""
    prune_opacity: Annotated[float, Limits(above=0, below=0.5)] = 0.005
    """Gaussians below this opacity are removed or relocated."""
    reset_every: Annotated[int | None, Limits(min=0)] = None
    """`default`: steps between resets of all opacities to near transparent, which kills floaters; 0 never resets. None
    comes with fewer steps than that until densification stops, which has to mend it. By default 3000, and never what a
    splat file gave."""
    noise_lr: Annotated[float, Formerly("noise"), Limits(min=0)] = 5e5
    """`mcmc`: size of the exploring noise, as a multiple of the learning rate."""


RESET_EVERY = 3000
"""Of trainings that begin from points, as in 3DGS."""


class Densifier:
    """Applies the configured strategy around the backward pass; its running statistics are in ``state``.

    Args:
        config: what to do.
        max_steps: of the run.
        extent: of the scene.
        spared: which of the means belong to Gaussians that are never too large; ``None`` for none.
    """

    def __init__(
        self,
        config: DensifyConfig,
        *,
        max_steps: int,
        extent: float,
        spared: Callable[[Tensor], Tensor] | None = None,
    ):
        from gsplat.strategy import DefaultStrategy  # pure Python: nothing of CUDA is touched

        from difix3d.training.mcmc import ScheduledMCMC

        self.config = config
        self.reset_every = RESET_EVERY if config.reset_every is None else config.reset_every
        self.stop = 0 if config.kind == "none" else round(config.stop * max_steps)
        self.last_reset = self.stop - self.reset_every
        self.spared = spared
        schedule = {
            "refine_start_iter": min(config.start, max_steps // 10),
            "refine_stop_iter": self.stop,
            "refine_every": config.every,
        }
        self.strategy: Any = None
        self.state: dict[str, Any] = {}
        if config.kind == "default":
            resets = 0 < self.reset_every <= self.last_reset
            self.strategy = DefaultStrategy(
                prune_opa=config.prune_opacity,
                grow_grad2d=config.grow_grad2d,
                # from the first reset on it removes what is too large; no step is a multiple, so that it resets nothing
                reset_every=self.reset_every + 1e-3 if resets else max_steps + 1,
                absgrad=config.absgrad,
                revised_opacity=config.revised_opacity,
                **schedule,
            )
            self.state = self.strategy.initialize_state(scene_scale=extent)
            if spared is not None:  # what is too large is removed here
                self.too_large, self.strategy.prune_scale3d = self.strategy.prune_scale3d * extent, math.inf
        elif config.kind == "mcmc":
            self.strategy = ScheduledMCMC(
                cap_max=config.cap_max, noise_lr=config.noise_lr, min_opacity=config.prune_opacity, **schedule
            )
            self.state = self.strategy.initialize_state()

    @property
    def resets_too_late(self) -> bool:
        """Whether it lasts to the first reset of the opacities, but not to mend it, so that none takes place."""
        return self.last_reset < self.reset_every <= self.stop

    @property
    def absgrad(self) -> bool:
        """Whether the rasteriser must give absolute gradients."""
        return self.config.kind == "default" and self.config.absgrad

    @property
    def by_gaussian(self) -> dict[str, Any]:
        """Of the state the statistics that have a value for each Gaussian."""
        return self.state if self.config.kind == "default" else {}

    def before_backward(self, splats: SplatOptimizer, render: Render, step: int) -> None:
        if self.config.kind == "default" and step < self.stop:
            self.strategy.step_pre_backward(splats.params, splats.optimizers, self.state, step, render.info)

    def after_backward(self, splats: SplatOptimizer, render: Render, step: int, *, weight: float = 1.0) -> None:
        """Call it after the optimisers' step.

        Args:
            weight: of the views' loss; their gradients count in full, so that Gaussians are added where only views of
                little weight need them.

        Raises:
            UserError: no Gaussian would be left.
        """
        if self.config.kind == "mcmc":
            self._apply(splats, render, step, lr=splats.means_rate(step))
        elif self.config.kind == "default" and step < self.stop:
            gathered = step % self.config.every != 0 and gather(self.state, render, self.absgrad, weight)
            if not gathered:
                if 0 < weight < 1:
                    means2d = render.info["means2d"]
                    means2d.grad /= weight
                    if self.absgrad:
                        means2d.absgrad /= weight
                full = len(splats.params["means"]) >= self.config.cap_max
                self.strategy.grow_grad2d = math.inf if full else self.config.grow_grad2d
                self._apply(splats, render, step, packed=render.info["gaussian_ids"] is not None)
                if self.spared is not None:
                    self._remove_large(splats, step, self.spared)
            self._reset_opacities(splats, step)

    def _apply(self, splats: SplatOptimizer, render: Render, step: int, **options: Any) -> None:
        info = strategy_info(render.info)
        params = splats.params
        if step % self.config.every == 0 and not (params["opacities"].sigmoid() > self.config.prune_opacity).any():
            raise UserError(
                f"At step {step} all Gaussians are too transparent to be kept",
                f"Those below --densify.prune-opacity, {self.config.prune_opacity}, go",
                "Lower it, or raise --init.opacity",
            )
        if step == 0 and self.config.kind == "default":  # where gsplat 1.4 resets the opacities that it begins with
            self.strategy._update_state(params, self.state, info, packed=options["packed"])
            return
        with strategies_on(render.rgb.device):
            self.strategy.step_post_backward(params, splats.optimizers, self.state, step, info, **options)

    def _remove_large(self, splats: SplatOptimizer, step: int, spared: Callable[[Tensor], Tensor]) -> None:
        """What gsplat's strategy removes from the first reset on, but for what is spared."""
        from gsplat.strategy.ops import remove

        schedule = self.strategy
        if step > max(schedule.refine_start_iter, schedule.reset_every) and step % schedule.refine_every == 0:
            large = (splats.params["scales"].amax(1) > math.log(self.too_large)) & ~spared(splats.params["means"])
            if large.any():
                remove(splats.params, splats.optimizers, self.state, large)

    def _reset_opacities(self, splats: SplatOptimizer, step: int) -> None:
        # done here, as gsplat 1.5's own never fires (`step % n == 0 & step > 0` compares with `0 & step`)
        from gsplat.strategy.ops import reset_opa

        every = self.reset_every
        if every > 0 and 0 < step <= self.last_reset and step % every == 0:
            reset_opa(splats.params, splats.optimizers, self.state, value=self.config.prune_opacity * 2)

    def load(self, state: dict[str, Tensor], device: Any) -> None:
        """Puts back the tensors of ``state``."""
        self.state.update({key: value.to(device) for key, value in state.items()})


def gather(state: dict[str, Any], render: Render, absgrad: bool, weight: float) -> bool:
    """What ``DefaultStrategy`` does in a step that adds and removes nothing: in one C++ pass on a CPU, and on a GPU
    without waiting for how many Gaussians are seen. ``False``: not done, as the render is packed.

    Args:
        state: of the strategy; the sums of screen-space gradients in it grow.
        render: after its backward pass.
        absgrad: use the absolute gradients.
        weight: of the views' loss, by which the gradients are divided if it is below 1.
    """
    means2d, radii = render.info["means2d"], render.info["radii"]
    if render.info["gaussian_ids"] is not None:
        return False
    grads = (means2d.absgrad if absgrad else means2d.grad).contiguous()
    cameras, n, _ = grads.shape
    for name in ("grad2d", "count"):
        if state[name] is None:
            state[name] = torch.zeros(n, device=grads.device)
    factor = 0.5 * render.info["n_cameras"] / (weight if 0 < weight < 1 else 1)
    width, height = (float(render.info[side] * factor) for side in ("width", "height"))
    if grads.device.type == "cpu" and grads.dtype == torch.float32 and (library := native.load()) is not None:
        sums, threads = (state["grad2d"], state["count"]), torch.get_num_threads()
        native.call(library.difix3d_screen_gradients, grads, radii.int(), cameras, n, width, height, threads, *sums)
        return True
    seen = (radii > 0).all(-1)
    state["grad2d"] += (torch.hypot(width * grads[..., 0], height * grads[..., 1]) * seen).sum(0)
    state["count"] += seen.sum(0)
    return True
