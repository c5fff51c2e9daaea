"""``difix3d evaluate`` with a fixer: the rows of the ablation."""

import math
import shutil

import numpy as np
import pytest
import yaml
from evaluating import QUICK, call

from difix3d.errors import UserError
from difix3d.evaluate import read_evaluation
from difix3d.images import read_image, to_uint8
from difix3d.postrender import PostRender
from difix3d.scene import Views
from difix3d.training.load import load_run


def test_the_papers_ablation(distilled, fixer):
    call(distilled, "--metrics", "psnr", "--fixer", "some")
    found = read_evaluation(distilled)
    assert [(row.name, row.against) for row in found.variants] == [
        ("3DGS", None),
        ("3DGS + Difix", "3DGS"),
        ("Difix3D", "3DGS"),
        ("Difix3D+ (paper)", "Difix3D"),
        ("Difix3D+", "Difix3D"),
    ]
    assert [row.gaussians for row in found.variants] == [150, 150, 300, 300, 300]
    assert fixer.offload is False
    plain, fixed, distilled3d, paper, trusting = (row.mean("psnr") for row in found.variants)
    assert fixed < plain < distilled3d
    assert paper + 3 < trusting  # photos know that brighter is wrong
    assert found.variants[3].mean("right") < -1

    loaded = load_run(distilled)
    camera, name = loaded.scene.cameras[int(loaded.scene.test[1])], loaded.scene.photos[loaded.scene.test[1]].name
    post = PostRender(loaded.render, fixer, loaded.scene, Views(loaded.scene).__getitem__, trust=True)
    np.testing.assert_array_equal(
        read_image(distilled / found.variants[4].pictures / name), to_uint8(post(camera).rgb[0])
    )
    table = (distilled / "evaluation.tex").read_text()
    assert all(row.name in table for row in found.variants)


def test_what_the_fixer_does_to_photos_that_need_nothing(distilled, fixer, monkeypatch, capsys):
    call(distilled, "--metrics", "psnr", "--fixer", "some")
    found = read_evaluation(distilled).fixed_photos
    scene = load_run(distilled).scene
    photos = [Views(scene)[index].image for index in scene.test.tolist()]
    expected = [-20 * math.log10(np.square((x + 0.1).clip(0, 1) - x).mean() ** 0.5) for x in map(np.asarray, photos)]
    assert found["psnr"] == pytest.approx(np.mean(expected), abs=0.2)  # 0.1 is 25.5 of 255
    assert found["count"] == len(photos)
    assert found["contrast"] == pytest.approx(1, abs=0.3)
    note = f"the fixer, given {len(photos)} photos that need nothing: PSNR {found['psnr']:.2f}"
    assert note in capsys.readouterr().out
    monkeypatch.setattr(fixer.__class__, "__call__", lambda _, degraded: (item.rgb for item in degraded))
    call(distilled, "--metrics", "psnr", "--fixer", "some")
    idle = read_evaluation(distilled).fixed_photos
    assert math.isnan(idle["psnr"])  # nothing is changed: infinite
    assert idle["contrast"] == pytest.approx(1, abs=1e-5)
    call(distilled, "--metrics", "psnr", "--fixer", "none")
    assert read_evaluation(distilled).fixed_photos == {}


def test_the_runs_own_fixer_is_the_default(distilled, fixer):
    """Not that of the plain run beside it, which was trained without."""
    for folder, name in ((distilled, "some"), (distilled / "plain", "none")):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump(config | {"fixer": name}))
    call(distilled, "--metrics", "psnr")
    found = read_evaluation(distilled)
    assert found.fixer == "some"
    assert len(found.variants) == 5


def test_only_equal_steps_are_compared(distilled):
    (distilled / "plain" / "checkpoints" / "step_0000010.safetensors").unlink()
    call(distilled, *QUICK)
    found = read_evaluation(distilled)
    assert [row.name for row in found.variants] == ["Difix3D"]
    assert "plain has no checkpoint of step 10. There are step_0000005" in found.left_out["3DGS"]


def test_chosen_rows_and_what_is_left_out(distilled, fixer):
    call(distilled, "--metrics", "psnr", "--fixer", "none", "--variants", "difix3d", "difix3d+")
    found = read_evaluation(distilled)
    assert [(row.name, row.against) for row in found.variants] == [("Difix3D", None)]
    assert found.left_out == {"Difix3D+": "there is no fixer: name one by --fixer"}
    shutil.rmtree(distilled / "plain")
    call(distilled, *QUICK)
    assert "train with --compare" in read_evaluation(distilled).left_out["3DGS"]
    with pytest.raises(UserError, match=r"has none of the rows 3dgs\b.*--compare"):
        call(distilled, *QUICK, "--variants", "3dgs")
    call(distilled, *QUICK, "--step", 5)  # after the first round, before the second
    assert [row.name for row in read_evaluation(distilled).variants] == ["Difix3D"]


def test_weights_that_cannot_be_had(run, monkeypatch):
    def gone(name, device, references, *, anchor_colors):
        raise UserError(f"The fixer {name!r} cannot be loaded", "", "Pass --fixer FOLDER")

    monkeypatch.setattr("difix3d.training.variants.load_fixer", gone)
    call(run, "--metrics", "psnr")  # the run's own
    found = read_evaluation(run)
    assert [row.name for row in found.variants] == ["3DGS"]
    assert "cannot be loaded. Pass --fixer FOLDER" in found.left_out["rows with the fixer"]
    with pytest.raises(UserError, match=r"'mine' cannot be loaded"):
        call(run, "--metrics", "psnr", "--fixer", "mine")


@pytest.mark.real
def test_with_real_tiny_weights(run, shared, monkeypatch):
    monkeypatch.setenv("DIFIX3D_WEIGHTS", str(shared / "weights"))
    call(run, "--metrics", "lpips-alex", "--fixer", shared / "golden" / "tiny_difix_ref")
    found = read_evaluation(run)
    assert [row.name for row in found.variants] == ["3DGS", "3DGS + Difix"]
    assert found.variants[0].mean("lpips_alex") < found.variants[1].mean("lpips_alex")


def test_steadiness_of_the_ways_to_fix_a_path(distilled, fixer):
    options = ["--metrics", "psnr", "warp", "--frames", 6, "--fixer", "some"]
    call(distilled, *options, "--variants", "difix3d", "difix3d+paper")
    found = read_evaluation(distilled).steadiness
    assert [(item.row, item.way) for item in found] == [
        ("Difix3D+ (paper)", way) for way in ("render", "fixed", "carried", "mixed")
    ]
    assert all(len(item.errors) == 5 and item.short > 0 for item in found)
    assert found[1].short == pytest.approx(found[0].short, rel=0.3)  # a constant change does not flicker
    page = (distilled / "report.html").read_text()
    assert "Does fixing flicker?" in page
    assert "warp error x 1000 by frame" in page
    assert 'href="evaluation/difix3d%2Bpaper.steadiness.mp4"' in page
    assert (distilled / "evaluation" / "difix3d+paper.steadiness.mp4").stat().st_size > 1000
    call(distilled, "--metrics", "psnr", "--fixer", "some")
    assert read_evaluation(distilled).steadiness == ()
    assert "flicker?" not in (distilled / "report.html").read_text()
