"""Each term against a slow twin made of loops, gradients included."""

import pytest
import torch
import torch.nn.functional as F
from shared_data import SHARED, require

from difix3d.difix_training import losses
from difix3d.difix_training.config import DifixLossConfig
from difix3d.features import VGG16, imagenet_normalize
from difix3d.metrics import LPIPS


@pytest.fixture(scope="module")
def network():
    folder = require(SHARED / "weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFIX3D_WEIGHTS", str(folder))
        return LPIPS("vgg").double()


def images(*shape, seed=0):
    """Two random batches in fp64, where a rounding error flips no maximum."""
    generator = torch.Generator().manual_seed(seed)
    fixed, photo = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
    return fixed.requires_grad_(), photo


def same(fast, slow, fixed):
    """Equal in value and in gradient."""
    (a,), (b,) = torch.autograd.grad(fast, fixed), torch.autograd.grad(slow, fixed)
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(a, b)
    assert a.abs().max() > 0


def test_l2_pixel_by_pixel():
    fixed, photo = images(2, 3, 4, 5)
    slow = torch.zeros((), dtype=torch.float64)
    for a, b in zip(fixed.flatten(), photo.flatten(), strict=True):
        slow = slow + ((2 * a - 1) - (2 * b - 1)) ** 2 / fixed.numel()
    same(losses.l2(fixed, photo), slow, fixed)


@pytest.mark.real
def test_lpips_layer_by_layer(network):
    fixed, photo = images(2, 3, 20, 18)
    slow = torch.zeros((), dtype=torch.float64)
    for a, b in zip(fixed, photo, strict=True):
        layers = zip(
            network.network(imagenet_normalize(a[None])), network.network(imagenet_normalize(b[None])), strict=True
        )
        for (x, y), head in zip(layers, network.heads, strict=True):
            x, y = x[0] / (x[0].norm(dim=0) + 1e-10), y[0] / (y[0].norm(dim=0) + 1e-10)
            for row in range(x.shape[1]):
                for column in range(x.shape[2]):
                    difference = (x[:, row, column] - y[:, row, column]) ** 2
                    slow = slow + difference @ head.flatten() / x[0].numel() / len(fixed)
    same(losses.lpips(fixed, photo, network), slow, fixed)


def five_layers(x):
    """A stand-in for VGG-16 of a few channels: 3 to 5, ever smaller."""
    x = F.avg_pool2d(x, 100)
    return [x[..., :2, :2], x[:, :, ::2], x.abs().cumsum(1), torch.cat([x, x[:, :2]], 1).sin(), x[..., 1:, :1] ** 2]


def gram_in_loops(fixed, photo, features, rows, columns):
    total = torch.zeros((), dtype=torch.float64)
    for weight, layer_a, layer_b in zip(
        (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5),
        features(imagenet_normalize(fixed[:, :, rows, columns])),
        features(imagenet_normalize(photo[:, :, rows, columns])),
        strict=True,
    ):
        batch, channels, height, width = layer_a.shape
        for item in range(batch):
            for i in range(channels):
                for j in range(channels):
                    a = (layer_a[item, i] * layer_a[item, j]).sum() / (channels * height * width)
                    b = (layer_b[item, i] * layer_b[item, j]).sum() / (channels * height * width)
                    total = total + weight * (a - b) ** 2 / (batch * channels * channels)
    return total


def test_gram_channel_by_channel():
    fixed, photo = images(2, 3, 430, 405)
    box = losses.random_crop(430, 405, torch.Generator().manual_seed(7))
    assert [part.stop - part.start for part in box] == [400, 400]
    fast = losses.gram(fixed, photo, five_layers, torch.Generator().manual_seed(7))
    same(fast, gram_in_loops(fixed, photo, five_layers, *box), fixed)


def test_gram_of_a_random_vgg():
    torch.manual_seed(0)
    vgg = VGG16().double()
    fixed, photo = images(1, 3, 16, 24)
    slow = 0
    for weight, a, b in zip(
        losses.GRAM_WEIGHTS, vgg(imagenet_normalize(fixed)), vgg(imagenet_normalize(photo)), strict=True
    ):
        products = torch.einsum("bihw,bjhw->bij", a, a) - torch.einsum("bihw,bjhw->bij", b, b)
        slow = slow + weight * (products / (a.shape[1] * a.shape[2] * a.shape[3])).square().mean()
    same(losses.gram(fixed, photo, vgg, torch.Generator()), slow, fixed)


def test_crops_reach_everywhere_and_repeat():
    generator = torch.Generator().manual_seed(0)
    starts = {losses.random_crop(402, 390, generator)[0].start for _ in range(50)}
    assert starts == {0, 1, 2}
    assert losses.random_crop(402, 390, generator)[1] == slice(0, 390)


@pytest.mark.real
def test_terms_begin_when_they_should_and_weigh_what_they_should(network):
    fixed, photo = images(1, 3, 24, 24)
    config = DifixLossConfig(l2=2.0, lpips=0.5, gram=3.0, gram_start=10)
    generator = torch.Generator()
    assert losses.loss_terms(fixed, photo, network, config, 9, generator).keys() == {"l2", "lpips"}
    terms = losses.loss_terms(fixed, photo, network, config, 10, generator)
    torch.testing.assert_close(terms["l2"], 2 * losses.l2(fixed, photo))
    torch.testing.assert_close(terms["lpips"], 0.5 * losses.lpips(fixed, photo, network))
    torch.testing.assert_close(terms["gram"], 3 * losses.gram(fixed, photo, network.network, generator))
    only = DifixLossConfig(lpips=0.0, gram=0.0)
    assert losses.loss_terms(fixed, photo, None, only, 5000, generator).keys() == {"l2"}
