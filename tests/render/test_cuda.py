"""The gsplat back end: the call it makes (to a stand-in for gsplat), and its images against the twin (on a GPU)."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
import torch
from in_ranks import launch

from difix3d.render import cuda, rasterize, torch_twin
from difix3d.types import Cameras, Gaussians


def scene(n: int = 50) -> tuple[Gaussians, Cameras]:
    g = torch.Generator().manual_seed(0)
    sizes = torch.rand(n, 3, generator=g) * 1.5 - 2.5  # unequal along the axes: else the quaternions do not matter
    means = torch.randn(n, 3, generator=g) + torch.tensor([0, 0, 4.0])
    quats, sh = torch.randn(n, 4, generator=g), torch.randn(n, 16, 3, generator=g) * 0.3
    gaussians = Gaussians(means, quats, sizes, torch.randn(n, generator=g), sh[:, :1], sh[:, 1:])
    K = torch.tensor([[40.0, 0, 20], [0, 40, 16], [0, 0, 1]]).repeat(2, 1, 1)
    c2w = torch.eye(4).repeat(2, 1, 1)
    c2w[1, 0, 3] = 0.3
    return gaussians, Cameras(c2w, K, torch.tensor([40, 40]), torch.tensor([32, 32]))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("version", ["1.4", "1.5"])
def test_call_and_shapes(monkeypatch, version, packed):
    calls = {}

    def rasterization(means, viewmats, width, height, render_mode, **rest):
        calls.update(rest, render_mode=render_mode)
        b, n = len(viewmats), len(means)
        shape = (7,) if packed else (b, n)
        radii = torch.ones(shape if version == "1.4" else (*shape, 2), dtype=torch.int32)
        info = {"means2d": means.sum() + torch.zeros(*shape, 2), "radii": radii}
        if packed:
            info["gaussian_ids"] = torch.arange(7)
        return torch.rand(b, height, width, 4 if "D" in render_mode else 3), torch.rand(b, height, width, 1), info

    monkeypatch.setitem(sys.modules, "gsplat", SimpleNamespace(rasterization=rasterization))
    g, cameras = scene()
    g = g.map(lambda x: x.requires_grad_())
    options = {"sh_degree": 2, "background": torch.ones(3), "packed": packed}
    render = cuda.rasterize(g, cameras, antialiased=True, absgrad=True, **options)
    assert render.rgb.shape == (2, 32, 40, 3)
    assert render.alpha.shape == render.depth.shape == (2, 32, 40, 1)
    assert render.info["radii"].shape == render.info["means2d"].shape
    assert render.info["means2d"].retains_grad
    assert (render.info["width"], render.info["height"], render.info["n_cameras"]) == (40, 32, 2)
    assert (render.info["gaussian_ids"] is not None) == packed
    assert calls["rasterize_mode"] == "antialiased"
    assert calls["absgrad"]
    assert calls["sh_degree"] == 2
    assert calls.get("backgrounds") is None  # gsplat 1.5 refuses them of packed Gaussians
    behind = cuda.rasterize(g, cameras, **options | {"background": torch.zeros(3)})
    assert behind.rgb.max() < 1 < render.rgb.max()
    torch.testing.assert_close(calls["opacities"], g.opacities.sigmoid())
    torch.testing.assert_close(calls["scales"], g.scales.exp())
    assert cuda.rasterize(g, cameras, depth=False, **options).depth is None
    assert calls["render_mode"] == "RGB"


def test_gsplat_knows_all_arguments(monkeypatch):
    """The stand-in takes anything; the installed gsplat does not."""
    from gsplat.rendering import rasterization

    stand_in = create_autospec(rasterization, side_effect=InterruptedError)
    monkeypatch.setitem(sys.modules, "gsplat", SimpleNamespace(rasterization=stand_in))
    with pytest.raises(InterruptedError):  # the arguments fit: a TypeError comes before it otherwise
        cuda.rasterize(*scene(), sh_degree=2, background=torch.ones(3))


@pytest.mark.gpu
@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_cuda_equals_twin(packed, antialiased):
    g, cameras = scene(500)
    background = torch.tensor([0.1, 0.2, 0.3])
    gradients, images = [], []
    for run, device in ((torch_twin.rasterize, "cpu"), (rasterize, "cuda")):
        leaves = g.map(lambda x, device=device: x.to(device).clone().requires_grad_())
        options = {"sh_degree": 3, "background": background.to(device), "antialiased": antialiased, "packed": packed}
        render = run(leaves, cameras.to(device), **options)
        (render.rgb.square().sum() + render.depth.sum() + render.alpha.sum()).backward()
        images.append((render.rgb.cpu(), render.alpha.cpu()))
        gradients.append([x.grad.cpu() for x in leaves.as_dict().values()])
    for ours, theirs in zip(*images, strict=True):
        assert (ours - theirs).abs().max() < 2e-3
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).norm() < 1e-3 * ours.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("packed", [False, True])
def test_small_things_may_lie_on_the_cpu(packed):
    """The README's example: a scene's cameras are on the host, a trained model is on the GPU."""
    g, cameras = scene()
    here = rasterize(g, cameras, background=torch.ones(3))
    there = rasterize(g.to("cuda"), cameras, background=torch.ones(3), packed=packed)
    assert there.rgb.is_cuda
    assert there.background.is_cuda
    torch.testing.assert_close(there.rgb.cpu(), here.rgb, atol=2e-3, rtol=0)
    back = rasterize(g, cameras.to("cuda"), background=torch.ones(3, device="cuda"))
    assert torch.equal(back.rgb, here.rgb)


@pytest.mark.gpu
def test_gaussians_in_two_processes_are_rendered_as_in_one():
    """gsplat's own exchange: images, and the gradients of Gaussians and poses."""
    if torch.cuda.device_count() < 2 and not os.environ.get("DIFIX3D_PRETEND_CUDA"):
        pytest.skip("needs two GPUs")
    assert launch(Path(__file__).with_name("exchange_in_ranks.py")).stdout.count("as one") == 2
