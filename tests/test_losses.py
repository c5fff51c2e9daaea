import pytest
import torch

from difix3d import native
from difix3d.losses import LossConfig, dssim, l1, photometric, pixel_weights, regularize, sparse_depth, squared_error
from difix3d.types import Cameras, Gaussians, View


def view(image: torch.Tensor, **options) -> View:
    height, width, _ = image.shape
    camera = Cameras(torch.eye(4)[None], torch.eye(3)[None], torch.tensor([width]), torch.tensor([height]))
    return View(camera, image, "a.png", **options)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 20, 24, 3, generator=generator), torch.rand(20, 24, 3, generator=generator)


def test_l1_by_hand(images):
    renders, target = images
    weights = torch.rand(20, 24)
    expected = sum(
        float(weights[i, j] * (renders[0, i, j] - target[i, j]).abs().mean()) for i in range(20) for j in range(24)
    ) / (20 * 24)
    assert float(l1(renders[0], target, weights)) == pytest.approx(expected, rel=1e-5)
    assert float(l1(renders[0], target, None)) == pytest.approx(float((renders[0] - target).abs().mean()), rel=1e-5)


def test_weights_of_one_are_no_weights(images):
    renders, target = images
    ones = torch.ones(20, 24)
    torch.testing.assert_close(l1(renders[0], target, ones), l1(renders[0], target, None))
    torch.testing.assert_close(dssim(renders[0], target, ones), dssim(renders[0], target, None))


def test_masked_pixels_have_no_gradient(images):
    renders, target = images
    render = renders[0].requires_grad_()
    mask = torch.zeros(20, 24)
    mask[:10] = 1
    (l1(render, target, mask) + dssim(render, target, mask)).backward()
    assert render.grad is not None
    assert float(render.grad[16:].abs().max()) == 0  # beyond the window's reach of 5 pixels
    assert float(render.grad[:10].abs().min()) > 0


def test_batch_is_the_weighted_mean_of_its_views(images):
    renders, target = images
    views = [view(target, weight=0.5), view(target.flip(0), weight=2.0)]
    config = LossConfig(dssim=0.3)
    both = photometric(renders, views, config)
    alone = [photometric(renders[i : i + 1], [views[i]], config) for i in range(2)]
    for name in ("l1", "dssim"):
        torch.testing.assert_close(both[name], (alone[0][name] + alone[1][name]) / 2)
    torch.testing.assert_close(alone[0]["l1"], 0.5 * 0.7 * l1(renders[0], target, None))


def test_mask_and_confidence_multiply(images):
    _, target = images
    mask, confidence = torch.rand(20, 24) > 0.5, torch.rand(20, 24)
    weights = pixel_weights(view(target, mask=mask, confidence=confidence))
    torch.testing.assert_close(weights, mask.float() * confidence)
    assert pixel_weights(view(target)) is None


def test_regularisers_are_left_out_at_zero():
    gaussians = Gaussians(
        means=torch.zeros(4, 3),
        quats=torch.ones(4, 4),
        scales=torch.full((4, 3), 2.0),
        opacities=torch.zeros(4),
        sh0=torch.zeros(4, 1, 3),
        shN=torch.zeros(4, 0, 3),
    )
    assert regularize(gaussians, LossConfig()) == {}
    terms = regularize(gaussians, LossConfig(opacity=0.1, scale=0.01))
    assert float(terms["opacity"]) == pytest.approx(0.05)
    assert float(terms["scale"]) == pytest.approx(0.01 * torch.e**2, rel=1e-5)


def test_sparse_depth_counts_seen_points_only():
    depth = torch.zeros(4, 6, 1)
    depth[1, 2] = 2.0
    pixels = torch.tensor([[2.5, 1.5], [5.5, 3.5], [2.5, 1.5]])
    loss = sparse_depth(depth.requires_grad_(), pixels, torch.tensor([4.0, 4.0, 0.0]))
    assert float(loss.detach()) == pytest.approx((1 / 2 - 1 / 4) / 2)
    loss.backward()
    assert depth.grad.isfinite().all()
    assert int((depth.grad != 0).sum()) == 1
    assert float(sparse_depth(depth, pixels[2:], torch.zeros(1)).detach()) == 0


@pytest.mark.skipif(native.find_compiler() is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("size", [(70, 40), (33, 5), (1, 1)])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_native_equals_twin(size, share, monkeypatch):
    """With and without masks and confidences, some of them 0; values, gradients, and the mean squared error."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    mask, confidence = rand(*size) > 0.4, rand(*size) * (rand(*size) > 0.3)
    extras = [{}, {"mask": mask}, {"confidence": confidence}, {"mask": mask, "confidence": confidence, "weight": 0.3}]
    views = [view(rand(*size, 3), **extra) for extra in extras]
    renders, config, results = rand(4, *size, 3) * 1.2, LossConfig(dssim=share), []
    for load in (native.load, lambda: None):
        monkeypatch.setattr(native, "load", load)
        rgb = renders.clone().requires_grad_()
        terms = photometric(rgb, views, config)
        (terms["l1"] + 3 * terms["dssim"]).backward()
        results.append((*terms.values(), rgb.grad, squared_error(rgb, views)))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(native.find_compiler() is None, reason="needs a C++ compiler")
def test_bits_do_not_depend_on_threads(images):
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        rgb = images[0].repeat(1, 5, 2, 1).requires_grad_()
        views = [view(images[1].repeat(5, 2, 1))] * 2
        terms = photometric(rgb, views, LossConfig())
        sum(terms.values()).backward()
        results.append(torch.cat([torch.stack([*terms.values(), squared_error(rgb, views)]), rgb.grad.flatten()]))
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
