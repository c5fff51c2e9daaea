"""The report in a real browser."""

import json
import re
import subprocess
from html import unescape

import numpy as np
from chromium import chromium
from flat_run import GREEN, RED

from difix3d.images import read_image
from difix3d.report import write_report


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
