"""What a step does in C++ against what torch and gsplat do."""

import pytest
import torch

from difix3d import native
from difix3d.render import rasterize
from difix3d.training.densify import Densifier, DensifyConfig
from difix3d.training.optim import OptimConfig, SplatOptimizer
from difix3d.types import Cameras, Gaussians

pytestmark = pytest.mark.skipif(native.find_compiler() is None, reason="needs a C++ compiler")


def optimizer(n: int = 7000, degree: int = 1, batch_size: int = 1) -> SplatOptimizer:
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(n, *shape, generator=generator)

    means = rand(3) + torch.tensor([0, 0, 4.0])
    gaussians = Gaussians(means, rand(4), rand(3) - 3, rand(), rand(1, 3), rand((degree + 1) ** 2 - 1, 3))
    return SplatOptimizer(gaussians, OptimConfig(), extent=1.0, batch_size=batch_size, max_steps=100)


@pytest.mark.parametrize("options", [{}, {"degree": 0}, {"batch_size": 4}])
def test_adam_is_that_of_torch(options, monkeypatch):
    """Gradients of all sizes, from zero and denormal squares to the largest; the state is torch's own."""
    ours, theirs = optimizer(**options), optimizer(**options)
    generator, load = torch.Generator().manual_seed(1), native.load
    for step in range(30):
        for name, param in ours.params.items():
            sizes = 10.0 ** torch.randint(-24, 4, param.shape, generator=generator)
            param.grad = torch.randn(param.shape, generator=generator) * sizes * (sizes > 1e-23)
            theirs.params[name].grad = param.grad.clone()
        monkeypatch.setattr(native, "load", load)
        ours.step(step)
        monkeypatch.setattr(native, "load", lambda: None)
        theirs.step(step)
    for name, param in ours.params.items():
        assert param.grad is None
        torch.testing.assert_close(param, theirs.params[name], rtol=1e-5, atol=1e-6)
    for name, state in ours.moments().items():
        assert state.keys() == theirs.moments()[name].keys()
        for key, value in state.items():
            torch.testing.assert_close(value, theirs.moments()[name][key], rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("absgrad", [False, True])
@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_statistics_are_those_of_gsplat(absgrad, weight, monkeypatch):
    splats, states, load = optimizer(n=20_000), [], native.load
    c2w = torch.eye(4).repeat(2, 1, 1)
    c2w[1, 0, 3] = 0.5
    K = torch.tensor([[40.0, 0, 24], [0, 40, 20], [0, 0, 1]]).repeat(2, 1, 1)
    cameras = Cameras(c2w, K, torch.tensor([48, 48]), torch.tensor([40, 40]))
    for patched in (load, lambda: None):
        densifier = Densifier(DensifyConfig(absgrad=absgrad), max_steps=1000, extent=1.0)
        for step in (1, 2):
            monkeypatch.setattr(native, "load", load)
            out = rasterize(splats.gaussians, cameras, absgrad=absgrad)
            densifier.before_backward(splats, out, step)
            out.rgb.square().mean().backward()
            monkeypatch.setattr(native, "load", patched)
            densifier.after_backward(splats, out, step, weight=weight)
        states.append(densifier.state)
    assert states[0]["count"].unique().tolist() == [0, 2, 4]
    for name in ("grad2d", "count"):
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-5, atol=1e-9)
