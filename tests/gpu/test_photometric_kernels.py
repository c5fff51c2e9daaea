"""The kernels of the photometric loss against the twin in float64, in Triton's interpreter and on a GPU.

Triton asks for its interpreter when it is imported, so that those tests run in a process of their own.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from difix3d.losses import LossConfig, photometric, squared_error
from difix3d.types import Cameras, View

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton, which is not made for this system")
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs below test_in_interpreter")
real_gpu = pytest.mark.skipif("DIFIX3D_PRETEND_CUDA" in os.environ, reason="Triton needs a real GPU")


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def make_views(height: int, width: int) -> list[View]:
    """Without weights, with a mask, with a confidence that is 0 in places, and with both and a weight of its own."""
    camera = Cameras(torch.eye(4)[None], torch.eye(3)[None], torch.tensor([width]), torch.tensor([height]))
    images, (of_mask, of_confidence, of_zeros) = rand(4, height, width, 3), rand(3, height, width)
    mask, confidence = of_mask > 0.4, of_confidence * (of_zeros > 0.3)
    extras = [{}, {"mask": mask}, {"confidence": confidence}, {"mask": mask, "confidence": confidence, "weight": 0.3}]
    return [View(camera, image, "a.png", **extra) for image, extra in zip(images, extras, strict=True)]


def double(view: View) -> View:
    confidence = None if view.confidence is None else view.confidence.double()
    return View(view.camera, view.image.double(), view.name, mask=view.mask, confidence=confidence, weight=view.weight)


def compare(views: list[View], share: float, device: str) -> None:
    """Both terms, the gradient, and the squared error, of renders that are not clamped and are a view of others."""
    height, width, _ = views[0].image.shape
    renders = rand(len(views), height, width, 4)[..., :3] * 1.2
    results = []
    for rgb, own in (
        (renders.to(device), [view.to(device) for view in views]),
        (renders.double(), [double(view) for view in views]),
    ):
        rgb.requires_grad_()
        terms = photometric(rgb, own, LossConfig(dssim=share))
        (terms["l1"] + 3 * terms["dssim"]).backward()
        results.append([*terms.values(), squared_error(rgb, own), rgb.grad])
    fast, slow = ([x.detach().cpu().double() for x in result] for result in results)
    assert results[0][0].dtype == torch.float32
    torch.testing.assert_close(torch.stack(fast[:3]), torch.stack(slow[:3]), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(fast[3], slow[3], rtol=0, atol=1e-5 * float(slow[3].abs().max()))


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="is in it already")
def test_in_interpreter():
    environment = {name: value for name, value in os.environ.items() if name != "DIFIX3D_PRETEND_CUDA"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__],
        env=environment | {"TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@interpreted
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_interpreted_kernels_equal_twin(share):
    """A batch of all kinds of views, all smaller than the window."""
    compare(make_views(3, 7), share, "cpu")


@interpreted
@pytest.mark.parametrize(("size", "kinds"), [((1, 1), slice(1)), ((11, 45), slice(2, 4)), ((37, 53), slice(1))])
def test_interpreted_kernels_equal_twin_in_size(size, kinds):
    """One pixel; and several tiles in each direction, the last of them not full."""
    compare(make_views(*size)[kinds], 0.2, "cpu")


@real_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("size", [(1, 1), (3, 7), (37, 53), (411, 620)])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_kernels_equal_twin(size, share):
    compare(make_views(*size), share, "cuda")


@real_gpu
@pytest.mark.gpu
def test_kernels_give_the_same_bits_again():
    views, results = [view.to("cuda") for view in make_views(120, 200)], []
    for _ in range(2):
        rgb = rand(4, 120, 200, 3).cuda().requires_grad_()
        terms = photometric(rgb, views, LossConfig())
        sum(terms.values()).backward()
        results.append(torch.cat([torch.stack([*terms.values()]).detach(), rgb.grad.flatten()]))
    assert torch.equal(*results)
