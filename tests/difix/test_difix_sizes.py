"""Images of any size: padding, tiles, references of another size."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from difix3d.difix import sizes
from difix3d.difix.sizes import OVERLAP, _spread, fit, in_tiles, pad, usual_tile


@pytest.mark.parametrize("size", [(64, 96), (70, 101), (37, 8), (9, 15)])
def test_pad_reflects(size):
    x = torch.rand(2, 3, *size)
    height, width = (-(-side // 8) * 8 for side in size)
    padded = pad(x)
    assert torch.equal(padded, F.pad(x, (0, width - size[1], 0, height - size[0]), mode="reflect"))


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 11)])
def test_pad_reflects_again_where_an_image_is_narrower_than_its_padding(size):
    padded = pad(torch.rand(1, 3, *size))
    assert padded.shape[-2:] == (8, -(-size[1] // 8) * 8)
    assert padded.unique().numel() <= 3 * size[0] * size[1]


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (32, 32), (24, 200), (37, 50), (64, 96)])
def test_any_size_comes_back(tiny, size):
    images = torch.rand(1, 3, *size)
    assert tiny.fix(images).shape == tiny.fix(images, images[:, None]).shape == images.shape


def test_padding_is_the_only_change(tiny):
    images = torch.rand(1, 3, 37, 50)
    torch.testing.assert_close(tiny.fix(images), tiny.fix(pad(images))[..., :37, :50], atol=1e-5, rtol=0)


def test_fit_keeps_the_aspect():
    ramp = torch.linspace(0, 1, 200).expand(3, 100, 200)
    out = fit(ramp, 50, 50)  # the centre half of the width
    torch.testing.assert_close(out[0, 25], torch.linspace(0.25, 0.75, 50), atol=5e-3, rtol=0)
    assert fit(ramp, 100, 200) is ramp


def test_tiles_of_a_pointwise_function_are_seamless():
    images, refs = torch.rand(2, 3, 600, 840), torch.rand(2, 1, 3, 600, 840)
    tiled = in_tiles(lambda image, ref: image * 0.5 + ref[:, 0] * 0.5, images, refs, tile=256)
    torch.testing.assert_close(tiled, images * 0.5 + refs[:, 0] * 0.5)


def test_tiles_are_no_larger_than_asked_and_overlap():
    seen, shares = set(), torch.zeros(1, 3, 600, 840)

    def fix(image, _):
        seen.add(tuple(image.shape[-2:]))
        return torch.ones_like(image)

    in_tiles(fix, shares, None, tile=256)
    assert seen == {(248, 248)}  # four rows and six columns, of the least side that covers


@pytest.mark.parametrize("tile", [136, 256, 512, 2048])
def test_tiles_cover_any_size_and_share_about_128_pixels(tile):
    for size in range(8, 5000, 8):
        starts, side = _spread(size, tile)
        assert side <= tile
        assert (starts[0], starts[-1] + side) == (0, size)
        shared = {first + side - second for first, second in pairwise(starts)}
        assert all(OVERLAP - 8 <= count < OVERLAP + 16 for count in shared)


def test_a_cpu_takes_smaller_tiles(tiny, monkeypatch):
    monkeypatch.setitem(sizes.TILES, "cpu", 136)
    images = torch.rand(1, 3, 40, 200)
    assert torch.equal(tiny.fix(images), tiny.fix(images, tile=136))
    assert not torch.equal(tiny.fix(images), tiny.fix(images, tile=2048))
    assert usual_tile(torch.device("cuda")) == 2048


def test_tiles_that_disagree_blend_linearly():
    """The worst case: neighbours that differ by 1 everywhere. Across a seam the step is one part of the overlap."""
    count = iter(range(100))
    tiled = in_tiles(
        lambda image, _: torch.full_like(image, next(count) % 2), torch.zeros(1, 3, 64, 640), None, tile=256
    )
    steps = (tiled[..., 1:] - tiled[..., :-1]).abs().max()
    assert steps <= 1.1 / (OVERLAP - 8)
    assert tiled.max() == 1
    assert tiled.min() == 0


def test_seams_of_the_model(tiny, pictures):
    """Where tiles begin, end and overlap, blending adds less than 0.01 to the steps that the tiles have themselves."""
    images, refs = pictures.smooth(1, 3, 64, 640), pictures.smooth(1, 1, 3, 64, 640, seed=1)
    tiles = []

    def fix(image, ref):
        tiles.append(tiny.fix(image, ref))
        return tiles[-1]

    tiled = in_tiles(fix, images, refs, tile=256)
    own = torch.zeros(639)  # the largest step of any tile from each column to the next
    for start, tile in zip((0, 128, 256, 384), tiles, strict=True):
        inside = own[start : start + 255]
        torch.maximum(inside, steps(tile), out=inside)
    assert (steps(tiled) - own).max() < 0.01


def steps(images: torch.Tensor) -> torch.Tensor:
    """The largest difference between each column and the next."""
    return (images[..., 1:] - images[..., :-1]).abs().amax((0, 1, 2))


def test_tiles_take_latents_of_references(tiny, pictures):
    images, refs = pictures.smooth(1, 3, 64, 640), pictures.smooth(1, 1, 3, 64, 640, seed=1)
    latents = tiny.encode_references(refs)
    ours = tiny.fix(images, latents, tile=256)
    assert (ours - tiny.fix(images, refs, tile=256)).abs().mean() < 0.02
