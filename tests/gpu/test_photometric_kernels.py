"""The kernels of the photometric loss against the twin in float64."""

import pytest
import torch

from difix3d.losses import LossConfig, photometric, squared_error
from difix3d.types import Cameras, View


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


def compare(views: list[View], share: float, device: torch.device) -> None:
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


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_they_equal_the_twin(device, share):
    """A batch of all kinds of views, all smaller than the window."""
    compare(make_views(3, 7), share, device)


@pytest.mark.parametrize(("size", "kinds"), [((1, 1), slice(1)), ((11, 45), slice(2, 4)), ((37, 53), slice(1))])
def test_they_equal_it_in_any_size(device, size, kinds):
    """One pixel; and several tiles in each direction, the last of them not full."""
    compare(make_views(*size)[kinds], 0.2, device)


def test_large_images_and_the_same_bits_again(device):
    if device.type == "cpu":
        pytest.skip("takes minutes in the interpreter")
    compare(make_views(411, 620), 0.2, device)
    views, results = [view.to(device) for view in make_views(120, 200)], []
    for _ in range(2):
        rgb = rand(4, 120, 200, 3).to(device).requires_grad_()
        terms = photometric(rgb, views, LossConfig())
        sum(terms.values()).backward()
        results.append(torch.cat([torch.stack([*terms.values()]).detach(), rgb.grad.flatten()]))
    assert torch.equal(*results)
