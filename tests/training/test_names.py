"""Photos whose names lead elsewhere, or nearly agree: the user's files stay as they are, each has its own render."""

import json
import shutil

import pytest
from ring_scene import CAMERA, write_model, write_photos

from difix3d.cli.evaluate import evaluate
from difix3d.evaluate import read_evaluation
from difix3d.scene.masks import find_masks
from difix3d.training import TrainConfig, Trainer


@pytest.fixture
def named(tmp_path):
    """A capture in ``home/scene`` whose model also names photos in other folders, one of them from the root."""
    images = tmp_path / "home" / "scene" / "images"
    photos = write_photos(images, 8)
    absolute = tmp_path / "home" / "mine" / "b.png"
    names = ["a.jpg", "a.png", "A.png", str(absolute), "../../shots/x.png", "../renders/y.png", "deep/a.png", "c.d.png"]
    for photo, name in zip(photos, names, strict=True):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(images / photo, images / name)
    write_model(images.parent / "sparse" / "0", names, CAMERA)
    return images.parent, names


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_names_out_of_a_model_stay_inside_the_run(named, tmp_path):
    scene, names = named
    before = files(tmp_path / "home")
    run = tmp_path / "outputs" / "run"
    config = TrainConfig(scene=str(scene), split="none", output_dir=run, fixer="none", max_steps=3, device="cpu")
    Trainer(config).train()
    evaluate([str(run), "--metrics", "psnr", "--device", "cpu"])
    assert files(tmp_path / "home") == before
    assert {path.name for path in tmp_path.iterdir()} == {"home", "outputs"}
    assert [path.name for path in run.parent.iterdir()] == ["run"]
    for folder in ("eval/step_000003/renders", "eval/step_000003/compare", "evaluation/3dgs"):
        assert len(files(run / folder)) == len(names), folder
    trained = {row["name"]: row["psnr"] for row in json.loads((run / "metrics.json").read_text())[-1]["images"]}
    (variant,) = read_evaluation(run).variants
    assert variant.values("psnr") == pytest.approx(trained)
    assert set(trained) == set(names)


def test_a_photo_is_not_its_own_mask(named):
    scene, names = named
    (scene / "masks").mkdir()
    shutil.copy(scene / "images" / "c.d.png", scene / "masks" / "c.d.png.png")
    assert find_masks([scene], scene / "images", names) == [None] * 7 + [scene / "masks" / "c.d.png.png"]
