"""A run's folder: what is in it already."""

from pathlib import Path

import pytest

from difix3d.errors import UserError
from difix3d.training import Trainer


@pytest.mark.parametrize("name", ["point_cloud.ply", "config.yaml", "scene.json", "report.html"])
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


def test_a_model_of_others_is_not_replaced(tmp_path: Path):
    from difix3d.difix_training.config import TrainDifixConfig
    from difix3d.difix_training.folder import check_folder

    (tmp_path / "difix").mkdir()
    with pytest.raises(UserError, match="difix is there already"):
        check_folder(TrainDifixConfig(output_dir=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["difix"]
