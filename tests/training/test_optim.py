"""The optimisers' state, put back."""

import pytest
import torch

from difix3d.training import Trainer
from difix3d.training.optim import load_moments


@pytest.mark.parametrize("fused", [False, True])
def test_the_count_of_steps_goes_to_where_adam_reads_it(fused):
    """An Adam that is not fused reads it on the host: on a GPU it would wait for it in each step after a resume."""
    param = torch.nn.Parameter(torch.zeros(3, device="meta"))
    optimizer = torch.optim.Adam([param])
    optimizer.param_groups[0]["fused"] = fused
    state = {"step": torch.tensor(7.0), "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}
    load_moments({"x": param}, {"x": optimizer}, {"x": state})
    places = {name: value.device.type for name, value in optimizer.state[param].items()}
    assert places == {"step": "meta" if fused else "cpu", "exp_avg": "meta", "exp_avg_sq": "meta"}


def test_the_first_step_resets_no_opacities(toy_scene, config, monkeypatch):
    """As gsplat 1.4 would: its strategy does so at each multiple of its period, and 0 is one."""
    from gsplat.strategy import DefaultStrategy
    from gsplat.strategy.ops import reset_opa

    def as_in_1_4(self, params, optimizers, state, step, info, packed=False):
        if step % self.reset_every == 0:
            reset_opa(params, optimizers, state, value=2 * self.prune_opa)

    monkeypatch.setattr(DefaultStrategy, "step_post_backward", as_in_1_4)
    trainer = Trainer(config, toy_scene)
    trainer.model.step(next(trainer.photos(toy_scene, 0)), 0)
    assert trainer.gaussians.opacities.sigmoid().median() > 0.05
