"""Training a network of 32 channels on eight noisy pictures of 32 x 32 pixels."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from shared_data import SHARED, require
from small_training import SMALL, small_training

from difix3d.difix import DifixPipeline
from difix3d.difix_training.config import DifixLossConfig, DifixOptimConfig
from difix3d.difix_training.dataset import centre
from difix3d.difix_training.start import DifixStep, mini_difix, start_pipeline
from difix3d.difix_training.trainer import DifixTrainer
from difix3d.errors import UserError
from difix3d.images import read_image, write_image


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Ramps of one colour each, under noise; two for tests."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    content = {"train": {}, "test": {}}
    for i in range(8):
        good = np.linspace(0, 1, 36)[:, None, None] * rng.random(3) * np.ones((36, 40, 3))
        write_image(folder / f"good{i}.png", good)
        write_image(folder / f"bad{i}.png", (good + rng.normal(0, 0.1, good.shape)).clip(0, 1))
        entry = {"image": f"bad{i}.png", "target_image": f"good{i}.png", "ref_image": f"good{i}.png"}
        content["test" if i > 5 else "train"][f"pair{i}"] = entry
    (folder / "pairs.json").write_text(json.dumps(content))
    return folder / "pairs.json"


@pytest.fixture
def config(pairs, tmp_path):
    return small_training(pairs, tmp_path / "run", steps=4, batch_size=2, optim=DifixOptimConfig(lr=1e-3, warmup=1))


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.trained.items()}


def test_a_network_that_blends_starts_from_the_render_and_learns_from_warped_references(pairs, config):
    """The layer of a pair is its photo, in the upper half: there the fixed image becomes it."""
    content = json.loads(pairs.read_text())
    for entries in content.values():
        for entry in entries.values():
            photo = read_image(pairs.parent / entry["target_image"])
            layer = np.concatenate([photo, np.full((*photo.shape[:2], 1), 255, np.uint8)], 2)
            layer[18:] = 0
            entry["alpha_image"] = "alpha.png"
            entry["warp_image"] = [entry["target_image"].replace("good", "layer")]
            write_image(pairs.parent / entry["warp_image"][0], layer)
    write_image(pairs.parent / "alpha.png", np.ones((36, 40, 1)))
    data = pairs.parent / "layered.json"
    data.write_text(json.dumps(content))
    mini = replace(SMALL, layers=1, latent=8)
    trainer = DifixTrainer(replace(config, data=data, mini=mini, references=0, shuffle_channels=True, steps=60))
    batch = trainer.batches().__next__()
    before = trainer.fix(batch)
    assert (before - batch.images[:, :3]).abs().mean() < 0.15
    trainer.train()
    batch = centre(trainer.pairs["test"][0], (32, 32), references=0, layers=1)
    error = (trainer.fix(batch) - batch.photos).abs().mean((0, 1))
    was = (batch.images[:, :3] - batch.photos).abs().mean((0, 1))
    seen = batch.images[0, 7] == 1
    assert error[seen].mean() < 0.6 * was[seen].mean()
    assert DifixPipeline.from_pretrained(config.output_dir / "difix").vae.foreground
    assert start_pipeline(replace(config, fixer="mini")).vae.foreground


def equal(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_resumed_at_its_end_the_card_keeps_its_scores(config):
    config = replace(config, steps=2, eval_every=2)
    DifixTrainer(config).train()
    card = config.output_dir / "difix" / "README.md"
    text = card.read_text()
    card.unlink()
    DifixTrainer(replace(config, resume=True)).train()
    assert card.read_text() == text
    assert "PSNR (dB)" in text
    (config.output_dir / "metrics.json").unlink()  # as if it was killed while it was evaluated
    DifixTrainer(replace(config, resume=True)).train()
    assert card.read_text() == text


def test_sigterm_saves_and_the_evaluation_is_made_up_for(config):
    config = replace(config, eval_every=3)
    trainer, step = DifixTrainer(config), DifixTrainer.step

    def terminated(batches, number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer, batches, number)

    trainer.step = terminated
    trainer.train()
    assert trainer.interrupted == signal.SIGTERM
    assert not (config.output_dir / "metrics.json").exists()
    resumed = DifixTrainer(replace(config, resume=True))
    assert resumed.first == 3
    resumed.train()
    assert [row["step"] for row in json.loads((config.output_dir / "metrics.json").read_text())] == [3, 4]


def test_resumed_training_is_equal_to_the_bit(config, tmp_path):
    config = replace(config, optim=replace(config.optim, ema=0.9), color_jitter=0.2, identity_prob=0.2, refix_prob=0.5)
    whole = DifixTrainer(config)
    whole.train()
    broken = replace(config, output_dir=tmp_path / "broken", steps=2)
    DifixTrainer(broken).train()
    with pytest.raises(UserError, match=r"holds a run already.*--resume"):
        DifixTrainer(broken)
    resumed = DifixTrainer(replace(broken, steps=4, resume=True))
    assert resumed.first == 2
    resumed.train()
    assert equal(whole.state(), resumed.state())
    settings = (broken.output_dir / "config.yaml").read_text()
    with pytest.raises(UserError, match=r"is at step 4 already"):
        DifixTrainer(replace(broken, resume=True))
    assert (broken.output_dir / "config.yaml").read_text() == settings  # what is refused changes nothing
    with pytest.raises(UserError, match=r"--optim.ema is 0.0 now and was 0.9"):
        DifixTrainer(replace(config, resume=True, optim=replace(config.optim, ema=0.0)))
    kept = whole.ema.shadow_params[0]
    saved = DifixPipeline.from_pretrained(config.output_dir / "difix")
    name = next(iter(whole.trained))
    assert torch.equal(dict(DifixStep(saved).named_parameters())[name], kept)  # the average is what is saved
    assert not torch.equal(whole.trained[name], kept)


def test_accumulated_batches_equal_one_large_batch(config, tmp_path):
    large = DifixTrainer(replace(config, batch_size=4, checkpointing=True))
    small = DifixTrainer(replace(config, batch_size=2, accumulate=2, output_dir=tmp_path / "small"))
    before = weights(large)
    for trainer in (large, small):
        trainer.config = replace(trainer.config, steps=1)
    batches = [next(large.batches())], list(small.batches())
    losses = [trainer.step(own, 0) for trainer, own in zip((large, small), batches, strict=True)]
    assert losses[0]["l2"] == pytest.approx(losses[1]["l2"], rel=1e-5)
    for name, p in large.trained.items():
        a, b = (
            large.optimizer.state[large.trained[name]]["exp_avg"],
            small.optimizer.state[small.trained[name]]["exp_avg"],
        )
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
        assert p.shape == before[name].shape
    assert not equal(before, weights(large))


def test_some_steps_start_from_what_was_fixed_before(config, tmp_path):
    again, plain = (
        DifixTrainer(replace(config, refix_prob=share, output_dir=tmp_path / f"{share}")) for share in (1.0, 0.0)
    )
    batch = next(plain.batches())
    assert equal(again.state(), plain.state())
    fixed = replace(batch, images=plain.fix(batch))
    assert again.step([batch], 0) == plain.step([fixed], 0)
    assert equal(again.state(), plain.state())


@pytest.mark.real
def test_it_learns_validates_and_shows(config, monkeypatch):
    monkeypatch.setenv("DIFIX3D_WEIGHTS", str(require(SHARED / "weights")))
    config = replace(
        config,
        steps=6,
        batch_size=1,
        tracker="tensorboard",
        eval_every=3,
        eval_pictures=1,
        loss=DifixLossConfig(gram_start=3),
    )
    DifixTrainer(config).train()
    rows = json.loads((config.output_dir / "metrics.json").read_text())
    assert [row["step"] for row in rows] == [3, 6]
    assert {"psnr_before", "psnr_after", "lpips_before", "lpips_after"} <= rows[0].keys()
    assert rows[1]["lpips_after"] < rows[0]["lpips_after"]
    assert [score["id"] for score in rows[0]["pairs"]] == ["pair6", "pair7"]
    pictures = list((config.output_dir / "eval" / "step_000006").iterdir())
    assert [path.name for path in pictures] == ["pair6.png"]
    assert read_image(pictures[0]).shape == (32, 4 * 32 + 3 * 4, 3)  # render | fixed | photo | reference
    assert list((config.output_dir / "tensorboard").glob("events.out.tfevents*"))
    card = (config.output_dir / "difix" / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "6 pairs; 6 steps" in card
    assert f"{rows[1]['psnr_after']:.2f}" in card


def test_mini_folder_loads_without_a_text_encoder(config, tmp_path):
    pipe = DifixTrainer(replace(config, steps=1)).train()
    loaded = DifixPipeline.from_pretrained(config.output_dir / "difix")
    assert loaded.text_encoder is None
    images = torch.rand(1, 3, 40, 48)
    torch.testing.assert_close(loaded.fix(images, images[None]), pipe.fix(images, images[None]), rtol=0, atol=1e-5)
    again = start_pipeline(replace(config, fixer=str(config.output_dir / "difix")))
    assert equal(again.unet.state_dict(), pipe.unet.state_dict())


def test_starts_from_sd_turbo_and_trains_only_what_it_should(shared, config):
    pipe = start_pipeline(replace(config, fixer=str(shared / "golden" / "tiny_sd_turbo")))
    names = DifixStep(pipe).trained().keys()
    assert all(name.startswith("unet.") or "vae_skip" in name or "skip_conv" in name for name in names)
    assert not any(name.startswith("vae.encoder") for name in names)
    assert sum(name.startswith("unet.") for name in names) == len(list(pipe.unet.parameters()))
    assert any("lora_A.vae_skip" in name for name in names)
    assert float(pipe.vae.decoder.skip_conv_1.base_layer.weight.detach().mean()) == pytest.approx(1e-5)
    published = start_pipeline(replace(config, fixer=str(shared / "golden" / "tiny_difix_ref")))
    assert DifixStep(published).trained().keys() == names
    everything = DifixStep(mini_difix(SMALL))
    assert len(everything.trained()) == len(list(everything.parameters()))


def test_frozen_weights_stay(shared, config):
    trainer = DifixTrainer(
        replace(config, fixer=str(shared / "golden" / "tiny_difix_ref"), steps=1, checkpointing=True)
    )
    frozen = {name: p.clone() for name, p in trainer.step_module.named_parameters() if name not in trainer.trained}
    before = weights(trainer)
    trainer.step([next(trainer.batches())], 0)
    after = dict(trainer.step_module.named_parameters())
    assert all(torch.equal(frozen[name], after[name]) for name in frozen)
    assert any(name.startswith("vae.encoder") for name in frozen)
    assert all(not torch.equal(before[name], after[name]) for name in before if "skip_conv" in name and "base" in name)


def test_plain_backgrounds_are_for_networks_that_see_coverage(config):
    with pytest.raises(UserError, match=r"--plain-prob is 0.25.*Only small networks with layers"):
        DifixTrainer(replace(config, plain_prob=0.25))


def test_a_loss_that_is_no_number_ends_the_run(config):
    trainer = DifixTrainer(config)
    with torch.no_grad():
        trainer.pipe.vae.decoder.conv_out.bias.fill_(torch.nan)
    with pytest.raises(UserError, match=r"loss became .*nan.* at step 1.*--optim.lr"):
        trainer.train()


def test_bad_pairs_are_left_out_and_counted(config, pairs, tmp_path, capsys):
    content = json.loads(pairs.read_text())
    content = {
        split: {name: {key: str(pairs.parent / path) for key, path in entry.items()} for name, entry in entries.items()}
        for split, entries in content.items()
    }
    content["train"]["gone"] = {**content["train"]["pair0"], "image": "gone.png"}
    (tmp_path / "pairs.json").write_text(json.dumps(content))
    config = replace(config, data=tmp_path / "pairs.json", steps=1)
    with pytest.raises(UserError, match=r"Pair gone: .*gone.png does not exist"):
        DifixTrainer(config)
    DifixTrainer(replace(config, skip_bad=True)).train()
    assert "left out: Pair gone" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_have_the_loss_of_one_with_twice_the_batch(config, tmp_path):
    """As ``torchrun`` starts them, and ``accelerate launch`` on GPUs."""
    script = Path(__file__).with_name("train_with_losses.py")
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    alone = [sys.executable, script, config.data, tmp_path / "alone", "4"]
    subprocess.run(alone, env=environment, check=True, timeout=200)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port]
    subprocess.run([*launch, script, config.data, tmp_path / "both", "2"], env=environment, check=True, timeout=200)
    one, two = (json.loads((tmp_path / name / "losses.json").read_text()) for name in ("alone", "both"))
    assert one["processes"] == 1
    assert two["processes"] == 2
    np.testing.assert_allclose(one["losses"], two["losses"], rtol=1e-5)
    assert one["losses"][0] != one["losses"][-1]
