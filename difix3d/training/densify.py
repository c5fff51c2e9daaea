"""Where Gaussians are added and removed: gsplat's strategies, on any device."""

import math
from typing import Any

from torch import Tensor

from difix3d.render.strategies import strategies_on, strategy_info
from difix3d.training.config import DensifyConfig
from difix3d.training.optim import SplatOptimizer
from difix3d.types import Render


class Densifier:
    """Applies the configured strategy around the backward pass; its running statistics are in ``state``."""

    def __init__(self, config: DensifyConfig, *, max_steps: int, extent: float):
        from gsplat.strategy import DefaultStrategy, MCMCStrategy  # pure Python: nothing of CUDA is touched

        self.config = config
        self.stop = round(config.stop * max_steps)
        schedule = {
            "refine_start_iter": min(config.start, max_steps // 10),
            "refine_stop_iter": self.stop,
            "refine_every": config.every,
        }
        self.strategy: Any = None
        self.state: dict[str, Any] = {}
        if config.kind == "default":
            self.strategy = DefaultStrategy(
                prune_opa=config.prune_opacity,
                grow_grad2d=config.grad,
                reset_every=config.reset_every or max_steps + 1,
                absgrad=config.absgrad,
                revised_opacity=config.revised_opacity,
                **schedule,
            )
            self.state = self.strategy.initialize_state(scene_scale=extent)
        elif config.kind == "mcmc":
            self.strategy = MCMCStrategy(
                cap_max=config.cap, noise_lr=config.noise, min_opacity=config.prune_opacity, **schedule
            )
            self.state = self.strategy.initialize_state()

    @property
    def absgrad(self) -> bool:
        """Whether the rasteriser must give absolute gradients."""
        return self.config.kind == "default" and self.config.absgrad

    def before_backward(self, splats: SplatOptimizer, render: Render, step: int) -> None:
        if self.config.kind == "default" and step < self.stop:
            self.strategy.step_pre_backward(splats.params, splats.optimizers, self.state, step, render.info)

    def after_backward(
        self, splats: SplatOptimizer, render: Render, step: int, *, packed: bool, weight: float = 1.0
    ) -> None:
        """Call it after the optimisers' step.

        Args:
            weight: of the views' loss; their gradients count in full, so that Gaussians are added where only views of
                little weight need them.
        """
        if self.config.kind == "mcmc":
            self._apply(splats, render, step, lr=splats.means_rate(step))
        elif self.config.kind == "default" and step < self.stop:
            if 0 < weight < 1:
                means2d = render.info["means2d"]
                means2d.grad /= weight
                if self.absgrad:
                    means2d.absgrad /= weight
            full = len(splats.params["means"]) >= self.config.cap
            self.strategy.grow_grad2d = math.inf if full else self.config.grad
            self._apply(splats, render, step, packed=packed)
            self._reset_opacities(splats, step)

    def _apply(self, splats: SplatOptimizer, render: Render, step: int, **options: Any) -> None:
        info = strategy_info(render.info)
        with strategies_on(render.rgb.device):
            self.strategy.step_post_backward(splats.params, splats.optimizers, self.state, step, info, **options)

    def _reset_opacities(self, splats: SplatOptimizer, step: int) -> None:
        # gsplat 1.5's own reset never fires (`step % n == 0 & step > 0` compares with `0 & step`); two do no harm
        from gsplat.strategy.ops import reset_opa

        every = self.config.reset_every
        if every > 0 and step > 0 and step % every == 0:
            reset_opa(splats.params, splats.optimizers, self.state, value=self.config.prune_opacity * 2)

    def load(self, state: dict[str, Tensor], device: Any) -> None:
        """Puts back the tensors of ``state``."""
        self.state.update({key: value.to(device) for key, value in state.items()})
