"""``report.html``: one file, well formed, for all kinds of runs, alive in a real browser."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from difix3d.report import write_report
from difix3d.report.views import main_variant
from difix3d.training.run import RunFolder

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Counts elements, and checks that they are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.links = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.links += [value for key, value in attrs if key in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def count(self, tag, **wanted):
        return sum(
            name == tag and all(value in (attrs.get(key.rstrip("_")) or "").split() for key, value in wanted.items())
            for name, attrs in self.found
        )


def test_a_distilled_run(make):
    run, evaluation = make()
    rows = [{"step": step, "plus": False, "psnr": 20.0 + step} for step in (5, 10)]
    (run.path / "metrics.json").write_text(json.dumps(rows))
    text = write_report(run, None, evaluation).read_text(encoding="utf-8")
    page = Page(text)
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert "http" not in re.sub(r"data:image/jpeg;base64,[\w+/=]*", "", text)
    assert (page.count("article", class_="card"), page.count("polygon")) == (3, 12 + 3 * 3)
    assert page.count("img", class_="left") == page.count("img", class_="right") == 3
    assert page.count("line", class_="round") == 3
    assert page.count("details") == 1  # rounds without a sheet have none
    assert page.count("polyline", class_="curve") == 1
    assert all(word in text for word in ("no &lt;weights&gt;", "Did fixing harm", "roll back", "Difix3D against 3DGS"))
    assert {path.name for path in run.path.iterdir()} & {"report.html", ".report.html.partial"} == {"report.html"}


@pytest.mark.parametrize("held_out", [True, False])
def test_a_plain_run(make, held_out):
    run, evaluation = make(distilled=False, split="every:4" if held_out else "none")
    text = write_report(run, None, evaluation).read_text(encoding="utf-8")
    page = Page(text)
    count = 3 if held_out else 12
    assert page.count("article", class_="card") == count
    assert f"{count} {'held-out' if held_out else 'training'} photos" in text
    assert page.count("line", class_="round") == 0
    assert not any(word in text for word in ("Rounds", "Did fixing harm", 'type="range" min="0" max="0"'))
    assert "left <select" in text
    assert page.count("img", class_="left", alt="photo") == count  # nothing else to compare with


def test_one_view(make, toy_scene):
    photos = range(2)
    scene = replace(toy_scene, cameras=toy_scene.cameras[list(photos)], photos=toy_scene.photos[:2])
    run, evaluation = make(distilled=False, scene=scene, split="every:2")
    text = write_report(run, None, evaluation).read_text(encoding="utf-8")
    assert Page(text).count("article", class_="card") == 1
    assert "1 held-out photo " in text


def test_from_what_training_left(make):
    """Without an evaluation: the last rows of metrics.json and the pictures in eval/."""
    run, evaluation = make()
    rows = []
    for plus, variant in enumerate(evaluation.variants):
        folder = run.path / "eval" / ("step_000010" + "_plus" * plus) / "renders"
        shutil.copytree(run.path / variant.pictures, folder)
        means = {"psnr": variant.mean("psnr"), "ssim": variant.mean("ssim"), "split": "test", "gaussians": 300}
        rows.append({"step": 10, "plus": bool(plus), **means, "images": list(variant.images)})
    (run.path / "metrics.json").write_text(json.dumps(rows))
    text = write_report(run).read_text(encoding="utf-8")
    page = Page(text)
    assert page.count("article", class_="card") == 3
    assert "Difix3D+ against Difix3D: " in text
    assert f"{evaluation.variants[0].mean('psnr'):.2f}" in text


@pytest.fixture
def trained(make):
    """A run with rounds that training evaluated, and plain 3DGS beside it: the steps of each, in ``metrics.json``."""

    def trained(steps, plain_steps):
        run, evaluation = make()
        plain = RunFolder(run.path / "plain", run.scene)
        for folder, variant, at in (
            (plain.path, evaluation.variants[0], plain_steps),
            (run.path, evaluation.variants[1], steps),
        ):
            folder.mkdir(exist_ok=True)
            means = {"psnr": variant.mean("psnr"), "ssim": variant.mean("ssim"), "split": "test", "gaussians": 300}
            rows = [{"step": step, "plus": False, **means, "images": list(variant.images)} for step in at]
            (folder / "metrics.json").write_text(json.dumps(rows))
            for step in at:
                shutil.copytree(run.path / variant.pictures, folder / f"eval/step_{step:06d}/renders")
        return run, plain

    return trained


def test_only_equal_steps_are_compared(trained):
    run, plain = trained([5, 10], [5])
    text = write_report(run, plain).read_text(encoding="utf-8")
    assert "Difix3D against 3DGS" not in text
    assert "3DGS left out: it was not evaluated at step 10" in text


def test_training_is_compared_with_plain_3dgs_of_the_same_step(trained):
    run, plain = trained([10], [5, 10])
    text = write_report(run, plain).read_text(encoding="utf-8")
    assert "Difix3D against 3DGS: " in text
    assert "Difix3D after 3DGS" in text


def test_the_report_names_the_device_that_was_used(trained):
    run, _ = trained([10], [])
    config = (run.path / "config.yaml").read_text()
    assert "device: auto" in config or "device: cpu" in config
    (run.path / "config.yaml").write_text(config.replace("device: cpu", "device: auto"))
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert f" · {expected} · " in write_report(run).read_text(encoding="utf-8")


def test_names_are_text(make, toy_scene):
    run, evaluation = make(distilled=False)
    evil = replace(evaluation, scene="<script>alert(1)</script>", fixer='"><b>')
    text = write_report(run, None, evil).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    Page(text)


@pytest.mark.parametrize(
    ("names", "main"),
    [
        (["3DGS", "3DGS + Difix", "Difix3D", "Difix3D+", "Difix3D+ (paper)", "theirs"], "Difix3D+"),
        (["3DGS", "Difix3D"], "Difix3D"),
        (["3DGS", "theirs"], "3DGS"),
    ],
)
def test_what_a_run_is_about(make, names, main):
    _, evaluation = make(distilled=False)
    rows = tuple(replace(evaluation.variants[0], name=name) for name in names)
    assert main_variant(replace(evaluation, variants=rows)).name == main
