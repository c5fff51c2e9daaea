"""The fast path against its readable twin."""

import subprocess
import sys

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch.utils.flop_counter import FlopCounterMode

from difix3d.difix import PROMPT, DifixPipeline
from difix3d.difix import fast as fast_step
from difix3d.difix import pipeline as pipeline_module
from difix3d.difix.architecture import random_difix
from difix3d.difix.fast import predict_noise, prepare
from difix3d.difix.lean import make_lean
from difix3d.difix.references import ReferenceCache
from difix3d.difix.resnet import LeanResnetBlock
from difix3d.difix.step import denoise
from difix3d.errors import UserError


@pytest.fixture(scope="module")
def fast(golden):
    return DifixPipeline.from_pretrained(golden / "tiny_difix_ref").optimize()


@pytest.mark.parametrize("views", [0, 1, 3])
def test_same_images_as_the_plain_path(golden, pictures, views):
    plain, fast = (DifixPipeline.from_pretrained(golden / "tiny_difix_ref").to(torch.float64) for _ in range(2))
    fast.optimize()
    images = pictures.smooth(2, 3, 37, 50).double()
    refs = pictures.smooth(2, views, 3, 37, 50, seed=1).double() if views else None
    for _ in range(2):  # the second time with cached latents
        torch.testing.assert_close(fast.fix(images, refs), plain.fix(images, refs), atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def exact_fast():
    return random_difix(dtype=torch.float64).optimize()


@pytest.mark.parametrize("views", [0, 1, 2])
@pytest.mark.parametrize("size", [(32, 40), (37, 90), (64, 64)])  # the UNet halves odd sizes too
def test_nothing_that_is_left_out_was_needed(exact, exact_fast, pictures, views, size):
    images = pictures.smooth(2, 3, *size).double()
    refs = pictures.smooth(2, views, 3, *size, seed=1).double() if views else None
    expected = exact.fix(images, refs)
    for _ in range(2):  # the second time with all that is kept of references
        torch.testing.assert_close(exact_fast.fix(images, refs), expected, atol=1e-6, rtol=0)


def test_what_is_left_out_by_count(exact, exact_fast):
    latents, prompt = torch.randn(1, 2, 4, 8, 8).double(), exact.embed(PROMPT)[None].double()
    kept = [part[:, None] for part in prepare(exact_fast.unet, latents[:, 1], 199)]

    def count(function, *arguments):
        with FlopCounterMode(display=False) as counter:
            function(*arguments)
        return counter.get_total_flops()

    before = count(denoise, exact.unet, latents, prompt, 199, 0.5)
    assert count(predict_noise, exact_fast.unet, latents[:, 0], kept, 199) < 0.92 * before
    frozen = [part[:, None] for part in prepare(exact_fast.unet, latents[:, 1], 199, True)]
    alone = count(denoise, exact.unet, latents[:, :1], prompt, 199, 0.5)
    assert count(predict_noise, exact_fast.unet, latents[:, 0], frozen, 199, True) < 1.1 * alone


def test_references_are_prepared_once(exact_fast, pictures, monkeypatch):
    prepared = []
    begin = fast_step._begin
    monkeypatch.setattr(fast_step, "_begin", lambda *args: (prepared.append(len(args[1])), begin(*args))[1])
    exact_fast.prepared.calls.clear()
    images, refs = pictures.smooth(1, 3, 32, 40), pictures.smooth(3, 1, 3, 32, 40, seed=1)
    for number, expected in ((0, [1, 1]), (1, [1, 1]), (0, [1]), (1, [1]), (2, [1, 1]), (0, [1, 1])):
        prepared.clear()
        exact_fast.fix(images, refs[number, None])
        assert prepared == expected  # the reference if it is not one of the last two, and the image
    prepared.clear()
    exact_fast.fix(images, refs[0, None], timestep=150)
    assert prepared == [1, 1]


def test_frozen_references_do_not_look_at_the_image(exact, pictures):
    frozen = random_difix(dtype=torch.float64).optimize(frozen_references=True)
    image, refs = pictures.smooth(1, 3, 32, 48).double(), pictures.smooth(1, 2, 3, 32, 48, seed=1).double()
    torch.testing.assert_close(frozen.fix(image), exact.fix(image), atol=1e-6, rtol=0)
    torch.testing.assert_close(frozen.fix(image, image[None]), exact.fix(image), atol=1e-6, rtol=0)  # knows it already
    torch.testing.assert_close(frozen.fix(image, refs), frozen.fix(image, refs.flip(1)), atol=1e-6, rtol=0)
    assert (frozen.fix(image, refs) - exact.fix(image)).abs().max() > 1e-4
    assert (frozen.fix(image, refs) - exact.fix(image, refs)).abs().max() > 1e-6


def test_a_unet_of_another_build_goes_diffusers_way(monkeypatch, exact, pictures):
    other = random_difix(dtype=torch.float64)
    monkeypatch.setitem(pipeline_module.__dict__, "is_usual", lambda unet: False)
    other.optimize()
    images, refs = pictures.smooth(1, 3, 37, 50), pictures.smooth(1, 1, 3, 37, 50, seed=1)
    torch.testing.assert_close(other.fix(images, refs), exact.fix(images, refs), atol=1e-6, rtol=0)


@pytest.mark.parametrize("channels", [32, 64])
def test_lean_blocks_against_diffusers(channels):
    block = ResnetBlock2D(in_channels=32, out_channels=channels, temb_channels=16).eval()
    x, temb = torch.randn(2, 32, 9, 7), torch.randn(1, 16)
    with torch.no_grad():
        expected, before = block(x, temb), x.clone()
        make_lean(block)
        assert type(block) is LeanResnetBlock
        torch.testing.assert_close(block(x, temb), expected, atol=1e-5, rtol=0)
    assert torch.equal(x, before)
    scaled = ResnetBlock2D(in_channels=32, temb_channels=16, time_embedding_norm="scale_shift")
    make_lean(scaled)
    assert type(scaled) is ResnetBlock2D


def test_the_text_encoder_is_released(fast, tmp_path, pictures):
    assert fast.text_encoder is None
    assert fast.tokenizer is None
    with pytest.raises(UserError, match="text encoder was released"):
        fast.fix(pictures.smooth(1, 3, 32, 40), prompt="a photo")
    with pytest.raises(UserError, match=r"before optimize\(\)"):
        fast.save_pretrained(tmp_path)


def test_weights_are_fused_and_channels_last(fast):
    assert not any("lora" in key for key in fast.vae.state_dict())
    assert fast.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert fast.vae.decoder.conv_out.weight.is_contiguous(memory_format=torch.channels_last)


def test_references_are_encoded_once(fast, pictures, monkeypatch):
    fast.reference_cache = ReferenceCache()
    encoded = []
    encode = fast.vae.encode_with_skips
    monkeypatch.setattr(fast.vae, "encode_with_skips", lambda x: (encoded.append(len(x)), encode(x))[1])
    images, refs = pictures.smooth(2, 3, 32, 40), pictures.smooth(2, 2, 3, 32, 40, seed=1)
    fast.fix(images, refs)
    assert encoded == [1, 1, 1, 1, 2]
    fast.fix(images, refs.clone())  # found by their pixels
    assert encoded == [1, 1, 1, 1, 2, 2]
    refs[0, 0, 0, 0, 0] = 1 - refs[0, 0, 0, 0, 0]  # changed in place: not found
    fast.fix(images, refs)
    assert encoded == [1, 1, 1, 1, 2, 2, 1, 2]


def test_latents_in_place_of_references(fast, recorded, pictures):
    images, refs = pictures.smooth(2, 3, 37, 50), pictures.smooth(2, 2, 3, 37, 50, seed=1)
    for pipe in (fast, recorded):
        latents = pipe.encode_references(refs)
        assert latents.shape == (2, 2, 4, 5, 7)
        torch.testing.assert_close(pipe.fix(images, latents), recorded.fix(images, refs), atol=1e-4, rtol=0)


def test_the_cache_forgets_the_oldest():
    cache, calls = ReferenceCache(size=2), []

    def encode(pixels):
        calls.append(float(pixels.mean()))
        return pixels[:, :, :, ::8, ::8]

    views = torch.arange(3.0).view(1, 3, 1, 1, 1).expand(1, 3, 3, 8, 8)
    for i in (0, 1, 2, 0, 0):
        cache(views[:, i : i + 1], encode)
    assert calls == [0, 1, 2, 0]


def test_sampling_still_works(fast, recorded, pictures):
    images, refs = pictures.smooth(1, 3, 32, 40), pictures.smooth(1, 1, 3, 32, 40, seed=1)
    ours, expected = (p.fix(images, refs, generator=torch.Generator().manual_seed(0)) for p in (fast, recorded))
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


COMPILED = """
import torch
from difix3d.difix.architecture import random_difix
torch.set_num_threads(1)
plain, fast = random_difix(dtype=torch.float64), random_difix(dtype=torch.float64)
fast.optimize(compile=True, backend="eager", fullgraph=True)
images, refs = torch.rand(1, 3, 32, 40), torch.rand(1, 1, 3, 32, 40)
error = (fast.fix(images, refs) - plain.fix(images, refs)).abs().max()
assert error < 1e-4, error
print("one graph")
"""


@pytest.mark.slow
def test_the_step_compiles_to_one_graph():
    """In a process of its own, because the tests' type checks are not part of what is compiled."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert "one graph" in done.stdout, done.stderr[-3000:]


def test_options_reach_torch_compile(monkeypatch, golden):
    seen = {}
    monkeypatch.setattr(torch, "compile", lambda function, **options: seen.update(options) or function)
    DifixPipeline.from_pretrained(golden / "tiny_difix_ref").optimize()
    assert seen == {}  # the CPU runs the readable twin
    DifixPipeline.from_pretrained(golden / "tiny_difix_ref").optimize(compile=True)
    assert seen == {"dynamic": False, "mode": "reduce-overhead"}


@pytest.mark.gpu
@pytest.mark.speed
def test_cuda_compiles():
    """As above: dynamo would trace the tests' type checks as well."""
    script = COMPILED.replace("dtype=torch.float64", "device='cuda'").replace('backend="eager", fullgraph=True', "")
    script = script.replace("compile=True", "dtype=torch.float32, compile=True").replace("1e-4", "2e-2")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "one graph" in done.stdout, done.stderr[-3000:]


@pytest.mark.gpu
@pytest.mark.slow
def test_cuda(recorded, golden, pictures):
    fast = DifixPipeline.from_pretrained(golden / "tiny_difix_ref").to("cuda").optimize(torch.float32, compile=False)
    for size in ((37, 50), (64, 64), (37, 50)):
        images, refs = pictures.smooth(1, 3, *size), pictures.smooth(1, 1, 3, *size, seed=1)
        for references in (None, refs):
            kept = fast.fix(images.cuda(), references if references is None else references.cuda())
            fast.fix(1 - images.cuda())  # must not write into what was returned
            torch.testing.assert_close(kept.cpu(), recorded.fix(images, references), atol=2e-2, rtol=0)
