"""Group normalisation in Triton against torch's own, and the blocks that call it against diffusers'."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from difix3d.difix.architecture import random_difix

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # numpy's, in the interpreter


def channels_last(*shape, seed=0, mean=0.0):
    """Random, with that layout whatever the number of axes."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + mean
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


@pytest.mark.parametrize("shape", [(1, 64, 9, 11), (2, 320, 5, 7), (1, 96, 70), (2, 10, 3, 3), (1, 8, 90, 91)], ids=str)
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
def test_it_is_torchs(device, shape, silu, shifted):
    from difix3d.gpu.group_norm import group_norm

    channels, groups = shape[1], 32 if shape[1] % 32 == 0 else 2
    x = channels_last(*shape, mean=50.0).to(device)  # a mean far from 0 cancels where squares are summed
    weight, bias, shift = channels_last(3, channels).to(device)
    found = group_norm(x, groups, weight, bias, 1e-6, silu=silu, shift=shift if shifted else None)
    there = x.double() + (shift.double().view(1, -1, *[1] * (len(shape) - 2)) if shifted else 0)
    expected = F.group_norm(there, groups, weight.double(), bias.double(), 1e-6)
    expected = F.silu(expected) if silu else expected
    torch.testing.assert_close(found.double(), expected, atol=5e-5, rtol=1e-5)
    assert found.stride() == x.stride()


def test_channels_first_are_taken_as_well(device):
    from difix3d.gpu.group_norm import add_, group_norm

    x, weight, bias = torch.randn(2, 64, 5, 6).to(device), torch.ones(64).to(device), torch.zeros(64).to(device)
    found = group_norm(x, 32, weight, bias, 1e-6)
    torch.testing.assert_close(found, F.group_norm(x, 32, weight, bias, 1e-6), atol=1e-5, rtol=1e-5)
    for layout in (torch.channels_last, torch.contiguous_format):
        sum_ = add_(found.clone(memory_format=layout), x, weight)
        torch.testing.assert_close(sum_, found + x + 1, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("time", [False, True])
def test_a_residual_block(device, shortcut, time):
    from diffusers.models.resnet import ResnetBlock2D

    from difix3d.difix.lean import make_lean

    torch.manual_seed(0)
    options = {"in_channels": 64, "out_channels": 96 if shortcut else 64, "temb_channels": 32 if time else None}
    block = nn.Sequential(ResnetBlock2D(**options)).to(device).requires_grad_(False)
    for norm in (block[0].norm1, block[0].norm2):
        nn.init.normal_(norm.bias)
    x, temb = channels_last(2, 64, 7, 6).to(device), torch.randn(1, 32).to(device) if time else None
    expected = block[0](x, temb)
    make_lean(block)
    torch.testing.assert_close(block[0](x, temb), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("references", [0, 1])
def test_the_whole_of_difix(device, references):
    if device.type == "cpu":
        pytest.skip("takes minutes in the interpreter")
    torch.manual_seed(0)
    images = torch.rand(1, 3, 32, 40, device=device)
    photos = torch.rand(1, references, 3, 32, 40, device=device) if references else None
    pipe = random_difix(device=device)
    expected = pipe.fix(images, photos)
    pipe.optimize(torch.float32)
    for _ in range(3):  # on a GPU the third time replays what the second recorded
        torch.testing.assert_close(pipe.fix(images, photos), expected, atol=1e-3, rtol=0)
