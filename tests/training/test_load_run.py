"""A run is what it was in training, or an error says why it cannot be."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from small_run import write_run

from difix3d.errors import UserError
from difix3d.gaussians import read_splats, transform
from difix3d.images import read_image, to_uint8
from difix3d.metrics import psnr
from difix3d.render import rasterize
from difix3d.training.load import as_exported, load_run
from difix3d.training.run import RunFolder


@pytest.fixture
def run(tmp_path, toy_scene):
    return write_run(tmp_path, toy_scene)


def test_the_newest_checkpoint_or_that_of_a_step(run, toy_scene):
    loaded = load_run(run, device="cpu")
    assert (loaded.step, len(loaded.gaussians)) == (10, 300)
    assert [photo.name for photo in loaded.scene.photos] == [photo.name for photo in toy_scene.photos]
    assert loaded.config.output_dir == run
    half = load_run(run, step=5)
    assert (half.step, len(half.gaussians)) == (5, 150)


def test_renders_show_the_photos(run):
    """The run's world is another than that of the scene's files: model and cameras have to meet in it."""
    loaded = load_run(run)
    photo = torch.from_numpy(read_image(loaded.scene.photos[4].path))
    assert psnr(torch.from_numpy(to_uint8(loaded.render(loaded.scene.cameras[4]).rgb[0])), photo) > 40


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"background": "white"}, {"background": torch.ones(3)}),
        ({"background": "random"}, {}),
        ({"antialiased": True}, {"antialiased": True}),
    ],
    ids=str,
)
def test_renders_are_those_of_the_training(tmp_path, toy_scene, changes, options):
    loaded = load_run(write_run(tmp_path, toy_scene, **changes))
    cameras = loaded.scene.cameras[3:5]
    expected = rasterize(loaded.gaussians, cameras, near=loaded.near, **options)
    out = loaded.render(cameras)
    assert torch.equal(out.rgb, expected.rgb)
    assert out.depth is not None
    assert loaded.render(cameras, depth=False).depth is None
    assert (loaded.render(cameras, background=torch.tensor([1.0, 0, 0])).rgb[..., 0] >= out.rgb[..., 0] - 1e-5).all()


def test_folders_that_are_no_run(run, tmp_path):
    with pytest.raises(UserError, match=r"no run in .*none: no such folder.*the folder that training wrote"):
        load_run(tmp_path / "none")
    with pytest.raises(UserError, match=r"no run in .*scene: it has no config\.yaml"):
        load_run(tmp_path / "scene")
    (run / "scene.json").unlink()
    with pytest.raises(UserError, match=r"scene\.json does not exist"):
        load_run(run)
    (run / "scene.json").write_text("{}")
    with pytest.raises(UserError, match=r"scene\.json has no .*near.*another version"):
        load_run(run)


def test_checkpoints_that_are_not_there(run):
    with pytest.raises(UserError, match="no checkpoint of step 7.*There are step_0000005, step_0000010.*leave out"):
        load_run(run, step=7)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="There is no checkpoint in .*checkpoints.*--resume --output-dir"):
        load_run(run)


def test_a_scene_that_moved(run, tmp_path):
    (tmp_path / "scene").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"The scene of .*run cannot be loaded: There is no scene.*--scene FOLDER"):
        load_run(run)
    assert load_run(run, scene=str(tmp_path / "moved")).scene.name == "moved"
    assert load_run(run, scene="moved", data_dir=tmp_path).config.data_dir == tmp_path


@pytest.mark.parametrize(
    ("scene", "place"), [("photos", "photos"), ("photos", "data/photos"), ("synthetic:3", "data/synthetic-3")]
)
def test_a_run_is_found_whole_from_another_folder(tmp_path, toy_scene, monkeypatch, scene, place):
    """Paths in its settings are relative to where it began: nothing may be asked for, or downloaded, again."""
    monkeypatch.chdir(tmp_path)
    run = write_run(Path(), toy_scene).resolve()
    Path(place).parent.mkdir(exist_ok=True)
    Path("scene").rename(place)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(settings | {"scene": scene, "data_dir": "data"}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_run(run).scene.name == Path(place).name
    assert not list(Path().iterdir())


def test_a_scene_that_changed(run, tmp_path):
    file = tmp_path / "scene" / "transforms.json"
    whole = json.loads(file.read_text())
    file.write_text(json.dumps({"frames": whole["frames"][1:]}))
    with pytest.raises(UserError, match=r"other photos than .*photos: 11 now, 12 then; first of 1 .* is 00\.png"):
        load_run(run)
    for frame in whole["frames"]:
        frame["transform_matrix"][2][3] += 1
    file.write_text(json.dumps(whole))
    with pytest.raises(UserError, match="other cameras than .*other poses.*train again"):
        load_run(run)


def test_another_split(run):
    values = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**values, "split": "every:5"}))
    with pytest.raises(UserError, match=r"other photos than .*train: 9 now, 9 then; first of 4 that differ is 04\.png"):
        load_run(run)


def test_settings_of_another_version_are_named(run):
    with (run / "config.yaml").open("a") as file:
        file.write("speed: 3\n")
    with pytest.raises(UserError, match=r"config\.yaml sets speed, which does not exist"):
        load_run(run)


def test_cuda_that_is_not_there(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        load_run(run, device="cuda")


def test_a_run_is_a_value(run):
    loaded = load_run(run)
    assert replace(loaded, near=1e6).render(loaded.scene.cameras[0]).alpha.max() == 0


def test_run_in_survey_coordinates_is_exported_as_it_is(tmp_path, toy_scene):
    """Float32 has steps of half a unit out there: the file keeps an offset, and comes back as the same picture."""
    shift = np.array([448251.3, 5411932.7, 120.0])
    c2w = toy_scene.cameras.c2w.double()
    c2w[:, :3, 3] += torch.from_numpy(shift)
    far = replace(toy_scene, cameras=replace(toy_scene.cameras, c2w=c2w), points=toy_scene.points + shift)
    here, there = (write_run(tmp_path / name, scene) for name, scene in (("near", toy_scene), ("far", far)))
    near_run, far_run = load_run(here), load_run(there)
    torch.testing.assert_close(far_run.scene.cameras.c2w, near_run.scene.cameras.c2w, atol=1e-5, rtol=0)
    np.testing.assert_allclose(far_run.scene.points, near_run.scene.points, atol=1e-5)
    RunFolder(there, far_run.scene).export(far_run.gaussians, compressed=True)
    RunFolder(here, near_run.scene).export(near_run.gaussians, compressed=False)
    assert not list(here.glob("*.offset.json"))
    exported = as_exported(far_run, there)
    assert exported is not None
    packed = transform(read_splats(there / "point_cloud.compressed.ply"), far_run.scene.from_input)

    def picture(run):
        return torch.from_numpy(to_uint8(run.render(far_run.scene.cameras[4]).rgb[0]))

    assert psnr(picture(replace(exported, near=far_run.near)), picture(far_run)) > 60
    assert psnr(picture(replace(far_run, gaussians=packed)), picture(far_run)) > 30


def test_the_cameras_that_were_chosen_are_those_of_the_run(tmp_path: Path, toy_scene, monkeypatch: pytest.MonkeyPatch):
    """Also if the choice is relative to where the training began, and there are better ones since."""
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path, toy_scene, model="scene/transforms.json")
    monkeypatch.chdir("/")
    more = json.loads((tmp_path / "scene" / "transforms.json").read_text())
    (tmp_path / "scene" / "images" / "x.png").symlink_to(toy_scene.photos[0].path)
    more["frames"].append({**more["frames"][0], "file_path": "images/x.png"})
    (tmp_path / "scene" / "transforms_train.json").write_text(json.dumps(more))
    assert len(load_run(run).scene.photos) == 12
    settings = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(settings.replace("model: scene/transforms.json", "model: null"))
    with pytest.raises(UserError, match="other photos"):
        load_run(run)
