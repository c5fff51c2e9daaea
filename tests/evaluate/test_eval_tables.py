"""The file of an evaluation, and tables of several."""

import csv
import io
import json
import math
from dataclasses import replace

import pytest

from difix3d.errors import UserError
from difix3d.evaluate import RunEvaluation, SetScore, Variant, read_evaluation, table, write_evaluation


def variant(name, psnr, fid=None, **rest):
    images = tuple({"name": f"{i}.jpg", "psnr": value, "ssim": value / 40} for i, value in enumerate(psnr))
    sets = {} if fid is None else {"fid": SetScore(fid, len(images), None, f"FID of {len(images)} pictures: few")}
    return Variant(name, f"evaluation/{name}", images, sets, **rest)


def evaluation(*variants, scene="fox", seed=0, **rest):
    facts = {"split": "test", "step": 100, "device": "cpu", "fixer": "none", "mask": "photo", "left_out": {}}
    return RunEvaluation(scene=scene, seed=seed, variants=variants, **facts | rest)


@pytest.fixture
def one():
    plain = variant("3DGS", [20.0, 22.0, 24.0, 26.0], fid=100.0, gaussians=10)
    fixed = variant("Difix3D", [21.0, 23.5, 25.0, 26.5], fid=80.0, against="3DGS")
    return evaluation(fixed, plain, left_out={"kid": "no weights"})


def cells(result, metric):
    return {(row.scene, row.variant): row.cells[metric] for row in result.rows if metric in row.cells}


def test_written_and_read_again(one, tmp_path):
    path = write_evaluation(tmp_path, one)
    assert read_evaluation(tmp_path) == one
    other = replace(one, fixed_photos={"psnr": 30.0, "contrast": 0.93, "count": 4})
    assert read_evaluation(write_evaluation(tmp_path, other).parent) == other
    assert "fox: the fixer, given 4 photos that need nothing: PSNR 30.00, contrast x 0.930" in table([other]).notes
    write_evaluation(tmp_path, one)
    content = json.loads(path.read_text())
    assert content["variants"][1]["means"] == {"psnr": 23.0, "ssim": 23.0 / 40, "fid": 100.0}
    assert [file.name for file in tmp_path.iterdir()] == ["evaluation.json"]


def test_what_is_not_defined_is_null_and_does_not_count(tmp_path):
    write_evaluation(tmp_path, evaluation(variant("3DGS", [math.nan, 20.0, math.inf], fid=math.nan)))
    text = (tmp_path / "evaluation.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    again = read_evaluation(tmp_path).variants[0]
    assert again.mean("psnr") == 20.0
    assert math.isnan(again.mean("fid"))
    assert "fid" not in table([read_evaluation(tmp_path)]).metrics


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "has not been evaluated.*difix3d evaluate"),
        ("{", "broken at line 1"),
        ("{}", "not of this version"),
        ('{"format": "difix3d evaluation", "version": 1, "variants": [{}]}', r"evaluation\.json is damaged"),
        ('{"format": "difix3d evaluation", "version": 1, "variants": []}', "is damaged.*scene"),
    ],
)
def test_files_that_are_no_evaluation(tmp_path, content, words):
    if content is not None:
        (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(UserError, match=words):
        read_evaluation(tmp_path)


def test_gains_are_paired_and_rows_in_the_papers_order(one):
    result = table([one])
    assert [(row.scene, row.variant) for row in result.rows] == [("fox", "3DGS"), ("fox", "Difix3D")]
    assert result.metrics == ("psnr", "ssim", "fid")
    plain, fixed = cells(result, "psnr").values()
    assert (plain.mean, plain.gain, plain.count) == (23.0, None, 4)
    assert (fixed.mean, fixed.gain) == (24.0, 1.0)
    assert 20 < plain.interval[0] < 23 < plain.interval[1] < 26
    assert 0.5 <= fixed.gain_interval[0] < 1 < fixed.gain_interval[1] <= 1.5  # far narrower than the means' own
    assert cells(result, "fid")["fox", "Difix3D"].gain == -20.0
    assert cells(result, "fid")["fox", "Difix3D"].interval is None
    notes = " ".join(result.notes)
    assert "mean of 4 photos" in notes
    assert "kid left out: no weights" in notes
    assert notes.count("FID of 4 pictures: few") == 1


def test_what_is_left_out_for_one_reason_is_said_once(one):
    why = {"lpips": "no weights", "fid": "no weights"}
    runs = [replace(one, scene=scene, left_out=why) for scene in ("fox", "castle", "fern")]
    runs[2] = replace(runs[2], left_out={"fid": "no weights", "tsed": "no path"})
    notes = table(runs).notes
    assert [note for note in notes if "left out" in note] == [
        "lpips, fid left out: no weights",
        "tsed of fern left out: no path",
    ]


def test_seeds_are_averaged_by_photo_and_scenes_by_their_means(one):
    other = evaluation(variant("3DGS", [10.0, 12.0, 14.0]), variant("Difix3D", [13.0, 15.0, 17.0]), scene="castle")
    second = replace(one, seed=1, variants=(variant("3DGS", [22.0, 24.0, 26.0, 28.0], fid=90.0), one.variants[0]))
    result = table([one, second, other])
    psnr = cells(result, "psnr")
    assert (psnr["fox", "3DGS"].mean, psnr["fox", "3DGS"].count) == (24.0, 4)
    assert cells(result, "fid")["fox", "3DGS"].mean == 95.0
    assert psnr["all scenes", "3DGS"].mean == (24.0 + 12.0) / 2
    assert psnr["all scenes", "Difix3D"].gain == (0.0 + 3.0) / 2
    assert psnr["all scenes", "3DGS"].interval is None  # two values tell nothing
    assert [row.runs for row in result.rows] == [2, 2, 1, 1, 3, 3]


def test_runs_apart_make_one_table(one):
    """A plain run and a distilled one, each evaluated on its own."""
    apart = [replace(one, variants=(item,)) for item in one.variants]
    assert table(apart).rows == table([one]).rows


def test_what_does_not_fit_together_is_said(one):
    other = evaluation(variant("3DGS", [10.0, 12.0]), scene="castle", split="train", step=7000)
    notes = " ".join(table([one, replace(one, mask="visible", step=50), other]).notes)
    assert "Difix3D: only on 1 of 2 scenes" in notes
    assert "fox: runs on different photos or pixels are mixed (photo, test, visible)" in notes
    assert "fox: runs of 50 and 100 steps are mixed" in notes
    assert "castle: these photos were trained on" in notes
    assert "fox: only pixels count that training cameras see" in notes


def test_the_formats_hold_the_same_numbers(one):
    result = table([one])
    rows = {(row["variant"], row["metric"]): row for row in csv.DictReader(io.StringIO(result.csv()))}
    assert float(rows["Difix3D", "psnr"]["mean"]) == 24.0
    assert float(rows["Difix3D", "psnr"]["gain"]) == 1.0
    assert rows["3DGS", "psnr"]["gain"] == ""
    markdown = result.markdown().splitlines()
    assert markdown[0] == "| scene |  | PSNR ↑ | SSIM ↑ | FID ↓ |"
    assert markdown[3].startswith("| fox | Difix3D | **24.00** [")
    assert "| 100.0 |" in markdown[2]
    latex = table([replace(one, scene="my_fox^2")]).latex()
    assert r"my\_fox\textasciicircum{}2 & 3DGS & 23.00 & 0.575 & 100.0 \\" in latex
    assert r" & Difix3D & \textbf{24.00} & \textbf{0.600} & \textbf{80.0} \\" in latex
    assert latex.count("midrule") == 1


def test_the_console_shows_means_intervals_and_gains(one):
    from rich.console import Console

    console = Console(width=120, file=io.StringIO())
    console.print(table([one]).rich())
    text = console.file.getvalue()
    assert all(word in text for word in ("PSNR ↑", "24.00", "+1.00", "-20.0"))
    assert text.count("[") == 2 * 3  # intervals of two means and of one gain, for two metrics of photos


def test_methods_are_told_apart_on_the_console(one, capsys):
    from difix3d.console import print_table

    first, *_ = one.variants
    names = ("3DGS [default]", "3DGS [mcmc]")
    print_table(
        table([replace(one, scene="a[/b]", variants=tuple(replace(first, name=name) for name in names))]).rich()
    )
    text = capsys.readouterr().out
    assert all(name in text for name in (*names, "a[/b]"))


def apart(name, seen, unseen, **rest):
    """A variant whose first picture has unseen pixels."""
    whole = variant(name, [20.0, 22.0, 24.0], **rest)
    keys = [{"seen": 0.75, "seen_psnr": seen[0], "unseen_psnr": unseen}]
    keys += [{"seen": 1.0, "seen_psnr": value} for value in seen[1:]]
    return replace(whole, images=tuple(a | b for a, b in zip(whole.images, keys, strict=True)))


def test_seen_and_unseen_pixels_are_rows(tmp_path):
    """Each is compared within its own pixels, and averaged over the photos that have such."""
    plain = apart("3DGS", [21.0, 23.0, 25.0], 12.0, fid=50.0)
    fixed = apart("Difix3D", [22.0, 24.0, 26.0], 11.0, against="3DGS")
    one = evaluation(plain, fixed)
    assert read_evaluation(write_evaluation(tmp_path, one).parent) == one
    assert json.loads((tmp_path / "evaluation.json").read_text())["variants"][0]["means"]["unseen_psnr"] == 12.0
    result = table([one])
    rows = {(row.variant, row.pixels): row.cells for row in result.rows}
    assert [row.pixels for row in result.rows] == ["all", "all", "seen", "seen", "unseen", "unseen"]
    assert rows["Difix3D", "seen"]["psnr"].mean == 24.0
    assert rows["Difix3D", "seen"]["psnr"].gain == 1.0
    assert rows["Difix3D", "unseen"]["psnr"].gain == -1.0
    assert rows["Difix3D", "unseen"]["psnr"].count == 1
    assert set(rows["3DGS", "seen"]) == {"psnr"}
    assert result.metrics == ("psnr", "ssim", "fid")
    assert "| fox, unseen pixels | 3DGS | **12.00** |" in result.markdown()
    assert "fox, seen pixels" in result.latex()
    assert any("92% of the pixels are seen" in note for note in result.notes)
    lines = {(line["variant"], line["metric"]): line for line in csv.DictReader(io.StringIO(result.csv()))}
    assert float(lines["Difix3D", "psnr"]["mean"]) == 22.0
    assert float(lines["Difix3D", "unseen_psnr"]["gain"]) == -1.0
    both = table([one, replace(one, scene="castle")])
    assert [row.scene for row in both.rows if row.pixels == "unseen"][-2:] == ["all scenes", "all scenes"]
    assert "only on" not in " ".join(both.notes)
