"""The folder of a training of Difix: what is in it already, and what a run goes on with."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small_training import small_training

from difix3d.difix_training.config import DifixOptimConfig
from difix3d.difix_training.folder import begun_folder
from difix3d.difix_training.trainer import DifixTrainer
from difix3d.errors import UserError
from difix3d.images import write_image
from difix3d.runfiles import lock


def write_pairs(folder, train, test):
    folder.mkdir(exist_ok=True)
    content = {"train": {}, "test": {}}
    for split, names in (("train", train), ("test", test)):
        for name in names:
            for kind in ("bad", "good"):
                write_image(folder / f"{kind}_{name}.png", np.full((32, 32, 3), ord(name) / 255))
            entry = {"image": f"bad_{name}.png", "target_image": f"good_{name}.png"}
            content[split][name] = entry
    (folder / "pairs.json").write_text(json.dumps(content))
    return folder / "pairs.json"


@pytest.fixture
def config(tmp_path):
    data = write_pairs(tmp_path / "pairs", "ab", "c")
    return small_training(data, tmp_path / "run", references=0, steps=1, optim=DifixOptimConfig(warmup=1))


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "eval"])
def test_files_of_others_are_not_overwritten(config, name):
    config.output_dir.mkdir()
    (config.output_dir / name).write_text("seed: 3\n")
    with pytest.raises(UserError, match=f"run holds a {name} that is of no training of Difix.*Choose another"):
        DifixTrainer(config)
    assert files(config.output_dir) == {config.output_dir / name: b"seed: 3\n"}


def test_what_was_broken_off_before_its_first_checkpoint_is_begun_again(config):
    with begun_folder(config):
        pass
    (config.output_dir / "metrics.json").write_text("[")  # damaged: moved aside
    DifixTrainer(config).train()


def test_a_training_that_fails_gives_its_folder_back(config, monkeypatch):
    trainer = DifixTrainer(config)
    monkeypatch.setattr(trainer, "step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) as kept:  # the traceback holds on to what is not released
        trainer.train()
    lock(config.output_dir).release()
    (config.output_dir / "config.yaml").unlink()
    (config.output_dir / "config.yaml").mkdir()
    with pytest.raises(UserError) as kept_too:
        trainer.train()
    lock(config.output_dir).release()
    assert kept
    assert kept_too


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 4}, r"--seed is 4 now and was 0"),
        ({"resolution": (32, 40)}, r"--resolution is 32 40 now and was 32 32"),
        ({"lora_rank": 8}, r"--lora-rank is 8 now and was 4"),
        ({"optim": DifixOptimConfig(lr=1e-3, warmup=1)}, r"--optim.lr is 0.001 now and was 2e-05"),
        ({"flip": False, "refix_prob": 0.5}, r"--flip is False now and was True; --refix-prob is 0.5 now and was 0.0"),
        ({"accumulate": 2}, r"2 pairs make a step now and 1 then"),
    ],
)
def test_a_run_goes_on_only_as_it_was_configured(config, changes, message):
    DifixTrainer(config).train()
    before = files(config.output_dir)
    with pytest.raises(UserError, match=message):
        DifixTrainer(replace(config, resume=True, steps=2, **changes))
    assert files(config.output_dir) == before


def test_what_does_not_change_the_result_may_change(config, tmp_path):
    DifixTrainer(replace(config, batch_size=2)).train()
    moved = config.output_dir.rename(tmp_path / "moved")
    (tmp_path / "pairs").rename(tmp_path / "moved_pairs")
    config = replace(config, output_dir=moved, data=tmp_path / "moved_pairs" / "pairs.json", resume=True, steps=2)
    DifixTrainer(replace(config, accumulate=2, workers=2, save_every=1, checkpointing=True, save_as="fp16")).train()


@pytest.mark.parametrize(("train", "test"), [("abd", "c"), ("ac", "b"), ("ba", "c"), ("ab", "d")])
def test_a_run_goes_on_only_with_its_pairs(config, tmp_path, train, test):
    DifixTrainer(config).train()
    before = files(config.output_dir)
    other = write_pairs(tmp_path / "other", train, test)
    with pytest.raises(UserError, match=r"other pairs than .*step_0000001.*(train|test): \d now, \d then.*--data"):
        DifixTrainer(replace(config, data=other, resume=True, steps=2))
    assert files(config.output_dir) == before


def test_pairs_of_equal_names_from_another_curation_are_others(config, tmp_path):
    DifixTrainer(config).train()
    other = write_pairs(tmp_path / "other", "ab", "c")
    write_image(other.parent / "bad_a.png", np.random.default_rng(0).random((32, 32, 3)))
    with pytest.raises(UserError, match="other pairs than"):
        DifixTrainer(replace(config, data=other, resume=True, steps=2))


def test_there_must_be_a_run_to_go_on_with(config):
    with pytest.raises(UserError, match=r"no run in .*config.yaml is missing"):
        DifixTrainer(replace(config, resume=True))
