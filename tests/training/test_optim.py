"""The optimisers' state, put back."""

import pytest
import torch

from difix3d.training import Trainer
from difix3d.training.optim import load_moments, steps_on_gpu


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


def test_the_steps_of_a_gpu_are_torchs_own():
    """Its fused kernel without the optimiser around it; torch has one for CPUs as well."""
    expected, found = ([torch.arange(6.0).reshape(shape).requires_grad_() for shape in ((6,), (2, 3))] for _ in "ab")
    optimizers = [
        [torch.optim.Adam([x], lr=0.1 * i, betas=(0.8, 0.99), eps=1e-15, fused=True) for i, x in enumerate(params, 1)]
        for params in (expected, found)
    ]
    for step in range(4):
        for x in expected + found:
            x.grad = torch.cos(x.detach() + step)
        for optimizer in optimizers[0] + (optimizers[1] if step == 0 else []):
            optimizer.step()
        if step > 0:
            steps_on_gpu(optimizers[1])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert [float(optimizer.state[x]["step"]) for optimizer, x in zip(optimizers[1], found, strict=True)] == [4, 4]
