"""gsplat's densification strategies on the CPU rasteriser, and the CPU twins of what they need from CUDA."""

import math
import subprocess
import sys

import pytest
import torch

pytest.importorskip("gsplat")

from difix3d.render import rasterize
from difix3d.render.strategies import compute_relocation, quat_scale_to_covar_preci, strategies_on, strategy_info
from difix3d.types import Cameras, Gaussians

NAMES = ("means", "quats", "scales", "opacities", "sh0", "shN")


def model(n: int = 80) -> tuple[torch.nn.ParameterDict, dict[str, torch.optim.Optimizer], Cameras]:
    g = torch.Generator().manual_seed(0)
    means = torch.randn(n, 3, generator=g) + torch.tensor([0, 0, 4.0])
    tensors = [means, torch.randn(n, 4, generator=g), torch.full((n, 3), -2.0), torch.randn(n, generator=g)]
    tensors += [torch.randn(n, 1, 3, generator=g), torch.zeros(n, 3, 3)]
    params = torch.nn.ParameterDict(dict(zip(NAMES, tensors, strict=True)))
    optimizers = {k: torch.optim.Adam([params[k]], 1e-3) for k in NAMES}
    K = torch.tensor([[[40.0, 0, 20], [0, 40, 16], [0, 0, 1]]])
    return params, optimizers, Cameras(torch.eye(4)[None], K, torch.tensor([40]), torch.tensor([32]))


def step(params, optimizers, cameras, absgrad=False):
    render = rasterize(Gaussians(*(params[k] for k in NAMES)), cameras, absgrad=absgrad)
    (render.rgb - 0.5).square().sum().backward()
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad()
    return strategy_info(render.info)


@pytest.mark.parametrize("absgrad", [False, True])
def test_default_strategy(absgrad):
    from gsplat.strategy import DefaultStrategy

    strategy = DefaultStrategy(refine_start_iter=0, refine_every=5, grow_grad2d=1e-9, absgrad=absgrad, reset_every=20)
    params, optimizers, cameras = model()
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state(scene_scale=1.0)
    before = len(params["means"])
    for i in range(1, 11):
        info = step(params, optimizers, cameras, absgrad)
        strategy.step_post_backward(params, optimizers, state, i, info)
    assert len(params["means"]) > before
    assert state["grad2d"].shape == params["opacities"].shape


def test_mcmc_strategy():
    from gsplat.strategy import MCMCStrategy, ops

    strategy = MCMCStrategy(cap_max=90, refine_start_iter=0, refine_every=2, min_opacity=0.3)
    params, optimizers, cameras = model()
    strategy.check_sanity(params, optimizers)
    state, before = strategy.initialize_state(), ops.compute_relocation
    for i in range(1, 9):
        info = step(params, optimizers, cameras)
        with strategies_on("cpu"):
            strategy.step_post_backward(params, optimizers, state, i, info, lr=1e-4)
    assert len(params["means"]) == 90
    assert all(params[k].isfinite().all() for k in NAMES)
    assert ops.compute_relocation is before  # put back


def test_nothing_is_replaced_on_cuda():
    from gsplat.strategy import ops

    before = ops.compute_relocation
    with strategies_on("cuda"):
        assert ops.compute_relocation is before


def test_relocation_by_the_papers_double_sum():
    table = torch.tensor([[float(math.comb(n, k)) for k in range(51)] for n in range(51)])
    opacities, scales = torch.tensor([0.1, 0.5, 0.9, 0.99]), torch.rand(4, 3) + 0.1
    ratios = torch.tensor([1, 2, 5, 51])
    new_opacities, new_scales = compute_relocation(opacities, scales, ratios, table)
    for o, s, n, new_o, new_s in zip(
        opacities.tolist(), scales, ratios.tolist(), new_opacities, new_scales, strict=True
    ):
        p = 1 - (1 - o) ** (1 / n)
        total = sum(
            math.comb(i - 1, k) * (-1) ** k / math.sqrt(k + 1) * p ** (k + 1) for i in range(1, n + 1) for k in range(i)
        )
        torch.testing.assert_close(new_o.item(), p, rtol=1e-5, atol=0)
        torch.testing.assert_close(new_s, s * o / total, rtol=1e-4, atol=0)
    torch.testing.assert_close(new_scales[0], scales[0])  # one that replaces itself stays as it is


def test_covariances():
    quats, scales = torch.randn(6, 4), torch.rand(6, 3) + 0.1
    covariances, precisions = quat_scale_to_covar_preci(quats, scales)
    torch.testing.assert_close(covariances @ precisions, torch.eye(3).expand(6, 3, 3), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(torch.linalg.eigvalsh(covariances), (scales**2).sort(1).values, rtol=1e-3, atol=1e-5)
    assert quat_scale_to_covar_preci(quats, scales, compute_preci=False)[1] is None


def test_radii_of_an_older_gsplat(monkeypatch):
    monkeypatch.setattr("difix3d.render.strategies.version", lambda _: "1.4.0")
    info = {"radii": torch.tensor([[[3, 4], [0, 0]]]), "width": 5}
    assert strategy_info(info)["radii"].tolist() == [[4, 0]]
    monkeypatch.setattr("difix3d.render.strategies.version", lambda _: "1.5.3")
    assert strategy_info(info) is info


def test_importing_strategies_compiles_nothing():
    code = "import sys, gsplat.strategy; assert 'gsplat.cuda._backend' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
