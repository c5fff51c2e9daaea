"""A run's folder: what is in it already."""

from dataclasses import replace
from pathlib import Path

import pytest
from small_run import write_run

from difix3d.cli.train import read
from difix3d.errors import UserError
from difix3d.training import Trainer
from difix3d.training.configfile import read_yaml
from difix3d.training.load import load_run


@pytest.mark.parametrize("name", ["point_cloud.ply", "config.yaml", "scene.json", "report.html", "eval"])
def test_files_of_others_are_not_overwritten(config, toy_scene, name):
    config.output_dir.mkdir()
    (config.output_dir / name).write_text("{}")
    with pytest.raises(UserError, match=f"run holds a {name} that is of no run.*Choose another --output-dir"):
        Trainer(config, toy_scene)
    assert (config.output_dir / name).read_text() == "{}"
    assert [path.name for path in config.output_dir.iterdir()] == [name]


def test_what_was_broken_off_before_its_first_checkpoint_is_begun_again(config, toy_scene):
    for _ in range(2):
        Trainer(config, toy_scene).begin()


def test_a_folder_has_one_writer(config, toy_scene):
    first = Trainer(config, toy_scene)
    first.begin()
    with pytest.raises(UserError, match="is being written by another training.*A run has one writer"):
        Trainer(config, toy_scene).begin()
    first.train()
    resumed = Trainer(replace(config, resume=True, max_steps=config.max_steps + 1), toy_scene)
    resumed.train()


def test_runs_begun_in_the_same_second_have_folders_of_their_own(config, toy_scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = replace(config, output_dir=None)
    assert len({Trainer(config, toy_scene).folder.path for _ in range(3)}) == 3


def test_damaged_state_is_noticed(config, toy_scene, caplog):
    """Settings cut short are not filled up with defaults; a damaged checkpoint or list of scores ends nothing."""
    config = replace(config, max_steps=6, save_steps=(3,))
    Trainer(config, toy_scene).train()
    run, resume = config.output_dir, replace(config, resume=True, max_steps=8)
    newest = run / "checkpoints" / "step_0000006.safetensors"
    content = bytearray(newest.read_bytes())
    content[-3] ^= 4
    newest.write_bytes(content)
    (run / "metrics.json").write_text("")
    trainer = Trainer(resume, toy_scene)
    assert trainer.first == 3
    trainer.train()
    assert "step_0000006.safetensors is damaged (its checksum is wrong); that of step 3 is taken" in caplog.text
    assert "It is kept as metrics.damaged.json" in caplog.text
    assert [row["step"] for row in trainer.folder.rows("metrics.json")] == [8]

    text = (run / "config.yaml").read_text()
    for size in (0, len(text) // 2, len(text) - 5):
        (run / "config.yaml").write_text(text[:size])
        with pytest.raises(UserError, match="config.yaml (was cut short|cannot be read as YAML)"):
            read_yaml(run / "config.yaml")
    (run / "config.yaml").write_text(text.replace("max_steps: 8", "max_steps: 9"))
    assert read_yaml(run / "config.yaml")["max_steps"] == 9
    assert "config.yaml was changed after it was written; its settings are taken as they are" in caplog.text


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_damaged_scene_file_is_said_and_written_anew(config, toy_scene, caplog, damage):
    config = replace(config, max_steps=2)
    Trainer(config, toy_scene).train()
    path = config.output_dir / "scene.json"
    whole = path.read_text()
    path.write_text(whole.replace("toy", "tny")) if damage == "flipped" else path.unlink()
    Trainer(replace(config, resume=True), toy_scene).begin()
    assert f"{path} is not as it was written, or missing: it is written anew" in caplog.text
    assert path.read_text() == whole


@pytest.mark.parametrize("name", ["scene.json", "checksums.json", "point_cloud.ply", "step_0000004.safetensors"])
def test_a_folder_in_place_of_a_file(config, toy_scene, name):
    """Resumes refuse it before the first step, and say what helps."""
    config = replace(config, max_steps=4, save_steps=(2,))
    Trainer(config, toy_scene).train()
    path = config.output_dir / ("checkpoints" if name.startswith("step") else "") / name
    path.unlink()
    path.mkdir()
    steps = []
    trainer = Trainer(replace(config, resume=True, max_steps=5), toy_scene, [steps.append])
    with pytest.raises(UserError, match=f"{name}.*folder.*Move it away"):
        trainer.train()
    assert not steps
    path.rmdir()
    Trainer(replace(config, resume=True, max_steps=5), toy_scene).train()


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_settings_cut_short_without_a_checksum(tmp_path, toy_scene, share):
    """Nothing is filled up with defaults: a resolution of 120 would become 640."""
    run = write_run(tmp_path, toy_scene, resolution=48)
    path = run / "config.yaml"
    text = path.read_text()
    (run / "checksums.json").unlink()
    for cut in (text[: int(share * len(text))], text[: text.rindex("complete")]):
        path.write_text(cut)
        with pytest.raises(UserError, match=r"config\.yaml (was cut short|cannot be read as YAML)"):
            load_run(run)
        with pytest.raises(UserError, match=r"config\.yaml (was cut short|cannot be read as YAML)"):
            read(["--resume", "--output-dir", str(run)])
    path.write_text("\n".join(text.splitlines()[1:-1]))  # as older versions wrote it
    assert load_run(run).config.resolution == 48


def test_a_model_of_others_is_not_replaced(tmp_path: Path):
    from difix3d.difix_training.config import TrainDifixConfig
    from difix3d.difix_training.folder import check_folder

    (tmp_path / "difix").mkdir()
    with pytest.raises(UserError, match="difix is there already"):
        check_folder(TrainDifixConfig(output_dir=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["difix"]
