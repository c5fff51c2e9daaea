"""``report.html``: one file, well formed, for all kinds of runs, alive in a real browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from chromium import chromium
from small_run import write_run

from difix3d.evaluate import Pictures, RunEvaluation, draw, measure
from difix3d.images import read_image, write_image
from difix3d.report import write_report
from difix3d.report.cameras import SIZE, camera_map
from difix3d.report.charts import ticks
from difix3d.report.images import colorize, error_map
from difix3d.report.views import CARDS, choose, first_and_last, main_variant
from difix3d.scene import Views
from difix3d.training.load import load_run
from difix3d.training.run import RunFolder
from difix3d.types import Render

RED, GREEN = (200, 30, 30), (30, 160, 60)
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


def round_row(cameras, step, decision, gain):
    trials = [] if gain is None else [{"weight": 0.3, "psnr": [30 + gain]}]
    return {
        "step": step,
        "decision": decision,
        "gain": gain,
        "weight": 0.3 if decision == "keep" else 0.0,
        "held_out": ["00.png"],
        "psnr_without": [] if gain is None else [30.0],
        "trials": trials,
        "confidence": [0.5] * len(cameras),
        "references": [],
        "cameras": cameras,
        "seconds": {"fix": 1.0, "judge": 0.5},
    }


@pytest.fixture
def make(tmp_path, toy_scene):
    """A run's folder, with red pictures of plain 3DGS and green ones of Difix3D if it is ``distilled``."""

    def make(distilled=True, scene=toy_scene, **changes):
        path = write_run(tmp_path, scene, **changes)
        run = RunFolder(path, load_run(path).scene)
        split = "test" if len(run.scene.test) else "train"
        views = Views(run.scene)
        variants = []
        for name, color in (("3DGS", RED), ("Difix3D", GREEN))[: 1 + distilled]:
            variants.append(Pictures(name, path, f"evaluation/{name}", against="3DGS" if variants else None))
            flat = (torch.tensor(color) / 255).expand(1, 40, 48, 3)
            chosen = [views[int(i)] for i in getattr(run.scene, split)]
            draw(lambda camera, rgb=flat: Render(rgb, rgb[..., :1]), chosen, variants[-1])
        measured, _ = measure(("psnr", "ssim"), variants, chosen)
        if distilled:
            poses = run.scene.cameras.c2w[run.scene.test].tolist()
            rows = [
                round_row(poses, 3, "keep", 0.2),
                round_row(poses, 6, "roll back", -0.4),
                round_row(poses, 8, "refuse", None),
            ]
            (path / "rounds.json").write_text(json.dumps(rows))
            write_image(path / "rounds" / "step_000003" / "sheet.png", np.full((60, 80, 3), 99, np.uint8))
        return run, RunEvaluation("scene", split, 10, 0, "cpu", "none", "photo", measured, {"fid": "no <weights>"})

    return make


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


def test_which_views_are_shown_and_in_which_order():
    assert choose(3) == [0, 1, 2]
    assert len(choose(500)) == len(set(choose(500))) == CARDS
    assert choose(500)[:8] == list(range(8))
    assert choose(500)[-8:] == list(range(492, 500))
    assert first_and_last(3) == [0, 1, 2]
    assert first_and_last(7) == [0, 1, 6, 5, 2, 3, 4]


def test_maps_of_errors():
    photo = np.full((2, 3, 3), 100, np.uint8)
    image = photo.copy()
    image[0, 0] = 255
    colors = error_map(image, photo)
    assert (colors[1] == colorize(np.zeros((1, 1)))).all()
    assert (colors[0, 0] == colorize(np.ones((1, 1)))).all()
    lightness = colorize(np.linspace(0, 1, 50)[None]).astype(float) @ [0.3, 0.6, 0.1]
    assert (np.diff(lightness) > 0).all()


def test_the_map_is_seen_from_above(toy_scene):
    """The arc's cameras stand south and look north: wedges open upwards on paper, where y is up."""
    svg = camera_map(toy_scene, [])
    wedges = [
        np.array([pair.split(",") for pair in points.split()], float) for points in re.findall(r'points="([^"]*)"', svg)
    ]
    apexes = np.stack([wedge[0] for wedge in wedges])
    assert ((apexes > 0) & (apexes < SIZE)).all()
    order = [*toy_scene.train, *toy_scene.test]
    assert (np.argsort(apexes[:, 0]) == np.argsort(toy_scene.cameras.centers[order, 0].numpy())).all()
    middle = wedges[order.index(6)]
    assert middle[1:, 1].mean() < middle[0, 1] - 5


def test_a_camera_far_off_does_not_shrink_the_map(toy_scene):
    c2w = toy_scene.cameras.c2w.clone()
    c2w[toy_scene.train[0], 0, 3] += 200
    far = replace(toy_scene, cameras=replace(toy_scene.cameras, c2w=c2w))
    spread = [
        np.ptp([float(points.split(",")[0]) for points in re.findall(r'points="([^"]*)"', camera_map(scene, []))][1:])
        for scene in (toy_scene, far)
    ]
    assert spread[1] > 0.7 * spread[0]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (15.59, 15.88), (-0.4, 0.2), (0, 30000)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high, 5)
    assert 2 <= len(found) <= 7
    assert low <= found[0] < found[-1] <= high


def browse(path, folder, *options):
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
    ]
    words += ["--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1200,2400", "--virtual-time-budget=2000"]
    done = subprocess.run([chromium(), *words, *options, path.as_uri()], capture_output=True, check=True, timeout=120)
    return done.stdout.decode("utf-8")


ACT = """
<pre id="seen"></pre><script>
const seen = {errors: [], before: null};
const slider = document.querySelector(".slider"), range = slider.querySelector("input");
const shown = () => [...slider.querySelectorAll("img")].map(i => [i.alt, i.className, getComputedStyle(i).display,
  getComputedStyle(i).clipPath]);
const names = () => [...slider.querySelectorAll("em")].map(e => e.textContent);
const set = (id, value) => { const e = document.getElementById(id); e.value = value;
  e.dispatchEvent(new Event("change")); e.dispatchEvent(new Event("input")); };
const order = () => [...document.querySelectorAll(".card h3 b")].map(e => e.textContent);
const visible = () => [...document.querySelectorAll("#map .novel")].map(g => getComputedStyle(g).display);
try {
  seen.before = [shown(), names(), order(), visible()];
  range.focus(); range.stepUp(40); range.dispatchEvent(new Event("input"));
  seen.focused = document.activeElement === range && range.type;
  seen.at = slider.style.getPropertyValue("--at");
  set("left", "photo"); set("order", "psnr -1"); set("rounds", 2);
  seen.after = [shown(), names(), order(), visible()];
  seen.label = document.querySelector("output").textContent;
  seen.broken = [...document.images].filter(i => !i.naturalWidth).length;
} catch (error) { seen.errors.push(String(error)); }
document.getElementById("seen").textContent = JSON.stringify(seen);
</script></html>"""


def test_in_a_real_browser(make, tmp_path):
    run, evaluation = make()
    report = write_report(run, None, evaluation)
    path = tmp_path / "acting.html"
    text = report.read_text(encoding="utf-8").replace('loading="lazy"', "").removesuffix("</html>")
    path.write_text(f"<script>window.onerror = e => document.title = e</script>{text}{ACT}", encoding="utf-8")
    dom = browse(path, tmp_path, "--dump-dom")
    seen = json.loads(unescape(re.search(r'<pre id="seen">(.*?)</pre>', dom)[1]))
    assert seen["errors"] == []
    assert "<title>scene: report</title>" in dom  # no script failed
    images, names, order, visible = seen["before"]
    assert [alt for alt, *_ in images] == ["photo", "3DGS", "Difix3D"]
    assert [display for _, _, display, _ in images] == ["none", "block", "block"]
    assert "50%" in images[2][3]
    assert names == ["3DGS", "Difix3D"]
    assert visible == ["inline"] * 3
    assert (seen["focused"], seen["at"], seen["broken"]) == ("range", "70%", 0)
    images, names, after, visible = seen["after"]
    assert [display for _, _, display, _ in images] == ["block", "none", "block"]
    assert "70%" in images[2][3]
    assert names == ["photo", "Difix3D"]
    best = sorted(evaluation.variants[1].images, key=lambda image: -image["psnr"])
    assert after == [image["name"] for image in best]
    assert sorted(order) == sorted(after)
    assert visible == ["none", "inline", "none"]
    assert seen["label"] == "round 2, step 6: roll back"


def test_how_it_looks(make, tmp_path):
    """Left of the line the first row's picture, right of it the last one's."""
    run, evaluation = make()
    browse(
        write_report(run, None, evaluation),
        tmp_path,
        f"--screenshot={tmp_path / 'page.png'}",
        "--window-size=1200,2400",
    )
    shot = read_image(tmp_path / "page.png").astype(int)
    red, green = (np.abs(shot - color).max(-1) < 12 for color in (RED, GREEN))
    rows = red.sum(1)
    start = int(np.argmax(rows > 100))
    line = start + 40
    assert red[line].sum() > 3 * 100
    assert green[line].sum() > 3 * 100
    edges = np.flatnonzero(red[line])
    first = slice(edges[0], edges[0] + 2 * int(np.argmin(red[line, edges[0] :])))
    assert np.flatnonzero(red[line, first]).max() < np.flatnonzero(green[line, first]).min()
    assert (shot[:5] > 240).all()  # light


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
