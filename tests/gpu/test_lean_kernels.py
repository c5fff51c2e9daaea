"""What Triton does to tokens against torch's own, and lean layers against diffusers' own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # numpy's, in the interpreter


@pytest.fixture
def products(device, monkeypatch):
    """Products of matrices in 16 bits with a result in fp32, which torch has on GPUs alone."""
    if device.type == "cpu":
        bmm = torch.bmm
        monkeypatch.setattr(torch, "bmm", lambda a, b, out_dtype=None: bmm(a.to(out_dtype or a), b.to(out_dtype or b)))


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(2, 7, 320), (3, 96), (1, 5, 1280), (1, 1, 10)], ids=str)
def test_layer_norm(device, shape):
    from difix3d.gpu.tokens import layer_norm

    x = (random(*shape) * 3 + 20).to(device)
    weight, bias = random(2, shape[-1], seed=1).to(device)
    found = layer_norm(x, weight, bias, 1e-5)
    expected = F.layer_norm(x.double(), shape[-1:], weight.double(), bias.double(), 1e-5)
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=1e-5)
    turned = layer_norm(x.transpose(0, -2), weight, bias, 1e-5)  # in another order in memory
    torch.testing.assert_close(turned, found.transpose(0, -2), atol=0, rtol=0)


@pytest.mark.parametrize("shape", [(2, 7, 96), (1, 1, 2), (3, 2, 2060)], ids=str)
def test_geglu(device, shape):
    from difix3d.gpu.tokens import geglu

    x = (random(*shape) * 3).to(device)
    value, gate = x.double().chunk(2, -1)
    torch.testing.assert_close(geglu(x).double(), value * F.gelu(gate), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("width", [1, 5, 1024, 1500])
def test_softmax(device, width):
    from difix3d.gpu.tokens import softmax

    logits = (random(2, 3, width) * 5 + 300).to(device)
    expected = (logits.double() / 4).softmax(-1)
    torch.testing.assert_close(softmax(logits, 0.25, torch.float32).double(), expected, atol=1e-5, rtol=1e-4)
    assert softmax(logits, 0.25, torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("at_once", [2**24, 300, 7])
def test_wide_attention(device, monkeypatch, at_once):
    from difix3d.gpu import tokens

    monkeypatch.setattr(tokens, "LOGITS", at_once)
    monkeypatch.setattr(tokens, "MIXES_TYPES", True)
    query, key, value = (random(2, 21, 320, seed=i).to(device, torch.bfloat16) for i in range(3))
    assert tokens.takes_wide(key)
    expected = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    torch.testing.assert_close(tokens.attend_wide(query, key, value).double(), expected, atol=2e-2, rtol=2e-2)
    for other in (key.float(), key[..., :256], key.expand(2, -1, -1)[:, :1].expand(-1, tokens.MOST_KEYS + 1, -1)):
        assert not tokens.takes_wide(other)


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize(("channels", "dtype", "near"), [(64, torch.float32, 1e-5), (320, torch.bfloat16, 5e-2)])
def test_the_attention_in_the_middle_of_a_vae(device, monkeypatch, channels, dtype, near):
    from diffusers.models.attention_processor import Attention

    from difix3d.difix.lean import LeanAttnProcessor, make_lean
    from difix3d.gpu import tokens

    monkeypatch.setattr(tokens, "MIXES_TYPES", True)
    torch.manual_seed(0)
    options = {"residual_connection": True, "bias": True, "upcast_softmax": True, "norm_num_groups": 32}
    block = nn.Sequential(Attention(channels, heads=1, dim_head=channels, eps=1e-6, **options)).requires_grad_(False)
    x = random(2, channels, 5, 6).contiguous(memory_format=torch.channels_last)
    expected = block(x)
    make_lean(block.to(device, dtype))
    assert isinstance(block[0].processor, LeanAttnProcessor)
    torch.testing.assert_close(block(x.to(device, dtype)).cpu().float(), expected, atol=near, rtol=near)


def test_a_transformer_block(device):
    from diffusers.models.attention import BasicTransformerBlock

    from difix3d.difix.lean import LeanGEGLU, LeanLayerNorm, make_lean

    torch.manual_seed(0)
    block = BasicTransformerBlock(64, 2, 32, cross_attention_dim=48).to(device).requires_grad_(False)
    nn.init.normal_(block.norm1.bias)
    x, prompt = random(2, 9, 64).to(device), random(2, 3, 48, seed=1).to(device)
    expected = block(x, encoder_hidden_states=prompt)
    make_lean(block)
    assert {type(part) for part in block.modules()} >= {LeanGEGLU, LeanLayerNorm}
    torch.testing.assert_close(block(x, encoder_hidden_states=prompt), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_convolutions(device, bias):
    from difix3d.difix.lean import make_lean

    torch.manual_seed(0)
    down = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=bias)
    up = nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1, bias=bias)
    both = nn.Sequential(down, up).to(device).requires_grad_(False)
    x = random(2, 8, 10, 12).to(device).contiguous(memory_format=torch.channels_last)
    expected = both(x)
    make_lean(both)
    assert [type(part).__name__ for part in both] == ["LeanConv2d", "LeanConvTranspose2d"]
    torch.testing.assert_close(both(x), expected, atol=1e-5, rtol=1e-5)


def test_a_doubling_is_one_convolution_where_it_is_exact(device):
    from diffusers.models.upsampling import Upsample2D

    from difix3d.difix.lean import make_lean

    torch.manual_seed(0)
    block = nn.Sequential(Upsample2D(16, use_conv=True)).to(device).requires_grad_(False)
    x = random(2, 16, 5, 6).to(device).contiguous(memory_format=torch.channels_last)
    expected = [block[0](x, size) for size in (None, (10, 12), (9, 11))]
    make_lean(block)
    assert type(block[0]).__name__ == "LeanUpsample2D"
    for size, there in zip((None, (10, 12), (9, 11)), expected, strict=True):
        torch.testing.assert_close(block[0](x, size), there, atol=1e-5, rtol=1e-5)
