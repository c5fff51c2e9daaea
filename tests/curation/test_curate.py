import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_captures import write_scene

from difix3d.errors import UserError
from difix3d.limits import check_limits


def test_pairs_in_the_published_format(curated):
    from difix3d.images import image_size

    data = json.loads((curated.folder / "dataset.json").read_text())
    pairs = data["train"] | data["test"]
    assert pairs.keys() == curated.card.keys()
    assert {name.split("_")[1] for name in pairs} == {"underfit", "cycle", "perturb", "sparse", "cluster"}
    for pair in pairs.values():
        assert pair.keys() == {"image", "target_image", "ref_image", "prompt"}
        assert pair["ref_image"] != pair["target_image"]
        assert {image_size(curated.folder / pair[key]) for key in ("image", "target_image", "ref_image")} == {(48, 40)}
    assert "no rig" in curated.left_out["toy/cross"]


def test_the_data_set_reads_them(curated):
    from difix3d.difix_training.dataset import read_pairs

    pairs = read_pairs(curated.folder / "dataset.json")
    assert len(pairs["train"]) + len(pairs["test"]) == len(curated.card)
    assert all(pair.image.is_file() for pair in pairs["train"])


def test_the_card_says_what_is_in_the_files(curated, toy_scene):
    from difix3d.images import read_image
    from difix3d.metrics import psnr

    def read(path):
        return torch.from_numpy(read_image(curated.folder / path))

    rows = list(curated.card.values())
    for row in rows:
        assert row["psnr"] == pytest.approx(psnr(read(row["image"]), read(row["target_image"])), abs=1e-3)
        photo = next(photo for photo in toy_scene.photos if photo.name == row["photo"])
        assert torch.equal(read(row["target_image"]), torch.from_numpy(read_image(photo.path)))
    sparse = [row for row in rows if row["strategy"] == "sparse"]
    assert not {row["target_image"] for row in sparse} & {path for row in sparse for path in row["ref_image"]}
    distances = {row["strategy"]: row["distance"] for row in rows}
    assert distances["underfit"] == 0
    assert all(row["distance"] > 0 for row in rows if row["strategy"] in ("sparse", "cycle"))
    assert {row["step"] for row in rows if row["strategy"] == "underfit"} == {1, 2, 3}
    lines = (curated.folder / "card.csv").read_text().splitlines()
    assert len(lines) == 1 + len(rows)
    assert lines[0].startswith("id,split,scene,strategy,step,psnr")


def test_a_single_scene_is_split_by_its_photos(curated):
    split = json.loads((curated.folder / "split.json").read_text())
    assert split["by"] == "photo"
    assert split["test"] == ["11.png"]
    assert not set(split["test"]) & set(split["train"])


def test_the_sheet_and_the_report(curated):
    from difix3d.curation import read_curated, write_report, write_sheet
    from difix3d.images import image_size

    again = read_curated(curated.folder)
    assert again.card == json.loads(json.dumps(curated.card))
    width, height = image_size(write_sheet(again))
    assert width > 4 * 3 * 200  # four strategies; render, photo and reference
    assert height > 5 * 160
    assert image_size(write_report(again))[1] > 300


def test_a_report_that_finds_no_room_leaves_the_one_before(curated, monkeypatch):
    pytest.importorskip("matplotlib")
    from difix3d.curation import read_curated, write_report

    def full(_self, path, **_options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    again = read_curated(curated.folder)
    before = write_report(again).read_bytes()
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(UserError, match="Cannot write .*report.png .No space left"):
        write_report(again)
    assert (again.folder / "report.png").read_bytes() == before
    assert not list(again.folder.glob("*.partial*"))


def test_without_matplotlib_the_report_says_so(curated, monkeypatch):
    import sys

    from difix3d.curation import write_report

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"matplotlib is not installed.*bench"):
        write_report(curated)


def test_scenes_are_shared_out_by_rank(recipe, tmp_path, toy_scene):
    from difix3d.curation import assemble
    from difix3d.curation.curate import curate, missing_parts

    scenes = [str(write_scene(tmp_path / name, toy_scene)) for name in ("one", "two", "three")]
    out, only = tmp_path / "pairs", ["sparse"]
    curate(scenes, out, recipe, strategies=only, device="cpu", rank=1, ranks=2)
    assert missing_parts(scenes, out, only) == ["one/sparse", "three/sparse"]
    curate(scenes, out, recipe, strategies=only, device="cpu", rank=0, ranks=2)
    assert missing_parts(scenes, out, only) == []
    assemble(out)
    split = json.loads((out / "split.json").read_text())
    assert split["by"] == "scene"
    assert len(split["test"]) == 1
    assert sorted(split["train"] + split["test"]) == ["one", "three", "two"]
    assemble(out, test_scenes=["two"])
    data = json.loads((out / "dataset.json").read_text())
    assert {name.split("_")[0] for name in data["test"]} == {"two"}
    with pytest.raises(UserError, match="--test-scenes names four"):
        assemble(out, test_scenes=["four"])


def test_a_bad_scene_stops_or_is_left_out(capture, recipe, tmp_path):
    from difix3d.curation import assemble
    from difix3d.curation.curate import curate, missing_parts

    empty = tmp_path / "empty"
    empty.mkdir()
    scenes, out, only = [str(empty), capture], tmp_path / "pairs", ["sparse"]
    with pytest.raises(UserError, match=r"cannot be curated: .*0 photos.*--skip-bad"):
        curate(scenes, out, recipe, strategies=only, device="cpu")
    curate(scenes, out, recipe, strategies=only, device="cpu", skip_bad=True)
    assert missing_parts(scenes, out, only) == []
    assert "0 photos" in assemble(out).left_out["empty"]


def test_a_trailing_slash_is_no_other_scene():
    from difix3d.curation.curate import name_scenes

    assert name_scenes(["a/fox/", "synthetic:3", "b/my scene"]) == {
        "fox": "a/fox",
        "synthetic-3": "synthetic:3",
        "my_scene": "b/my scene",
    }


def test_hopeless_and_perfect_renders_are_counted(capture, recipe, tmp_path):
    from difix3d.curation import assemble
    from difix3d.curation.curate import curate

    curate([capture], tmp_path, replace(recipe, psnr_min=98.0), strategies=["sparse"], device="cpu")
    with pytest.raises(UserError, match=r"no pair in .*: 6 renders were too bad, 0 too good"):
        assemble(tmp_path)


@pytest.mark.parametrize("change", [{"every": 1}, {"underfit": (1.0,)}, {"psnr_min": 50.0}, {"max_steps": 0}])
def test_impossible_options(recipe, change):
    with pytest.raises(UserError, match="--" + next(iter(change)).replace("_", "-")):
        check_limits(replace(recipe, psnr_max=40.0, **change))


def test_held_out_scenes_stay_held_out_when_scenes_are_added(tmp_path):
    from difix3d.curation.collect import choose_test

    path = tmp_path / "split.json"
    few, many = [f"s{i}" for i in range(4)], [f"s{i}" for i in range(40)]
    _, first = choose_test(path, few, {}, 0.1, (), 0)
    path.write_text(json.dumps({"by": "scene", "train": sorted(set(few) - first), "test": sorted(first)}))
    _, second = choose_test(path, many, {}, 0.1, (), 0)
    assert len(second) == 4
    assert second & set(few) == first
    assert choose_test(path, few, {}, 0.0, (), 0)[1] == first


def test_pixels_that_do_not_count_are_right_already(toy_scene, truth, tmp_path):
    from difix3d.curation import Recipe
    from difix3d.curation.pairs import make_pairs
    from difix3d.curation.trainings import Model, SceneTrainings
    from difix3d.images import read_image, write_image
    from difix3d.types import Photo, Render

    mask = np.zeros((40, 48, 1), np.uint8)
    mask[:, :24] = 255
    write_image(tmp_path / "mask.png", mask)
    photos = tuple(Photo(photo.name, photo.path, mask=tmp_path / "mask.png") for photo in toy_scene.photos)

    def dark(camera):
        out = truth(camera)
        return Render(out.rgb * 0.5, out.alpha, out.depth)

    trainings = SceneTrainings(replace(toy_scene, photos=photos), Recipe(), "cpu", tmp_path, lambda *_: None)
    models = iter([Model(dark, toy_scene.cameras, [0, 1, 3], [2], 1, "dark")])
    (pair,) = make_pairs(trainings, models, tmp_path, tmp_path / "x", "x", Counter())
    render, photo = read_image(tmp_path / pair.image), read_image(tmp_path / pair.target_image)
    assert (render[:, 24:] == photo[:, 24:]).all()
    assert (render[:, :24] != photo[:, :24]).any()


def test_from_the_command_line(capture, tmp_path, monkeypatch, capsys):
    from difix3d.cli.curate import curate

    options = ["--strategies", "sparse", "--max-steps", "4", "--psnr-min", "0", "--max-pairs", "3", "--device", "cpu"]
    curate([capture, "--output-dir", str(tmp_path), *options, "--report"])
    assert "2 pairs to train on, 1 to test" in capsys.readouterr().out
    assert (tmp_path / "sheet.png").is_file()
    (tmp_path / "report.png").unlink()
    curate(["--output-dir", str(tmp_path), "--report"])
    assert (tmp_path / "report.png").is_file()
    with pytest.raises(UserError, match="No scene is named"):
        curate([])
