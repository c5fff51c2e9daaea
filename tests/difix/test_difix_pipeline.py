"""The pipeline as users of diffusers expect it."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from difix3d.devices import half
from difix3d.difix import DifixPipeline, load_difix
from difix3d.difix.sizes import fit
from difix3d.difix.step import decode, denoise, encode
from difix3d.errors import UserError


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32) / 255


def test_pil_numpy_and_torch_in_and_out(tiny, pictures):
    image, ref = pictures.photo(50, 37), pictures.photo(50, 37, seed=1)
    as_torch = [torch.from_numpy(array(x)).permute(2, 0, 1) for x in (image, ref)]
    expected = tiny.fix(as_torch[0][None], as_torch[1][None, None])
    assert expected.shape == (1, 3, 37, 50)
    kinds = [(image, ref), (array(image), array(ref)), (np.asarray(image), np.asarray(ref)), as_torch]
    for kind in kinds:
        fixed = tiny(image=kind[0], ref_image=kind[1], output_type="pt").images
        torch.testing.assert_close(fixed, expected, atol=1e-5, rtol=0)
    as_np = tiny(image=image, ref_image=ref, output_type="np", return_dict=False)[0]
    np.testing.assert_allclose(as_np, expected.permute(0, 2, 3, 1).numpy(), atol=1e-5, rtol=0)
    pil = tiny(image=image, ref_image=ref).images
    np.testing.assert_allclose(np.asarray(pil[0]), as_np[0] * 255, atol=0.51, rtol=0)


def test_a_list_is_fixed_as_each_image_alone(exact, pictures):
    images = [pictures.photo(50, 37), pictures.photo(40, 24, seed=1), pictures.photo(50, 37, seed=2)]
    refs = [pictures.photo(50, 37, seed=3), [pictures.photo(40, 24, seed=4), pictures.photo(40, 24, seed=5)], None]
    together = exact(image=images, ref_image=refs, output_type="np").images
    for image, ref, ours in zip(images, refs, together, strict=True):
        alone = exact(image=image, ref_image=ref, output_type="np").images[0]
        assert ours.shape == (image.height, image.width, 3)
        assert np.abs(ours - alone).max() < 1e-6


def test_a_batch_with_its_own_references(exact, pictures):
    images, refs = pictures.smooth(2, 3, 32, 40), pictures.smooth(2, 2, 3, 32, 40, seed=1)
    together = exact.fix(images, refs)
    for i in range(2):
        alone = exact.fix(images[i : i + 1], refs[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-6, rtol=0)
    assert not torch.allclose(together[:1], exact.fix(images[:1], refs[1:]), atol=1e-3)  # references matter
    torch.testing.assert_close(
        exact(image=images, ref_image=refs, output_type="pt").images, together, atol=1e-6, rtol=0
    )


def test_sampling_draws_the_image_first_then_its_references(exact, pictures):
    images, refs = pictures.smooth(2, 3, 32, 40), pictures.smooth(2, 2, 3, 32, 40, seed=1)
    sampled = exact.fix(images, refs, generator=torch.Generator().manual_seed(3))
    z = torch.randn(
        2, 3, 4, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )  # drawn at once, (b v)
    with torch.no_grad():
        posterior, _ = exact.vae.encode_with_skips(torch.cat([images[:, None], refs], 1).double().flatten(0, 1) * 2 - 1)
        latents = (posterior.mean + posterior.std * z.flatten(0, 1)).unflatten(0, (2, 3)) * 0.18215
        text = exact.embed("remove degradation").expand(2, -1, -1).double()
        abar = float(exact.scheduler.alphas_cumprod[199])
        skips = encode(exact.vae, images[:, None].double())[1]
        expected = decode(exact.vae, denoise(exact.unet, latents, text, 199, abar), skips).float().clamp(0, 1)
    torch.testing.assert_close(sampled, expected, atol=1e-6, rtol=0)
    assert torch.equal(sampled, exact.fix(images, refs, generator=torch.Generator().manual_seed(3)))
    assert not torch.allclose(sampled, exact.fix(images, refs), atol=1e-4)


def test_one_generator_for_each_image(tiny, pictures):
    images = [pictures.photo(40, 32, seed=i) for i in range(2)]
    seeds = [torch.Generator().manual_seed(i) for i in range(2)]
    together = tiny(image=images, generator=seeds, output_type="np").images
    alone = tiny(image=images[1], generator=torch.Generator().manual_seed(1), output_type="np").images
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5, rtol=0)


def test_the_closed_form_is_the_schedulers_step(tiny):
    z, text = torch.randn(1, 1, 4, 4, 5), torch.randn(1, 77, 32)
    tiny.scheduler.set_timesteps(timesteps=[199])
    with torch.no_grad():
        noise = tiny.unet(z[:, 0], 199, text).sample
        expected = tiny.scheduler.step(noise, 199, z[:, 0]).pred_original_sample
        ours = denoise(tiny.unet, z, text, 199, float(tiny.scheduler.alphas_cumprod[199]))
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(("dtype", "mean"), [(torch.bfloat16, 0.02), (torch.float16, 0.003)])
def test_half_precision(golden, recorded, pictures, dtype, mean):
    images = pictures.smooth(1, 3, 32, 40)
    fixed = load_difix(golden / "tiny_difix_ref", device="cpu", dtype=dtype).fix(images)
    assert fixed.dtype == torch.float32
    assert (fixed - recorded.fix(images)).abs().mean() < mean


def test_another_prompt_another_image(recorded, pictures):
    image = pictures.photo(40, 32)
    first, second = recorded(["a photo", "remove degradation"], image=[image, image], output_type="pt").images
    assert torch.allclose(second, recorded(image=image, output_type="pt").images[0], atol=1e-4)
    assert not torch.equal(first, second)


def test_model_cpu_offload_moves_each_part_when_it_is_used(golden, pictures):
    pipe = DifixPipeline.from_pretrained(golden / "tiny_difix_ref")
    image, ref = pictures.photo(40, 32), pictures.photo(40, 32, seed=1)
    expected = pipe(image=image, ref_image=ref, output_type="np").images
    pipe.enable_model_cpu_offload(device="cpu")  # the accelerator's place is taken by the CPU
    moved = []
    for name in ("text_encoder", "unet", "vae"):
        hook = getattr(pipe, name)._hf_hook
        before = hook.pre_forward
        hook.pre_forward = lambda *a, name=name, before=before, **k: (moved.append(name), before(*a, **k))[1]
    np.testing.assert_allclose(pipe(image=image, ref_image=ref, output_type="np").images, expected, atol=1e-5, rtol=0)
    assert {"text_encoder", "unet", "vae"} <= set(moved)


def test_published_resize_shrinks_to_multiples_of_8(tiny, pictures):
    image = pictures.photo(50, 37)
    small = image.resize((48, 32), Image.Resampling.LANCZOS)
    shrunk, expected = (
        np.asarray(fixed.images[0]) for fixed in (tiny(image=image, resize="published"), tiny(image=small))
    )
    np.testing.assert_allclose(shrunk.astype(int), expected, atol=1)  # a rounding may fall on either side


def test_references_of_another_size_cover_the_image(tiny, pictures):
    image, ref = pictures.smooth(3, 32, 48), pictures.smooth(3, 64, 100, seed=1)
    fitted = fit(ref, 32, 48)
    ours, expected = (tiny(image=image, ref_image=r, output_type="pt").images for r in (ref, fitted))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


BLANK = np.zeros((48, 48, 3), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"image": BLANK, "num_inference_steps": 4}, "single step"),
        ({"image": BLANK, "timesteps": [199, 99]}, "single step"),
        ({"image": BLANK, "guidance_scale": 7.5}, "guidance"),
        ({"image": BLANK, "timesteps": [1000]}, "0..999"),
        ({"image": BLANK, "resize": "crop"}, "'pad' or 'published'"),
        ({"image": BLANK, "output_type": "jpeg"}, "'pil', 'np' or 'pt'"),
        ({"image": BLANK, "tile": 100}, "multiple of 8 above 128"),
        ({"image": BLANK[..., 0]}, "no image"),
        ({"image": "render.png"}, "no image"),
        ({"image": BLANK.astype(np.float32) + 255}, "0..1"),
        ({"image": [BLANK] * 2, "ref_image": [BLANK] * 3}, "2 images and 3 references"),
        ({"image": [BLANK] * 2, "prompt": ["a"] * 3}, "2 images and 3 prompts"),
        ({"image": BLANK, "prompt": "a photo"}, "text encoder was released"),
    ],
)
def test_wrong_arguments(tiny, arguments, words):
    with pytest.raises(UserError, match=words):
        tiny(**arguments)


def test_wrong_reference_shapes(tiny):
    images = torch.zeros(2, 3, 16, 16)
    for shape in ((2, 1, 3, 16, 24), (2, 1, 4, 16, 16), (2, 1, 5, 16, 16)):
        with pytest.raises(UserError, match="References are"):
            tiny.fix(images, torch.zeros(shape))


def test_several_references_of_a_single_image(exact, pictures):
    image, refs = pictures.smooth(3, 32, 40), pictures.smooth(2, 3, 32, 40, seed=1)
    expected = exact.fix(image[None], refs[None])
    for form in (refs, list(refs), [list(refs)], [refs[0], None, refs[1]]):
        torch.testing.assert_close(exact(image=image, ref_image=form, output_type="pt").images, expected)
    bare = exact(image=[image], ref_image=[None], output_type="pt").images
    torch.testing.assert_close(bare, exact.fix(image[None]))


def test_importing_the_package_does_not_import_diffusers():
    code = "import sys, difix3d; sys.exit('diffusers' in sys.modules or 'difix3d.difix' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_gpu_of_each_age(monkeypatch):
    for capability, dtype in (((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, capability=capability: capability)
        assert half(torch.device("cuda")) == dtype
