"""The VAE's skips and LoRA."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from difix3d.difix.architecture import TINY_VAE, random_difix
from difix3d.difix.vae import SKIP_INIT, DifixVAE, as_transposed


def test_without_skip_weights_it_is_the_plain_vae():
    vae = DifixVAE.build(TINY_VAE, lora_rank=0)
    for i in range(1, 5):
        torch.nn.init.zeros_(vae.decoder.get_submodule(f"skip_conv_{i}").weight)
    pixels = torch.rand(1, 3, 32, 48) * 2 - 1
    posterior, skips = vae.encode_with_skips(pixels)
    expected = vae.encode(pixels).latent_dist
    assert torch.equal(posterior.mean, expected.mean)
    assert torch.equal(vae.decode_with_skips(posterior.mean, skips), vae.decode(expected.mean).sample)


def test_skips_enter_at_the_up_blocks_scaled_by_their_convolutions():
    vae = DifixVAE.build(TINY_VAE, lora_rank=0)
    z = torch.randn(1, 4, 4, 6)
    _, skips = vae.encode_with_skips(torch.rand(1, 3, 32, 48))
    seen = {}
    for i, block in enumerate(vae.decoder.up_blocks):
        block.register_forward_pre_hook(lambda _, args, i=i: seen.setdefault(i, []).append(args[0]))
    vae.decode(z)
    vae.decode_with_skips(z, skips)
    plain, skipped = seen[0]
    expected = plain + SKIP_INIT * skips[0].sum(1, keepdim=True)  # a convolution whose weights are all equal
    torch.testing.assert_close(skipped, expected)


def test_fusing_keeps_the_output_and_drops_the_layers():
    vae = DifixVAE.build(TINY_VAE, lora_rank=3)
    for name, parameter in vae.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    pixels = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        before = vae.decode_with_skips(torch.ones(1, 4, 4, 6), vae.encode_with_skips(pixels)[1])
        vae.fuse()
        after = vae.decode_with_skips(torch.ones(1, 4, 4, 6), vae.encode_with_skips(pixels)[1])
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert not any("lora" in key or "base_layer" in key for key in vae.state_dict())


def test_checkpointed_blocks_have_the_same_gradients():
    vae = DifixVAE.build(TINY_VAE)
    pixels = torch.rand(1, 3, 32, 48)

    def gradients() -> list[torch.Tensor]:
        posterior, skips = vae.encode_with_skips(pixels)
        loss = vae.decode_with_skips(posterior.mean, skips).square().mean()
        return torch.autograd.grad(loss, [p for p in vae.parameters() if p.requires_grad])

    plain = gradients()
    vae.enable_gradient_checkpointing()
    for ours, expected in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(ours, expected)
    assert plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_doubling_and_convolution_are_one_transposed_convolution(bias, dtype):
    conv = torch.nn.Conv2d(5, 7, 3, padding=1, bias=bias, dtype=dtype)
    image = torch.randn(2, 5, 6, 9, dtype=dtype)
    expected = conv(torch.nn.functional.interpolate(image, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(as_transposed(conv)(image), expected, atol=1e-5, rtol=0)


def test_merged_doublings_give_the_same_pictures_with_fewer_operations():
    vae = random_difix(lora_rank=0).vae
    latents = torch.randn(1, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    skips = vae.encode_with_skips(torch.rand(1, 3, 48, 80))[1]

    def decoded():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            return vae.decode_with_skips(latents, skips), counter.get_total_flops()

    before, work = decoded()
    vae.merge_doublings()
    after, less = decoded()
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
    assert less < 0.95 * work
    vae.merge_doublings()  # once is enough
    torch.testing.assert_close(decoded()[0], after)
