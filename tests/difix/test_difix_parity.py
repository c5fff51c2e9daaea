"""Number for number the published implementation, whose outputs on a tiny model are recorded."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from difix3d.difix import DifixPipeline
from difix3d.difix.architecture import random_difix

TOLERANCE = 2e-5


@pytest.fixture(scope="module", params=["folder", "checkpoint"])
def pipe(request, golden):
    if request.param == "folder":
        return DifixPipeline.from_pretrained(golden / "tiny_difix_ref", trust_remote_code=True)
    return DifixPipeline.from_pretrained(golden / "tiny_model_1001.pkl", base=golden / "tiny_sd_turbo")


@pytest.mark.parametrize("reference", ["noref", "ref", "odd_ref"])
@pytest.mark.parametrize("latent", ["mode", "sample_seed0"])
def test_recorded_cases(pipe, golden, reference, latent):
    prefix = "odd_" if reference.startswith("odd") else ""
    image = Image.open(golden / "cases" / f"{prefix}input.png")
    ref_image = None if reference == "noref" else Image.open(golden / "cases" / f"{prefix}reference.png")
    output = pipe(
        "remove degradation",
        image=image,
        ref_image=ref_image,
        num_inference_steps=1,
        timesteps=[199],
        guidance_scale=0.0,
        generator=torch.Generator().manual_seed(0) if latent == "sample_seed0" else None,
        output_type="np",
        resize="published",
    ).images[0]
    expected = np.load(golden / "cases" / "expected.npz")[f"{reference}_{latent}"]
    assert output.shape == expected.shape
    assert np.abs(output - expected).max() < TOLERANCE


def test_the_calls_of_the_published_readme(pipe, golden):
    image, ref_image = (Image.open(golden / "cases" / f"{name}.png") for name in ("odd_input", "odd_reference"))
    prompt = "remove degradation"
    without = pipe(prompt, image=image, num_inference_steps=1, timesteps=[199], guidance_scale=0.0).images[0]
    with_ref = pipe(
        prompt, image=image, ref_image=ref_image, num_inference_steps=1, timesteps=[199], guidance_scale=0.0
    ).images[0]
    assert without.size == with_ref.size == image.size  # padded by default, not shrunk
    assert without.tobytes() != with_ref.tobytes()


def test_folder_and_checkpoint_are_the_same_model(golden, recorded):
    checkpoint = DifixPipeline.from_pretrained(golden / "tiny_model_1001.pkl", base=golden / "tiny_sd_turbo")
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(recorded, part).state_dict(), getattr(checkpoint, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_full_size_keys_and_shapes(golden):
    expected = json.loads((golden / "full_size_keys.json").read_text())
    pipe = random_difix(tiny=False, device="meta")
    for part in ("unet", "vae"):
        shapes = {key: list(value.shape) for key, value in getattr(pipe, part).state_dict().items()}
        assert shapes == expected[part]
    wrapped = {key.split(".base_layer.")[0] for key in expected["vae"] if ".base_layer." in key}
    assert wrapped == set(expected["vae_lora_target_modules"])
