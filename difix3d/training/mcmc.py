"""Densification by 3DGS as MCMC that reaches its number of Gaussians in time, however short the run is."""

from typing import Any

import torch
from gsplat.strategy import MCMCStrategy
from gsplat.strategy.ops import sample_add
from torch import Tensor

GROWN = 0.6
"""Share of densification after which there are as many as allowed; the rest is for relocation."""
RATES = (1.05, 1.25)
"""Least and largest growth at a densification. The least is the constant one of Kheradmand et al. 2024, which suits
30,000 steps; in 2,000 it only doubles the Gaussians."""


class ScheduledMCMC(MCMCStrategy):
    """gsplat's strategy, but that growth follows from how much is left to grow and how often it still can."""

    _at = 0

    def step_post_backward(self, params: Any, optimizers: Any, state: Any, step: int, info: Any, lr: float) -> None:
        self._at = step
        super().step_post_backward(params, optimizers, state, step, info, lr)

    def rate(self, count: int, step: int) -> float:
        """Growth at the densification of a step, with so many Gaussians."""
        grown = self.refine_start_iter + GROWN * (self.refine_stop_iter - self.refine_start_iter)
        looks = max(0.0, grown - step) // self.refine_every + 1
        least, largest = RATES
        return min(max((self.cap_max / count) ** (1 / looks), least), largest)

    @torch.no_grad()
    def _add_new_gs(self, params: Any, optimizers: Any, binoms: Tensor) -> int:
        count = len(params["means"])
        more = max(0, min(self.cap_max, int(self.rate(count, self._at) * count)) - count)
        if more:
            sample_add(params, optimizers, {}, more, binoms, self.min_opacity)
        return more
