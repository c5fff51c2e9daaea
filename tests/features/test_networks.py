"""The networks against slow formulations that read the published keys one by one."""

import pytest
import torch
import torch.nn.functional as F

from difix3d.features import VGG16, AlexNet, Inception, imagenet_normalize, inception_features, weights

VGG_KEYS = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
ALEX_KEYS = [0, 3, 6, 8, 10]


@pytest.fixture(scope="module")
def inception():
    """With weights that keep the activations alive, and statistics unlike those of a fresh network."""
    torch.manual_seed(0)
    network = Inception().eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -1, 1),
                (module.running_mean, -1, 1),
                (module.running_var, 0.5, 2),
            ):
                torch.nn.init.uniform_(tensor, low, high)
    return network


def test_vgg_equals_its_layers_one_by_one():
    torch.manual_seed(0)
    network = VGG16()
    state = network.state_dict()
    assert list(state) == [f"features.{i}.{leaf}" for i in VGG_KEYS for leaf in ("weight", "bias")]
    x = images = torch.randn(2, 3, 36, 50)
    expected = []
    for number, key in enumerate(VGG_KEYS):
        x = F.relu(F.conv2d(x, state[f"features.{key}.weight"], state[f"features.{key}.bias"], padding=1))
        if number in (1, 3, 6, 9, 12):
            expected.append(x)
            x = F.max_pool2d(x, 2)
    for layer, truth in zip(network(images), expected, strict=True):
        torch.testing.assert_close(layer, truth)


def test_alexnet_equals_its_layers_one_by_one():
    torch.manual_seed(0)
    network = AlexNet()
    state = network.state_dict()
    assert list(state) == [f"features.{i}.{leaf}" for i in ALEX_KEYS for leaf in ("weight", "bias")]
    x = images = torch.randn(1, 3, 64, 80)
    found = network(images)
    for number, (key, layer) in enumerate(zip(ALEX_KEYS, found, strict=True)):
        stride, padding = (4, 2) if key == 0 else (1, 2 if key == 3 else 1)
        x = F.relu(F.conv2d(x, state[f"features.{key}.weight"], state[f"features.{key}.bias"], stride, padding))
        torch.testing.assert_close(layer, x)
        x = F.max_pool2d(x, 3, 2) if number < 2 else x
    assert [layer.shape[2:] for layer in found] == [(15, 19), (7, 9), (3, 4), (3, 4), (3, 4)]


def test_imagenet_normalisation():
    grey = torch.full((1, 3, 2, 2), 0.5)
    expected = torch.tensor([(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225])
    torch.testing.assert_close(imagenet_normalize(grey)[0, :, 0, 0], expected)


def test_inception_has_the_published_parameters(inception):
    state = inception.state_dict()
    convolutions = [key.removesuffix(".conv.weight") for key in state if key.endswith(".conv.weight")]
    leaves = ["conv.weight", *(f"bn.{x}" for x in ("weight", "bias", "running_mean", "running_var"))]
    assert len(convolutions) == 94
    assert set(state) == {f"{name}.{leaf}" for name in convolutions for leaf in [*leaves, "bn.num_batches_tracked"]}
    # torchvision documents 27,161,264 for Inception-v3, of which 3,326,696 are the auxiliary classifier's
    features = 27_161_264 - 3_326_696 - (2048 + 1) * 1000
    assert sum(parameter.numel() for parameter in inception.parameters()) == features
    assert state["Mixed_5b.branch_pool.conv.weight"].shape == (32, 192, 1, 1)
    assert state["Mixed_6a.branch3x3.conv.weight"].shape == (384, 288, 3, 3)
    assert state["Mixed_6c.branch7x7dbl_5.conv.weight"].shape == (192, 160, 1, 7)
    assert state["Mixed_6e.branch7x7_3.conv.weight"].shape == (192, 192, 7, 1)
    assert state["Mixed_7a.branch7x7x3_4.conv.weight"].shape == (192, 192, 3, 3)
    assert state["Mixed_7c.branch3x3dbl_3b.conv.weight"].shape == (384, 384, 3, 1)


class SlowInception:
    """The network written out, from its state dict."""

    def __init__(self, state):
        self.state = state

    def conv(self, x, name, stride=1, padding=(0, 0)):
        s = self.state
        x = F.conv2d(x, s[f"{name}.conv.weight"], None, stride, padding)
        mean, var, weight, bias = (s[f"{name}.bn.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        x = (x - mean[:, None, None]) / (var[:, None, None] + 0.001).sqrt() * weight[:, None, None]
        return (x + bias[:, None, None]).clamp(min=0)

    @staticmethod
    def average(x):
        """3 x 3, divided by the number of pixels that are inside of the image."""
        ones = torch.ones_like(x[:1, :1])
        return F.avg_pool2d(x, 3, 1, 1) / F.avg_pool2d(ones, 3, 1, 1)

    def a(self, x, n):
        one = self.conv(x, f"{n}.branch1x1")
        five = self.conv(self.conv(x, f"{n}.branch5x5_1"), f"{n}.branch5x5_2", 1, 2)
        three = self.conv(self.conv(x, f"{n}.branch3x3dbl_1"), f"{n}.branch3x3dbl_2", 1, 1)
        three = self.conv(three, f"{n}.branch3x3dbl_3", 1, 1)
        return torch.cat([one, five, three, self.conv(self.average(x), f"{n}.branch_pool")], 1)

    def b(self, x, n):
        three = self.conv(x, f"{n}.branch3x3", 2)
        double = self.conv(self.conv(x, f"{n}.branch3x3dbl_1"), f"{n}.branch3x3dbl_2", 1, 1)
        return torch.cat([three, self.conv(double, f"{n}.branch3x3dbl_3", 2), F.max_pool2d(x, 3, 2)], 1)

    def c(self, x, n):
        row, column = (0, 3), (3, 0)
        one = self.conv(x, f"{n}.branch1x1")
        y = self.conv(x, f"{n}.branch7x7_1")
        y = self.conv(self.conv(y, f"{n}.branch7x7_2", 1, row), f"{n}.branch7x7_3", 1, column)
        z = self.conv(x, f"{n}.branch7x7dbl_1")
        for index, padding in enumerate((column, row, column, row), 2):
            z = self.conv(z, f"{n}.branch7x7dbl_{index}", 1, padding)
        return torch.cat([one, y, z, self.conv(self.average(x), f"{n}.branch_pool")], 1)

    def d(self, x, n):
        three = self.conv(self.conv(x, f"{n}.branch3x3_1"), f"{n}.branch3x3_2", 2)
        y = self.conv(self.conv(x, f"{n}.branch7x7x3_1"), f"{n}.branch7x7x3_2", 1, (0, 3))
        y = self.conv(self.conv(y, f"{n}.branch7x7x3_3", 1, (3, 0)), f"{n}.branch7x7x3_4", 2)
        return torch.cat([three, y, F.max_pool2d(x, 3, 2)], 1)

    def e(self, x, n, pooled):
        one = self.conv(x, f"{n}.branch1x1")
        y = self.conv(x, f"{n}.branch3x3_1")
        y = [self.conv(y, f"{n}.branch3x3_2a", 1, (0, 1)), self.conv(y, f"{n}.branch3x3_2b", 1, (1, 0))]
        z = self.conv(self.conv(x, f"{n}.branch3x3dbl_1"), f"{n}.branch3x3dbl_2", 1, 1)
        z = [self.conv(z, f"{n}.branch3x3dbl_3a", 1, (0, 1)), self.conv(z, f"{n}.branch3x3dbl_3b", 1, (1, 0))]
        return torch.cat([one, *y, *z, self.conv(pooled, f"{n}.branch_pool")], 1)

    def __call__(self, x):
        x = self.conv(self.conv(x, "Conv2d_1a_3x3", 2), "Conv2d_2a_3x3")
        x = F.max_pool2d(self.conv(x, "Conv2d_2b_3x3", 1, 1), 3, 2)
        x = F.max_pool2d(self.conv(self.conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
        assert x.shape[1:] == (192, 35, 35)
        for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = self.a(x, name)
        x = self.b(x, "Mixed_6a")
        for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            x = self.c(x, name)
        x = self.d(x, "Mixed_7a")
        x = self.e(x, "Mixed_7b", self.average(x))
        x = self.e(x, "Mixed_7c", F.max_pool2d(x, 3, 1, 1))
        assert x.shape[1:] == (2048, 8, 8)
        return x.mean((2, 3))


def test_inception_equals_the_network_written_out(inception):
    torch.manual_seed(1)
    images = torch.rand(1, 3, 299, 299)
    features = inception(images)
    expected = SlowInception(inception.state_dict())(images * 2 - 1)
    assert expected.std() > 0.1
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


def test_inception_resizes_bilinearly_without_antialiasing(inception):
    images = torch.rand(1, 3, 598, 299)
    # the centre of each new row lies on the border between two rows
    halved = (images[:, :, ::2] + images[:, :, 1::2]) / 2
    torch.testing.assert_close(inception(images), inception(halved), rtol=1e-4, atol=1e-4)


def test_features_of_pictures_of_several_sizes_in_batches(inception):
    generator = torch.Generator().manual_seed(0)
    sizes = [(40, 60), (40, 60), (30, 30), (40, 60)]
    images = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in sizes]
    features = inception_features(iter(images), inception, batch=3)
    single = [inception(image.permute(2, 0, 1)[None].float() / 255) for image in images]
    torch.testing.assert_close(features, torch.cat(single), rtol=1e-3, atol=1e-4)
    assert inception_features([], inception).shape == (0, 2048)


def test_inception_loads_a_file_in_the_published_layout(inception, tmp_path, monkeypatch):
    """With its classifier, and without the counters of batches that older files lack."""
    state = {key: value for key, value in inception.state_dict().items() if "num_batches" not in key}
    state |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    assert len(state) == 472
    torch.save(state, tmp_path / "copy.pth")
    file = weights.WeightFile("published.pth", "https://example.org/published.pth", "", smaller=("copy.pth",))
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    monkeypatch.setattr(weights, "INCEPTION", file)
    loaded = Inception.pretrained()
    assert not loaded.training
    assert all(torch.equal(value, inception.state_dict()[key]) for key, value in loaded.state_dict().items())
