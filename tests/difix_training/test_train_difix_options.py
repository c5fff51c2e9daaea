"""What ``train_difix`` can be told, on its command line and by the recipe of the small network."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import difix3d
from difix3d.cli.arguments import from_command_line
from difix3d.cli.curate import CurateConfig
from difix3d.cli.train_difix import parse
from difix3d.difix_training.config import DifixLossConfig, DifixOptimConfig, MiniConfig, TrainDifixConfig
from difix3d.difix_training.start import accelerator, start_pipeline
from difix3d.difix_training.trainer import learning_rate
from difix3d.difix_training.validate import evenly
from difix3d.errors import UserError
from difix3d.limits import check_limits

RECIPES = Path(__file__).parents[2] / "configs" / "difix"


def test_command_line(tmp_path):
    (tmp_path / "config.yaml").write_text("steps: 7\noptim: {lr: 1e-4}\nmini: {unet_widths: [32, 32, 64, 64]}\n")
    config = parse(["--config", str(tmp_path / "config.yaml"), "--optim.warmup", "3", "--resolution", "64", "96"])
    assert (config.steps, config.optim.lr, config.optim.warmup) == (7, 1e-4, 3)
    assert config.mini.unet_widths == (32, 32, 64, 64)
    assert config.resolution == (64, 96)
    resumed = parse(["--resume", "--output-dir", str(tmp_path)])
    assert resumed.resume
    assert resumed.steps == 7
    with pytest.raises(UserError, match=r"There is no run in"):
        parse(["--resume", "--output-dir", str(tmp_path / "none")])
    (tmp_path / "config.yaml").write_text("optim: {rate: 1}\n")
    with pytest.raises(UserError, match=r"optim.rate, which does not exist"):
        parse(["--config", str(tmp_path / "config.yaml")])


def test_a_run_in_the_default_folder_goes_on_as_it_was_configured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TrainDifixConfig.output_dir.mkdir(parents=True)
    (TrainDifixConfig.output_dir / "config.yaml").write_text("seed: 7\n")
    assert parse(["--resume"]).seed == 7
    assert parse([]).seed == 0


def test_the_name_that_the_start_had(tmp_path, capsys):
    assert parse(["--init", "scratch"]).fixer == "scratch"
    assert "--init is called --fixer now" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("init: some/weights\n")
    assert parse(["--resume", "--output-dir", str(tmp_path)]).fixer == "some/weights"


def test_the_names_that_augmentations_had(tmp_path, capsys):
    options = ["--zoom", "1.5", "--permute", "--jitter", "0.3", "--right", "0.1", "--again=0.2"]
    config = parse(options)
    assert (config.max_scale, config.shuffle_channels, config.color_jitter) == (1.5, True, 0.3)
    assert (config.identity_prob, config.refix_prob) == (0.1, 0.2)
    assert "--right is called --identity-prob now" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("permute: true\nzoom: 1.5\n")
    config = parse(["--resume", "--output-dir", str(tmp_path)])
    assert (config.max_scale, config.shuffle_channels) == (1.5, True)
    assert not parse(["--resume", "--output-dir", str(tmp_path), "--no-permute"]).shuffle_channels


def test_cuda_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        accelerator(TrainDifixConfig(device="cuda"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": (60, 64)}, r"--resolution is 60 64.*multiples of 8 each"),
        ({"max_scale": 0.5}, r"--max-scale is 0.5"),
        ({"identity_prob": 1.5}, r"--identity-prob is 1.5.*0 to 1"),
        ({"color_jitter": -0.1}, r"--color-jitter is -0.1"),
        ({"steps": 0}, r"steps is 0"),
        ({"loss": DifixLossConfig(perceptual_every=2)}, r"perceptual-every is 2.*in a batch, 1"),
        (
            {"mini": MiniConfig(vae_widths=(4, 8, 8, 8))},
            r"four multiples of the 8 groups",
        ),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        check_limits(TrainDifixConfig(**options))


def test_the_recipe_of_the_small_network(tmp_path):
    """Every command of ``mini.sh`` is understood; the network it trains is as small as promised."""
    said = tmp_path / "said"
    (tmp_path / "python").write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {said}\n')
    (tmp_path / "python").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", RECIPES / "mini.sh", "F", "P", "O"], env=environment, cwd=RECIPES.parents[1], check=True)
    curated: list[CurateConfig] = []
    rounds: list[list[str]] = []
    for script, *options in map(str.split, said.read_text().splitlines()):
        if script == "scripts/curate.py":
            curated.append(from_command_line(CurateConfig, "curate", options))
        else:
            rounds.append(options)
    card = "`synthetic:1000` to `1029`, without 1013, which is held out, and 1028"
    assert card in (Path(difix3d.__file__).parent / "difix" / "mini" / "README.md").read_text()
    assert curated[0].scenes == tuple(f"synthetic:{seed}" for seed in range(1000, 1030) if seed != 1028)
    assert curated[1].test_scenes == ("synthetic-1013",)
    folders = [Path("P/plain"), Path("P/plain"), Path("P/today"), Path("P/today")]
    assert [config.output_dir for config in curated] == folders
    assert [config.recipe.plain for config in curated] == [True, True, False, False]
    assert {config.recipe.warps for config in curated} == {2}
    configs = [parse(options) for options in rounds]
    assert [config.data.parent for config in configs] == [folders[0]] * 2 + [folders[2]] * 4
    assert [config.fixer for config in configs[1:]] == [f"{config.output_dir}/difix" for config in configs[:-1]]
    pipe = start_pipeline(configs[0])
    assert (pipe.vae.guide, pipe.vae.layers) == (9, 2)
    halves = sum(p.numel() * 2 for model in (pipe.unet, pipe.vae) for p in model.parameters())
    assert halves < 20e6


def test_learning_rate():
    flat = DifixOptimConfig(lr=1.0, warmup=4)
    assert [learning_rate(step, 100, flat) for step in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1, 1, 1]
    falling = replace(flat, warmup=0, schedule="cosine")
    assert learning_rate(50, 100, falling) == pytest.approx(0.5)
    assert learning_rate(99, 100, falling) < 1e-3
    assert evenly(list(range(10)), 3) == [0, 3, 6]
    assert evenly([1], 3) == [1]
