"""The report of a run, put together from its folder."""

import math
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from difix3d.errors import UserError
from difix3d.evaluate import METRICS, Row, RunEvaluation, Table, table
from difix3d.evaluate.ablation import TITLES
from difix3d.evaluate.cells import Cell, arrow, number
from difix3d.files import or_nan, write_text
from difix3d.images import read_image
from difix3d.report.cameras import camera_map
from difix3d.report.charts import DECISIONS, Points, curves, gains
from difix3d.report.images import data_uri
from difix3d.report.markup import Safe, escape, grid, tag
from difix3d.report.views import cards, main_variant
from difix3d.runfiles import changed
from difix3d.scene import Views
from difix3d.training.evaluation import last_evaluation
from difix3d.training.pilot import in_words
from difix3d.training.run import ROWS, RunFolder

SHEET = 1000
"""Pixels of the sheet of a round, on the long side."""

SPLIT = ("right", "wrong")


def write_report(run: RunFolder, plain: RunFolder | None = None, evaluation: RunEvaluation | None = None) -> Path:
    """Writes ``report.html``, which needs no other file and no network.

    Args:
        run: its ``metrics.json``, ``rounds.json`` and pictures are read.
        plain: the run of plain 3DGS beside it, if there is one.
        evaluation: its variants; by default those that training evaluated last.

    Raises:
        UserError: there is no evaluation, nor did training evaluate anything yet.
    """
    try:
        evaluation = evaluation or last_evaluation(run, plain)
        rounds = run.rows("rounds.json")
        parts = [*_head(evaluation), *_curves(run, plain, rounds, evaluation.step), *_harm(evaluation)]
        parts += _steadiness(run.path, evaluation)
        parts += [tag("h2", "Views"), cards(run.path, evaluation, Views(run.scene))]
        parts += [tag("h2", "Cameras"), tag("p", "From above. A wedge opens where its camera looks.", class_="soft")]
        parts += [camera_map(run.scene, rounds), *_pilot(run), *_rounds(run, rounds)]
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        damaged = [name for name in ROWS if (run.path / name).exists() and changed(run.path / name)]
        if not damaged:
            raise
        raise UserError(
            f"{' and '.join(damaged)} of {run.path} are damaged ({type(error).__name__}: {error})",
            "A report is made of them",
            "Evaluate it again (difix3d evaluate), or move the damaged file away",
        ) from error
    title = f"{run.scene.name}: report"
    asset = files("difix3d.report")
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{(asset / 'style.css').read_text(encoding='utf-8')}</style>"
        f"<main>{''.join(parts)}</main><script>{(asset / 'script.js').read_text(encoding='utf-8')}</script></html>"
    )
    path = run.path / "report.html"
    write_text(path, page)
    return path


def _head(evaluation: RunEvaluation) -> Iterable[Safe]:
    count = len(evaluation.variants[0].images)
    photos = "held-out" if evaluation.split == "test" else "training"
    yield tag("h1", evaluation.scene)
    facts = (f"{count} {photos} photo{'s' * (count > 1)}", f"step {evaluation.step:,}", f"seed {evaluation.seed}")
    yield tag("p", " · ".join([*facts, evaluation.device, f"fixer {evaluation.fixer}"]), class_="soft")
    result = table([evaluation])
    yield _verdict(evaluation, result)
    yield tag("div", _table(result), class_="scroll")
    yield from (tag("p", note, class_="soft") for note in result.notes)


def _verdict(evaluation: RunEvaluation, result: Table) -> Safe:
    """One sentence: what was gained, and how sure that is."""
    first, last = evaluation.variants[0], main_variant(evaluation)
    cell = next((row.cells.get("psnr") for row in result.rows if row.variant == last.name), None)
    if first is last or cell is None or cell.gain is None:
        return tag("p", f"{last.name}: {last.mean('psnr'):.2f} dB.")
    a, b = first.values("psnr"), last.values("psnr")
    better = sum(b[name] > a[name] for name in b if name in a)
    low, high = cell.gain_interval or (cell.gain, cell.gain)
    sure = low > 0 or high < 0
    text = f"{cell.gain:+.2f} dB" + (f" [{low:+.2f}, {high:+.2f}]" if cell.gain_interval else "")
    return tag(
        "p",
        f"{last.name} against {first.name}: ",
        tag("b", text, class_=("good" if cell.gain > 0 else "bad") if sure else None),
        "" if sure else ", which may be chance",
        f"; better on {better} of {len(b)} photos.",
    )


def _table(result: Table) -> Safe:
    metrics = [metric for metric in result.metrics if metric not in SPLIT]
    head = ["", *(arrow(metric) for metric in metrics)]
    rows = [[_name(row), *(_cell(metric, row.cells.get(metric)) for metric in metrics)] for row in result.rows]
    return grid(head, rows)


def _name(row: Row) -> str:
    return row.variant if row.pixels == "all" else f"{row.variant}, {row.pixels} pixels"


def _cell(metric: str, cell: Cell | None) -> Safe:
    if cell is None:
        return Safe("")
    parts: list[Safe] = [tag("b", number(metric, cell.mean))]
    if cell.interval is not None:
        parts.append(tag("small", "[{}, {}]".format(*(number(metric, value) for value in cell.interval))))
    if cell.gain is not None:
        better = METRICS[metric].better * cell.gain
        kind = "good" if better > 0 else "bad" if better < 0 else None
        parts.append(tag("small", number(metric, cell.gain, True), class_=kind))
    return Safe("".join(parts))


def _curves(run: RunFolder, plain: RunFolder | None, rounds: list[dict[str, Any]], last: int) -> Iterable[Safe]:
    lines: dict[str, Points] = {}
    for source, plus, name in (
        (run, False, "this run"),
        (run, True, "this run, fixed once more (+)"),
        (plain, False, "plain 3DGS"),
    ):
        rows = source.rows("metrics.json") if source else []
        points = [(row["step"], or_nan(row["psnr"])) for row in rows if row["plus"] == plus]
        points = [point for point in points if math.isfinite(point[1])]
        if points:
            lines[name] = points
    if not lines:
        return
    yield tag("h2", "Over training")
    if rounds:
        decisions = dict.fromkeys(row["decision"] for row in rounds)
        dots = [tag("span", tag("i", style=f"background:{DECISIONS.get(name, '#888')}"), name) for name in decisions]
        yield tag("p", "Dashed lines are rounds, in the colour of what the gate decided: ", *dots, class_="legend")
    yield tag("div", curves(lines, rounds, "PSNR in dB"), gains(rounds, last), class_="row")


def _harm(evaluation: RunEvaluation) -> Iterable[Safe]:
    """Did fixing harm what was right?"""
    fixed = [variant for variant in evaluation.variants if variant.against and variant.values("right")]
    if not fixed:
        return
    yield tag("h2", "Did fixing harm what was right?")
    yield tag(
        "p",
        "Each picture is split in half by the error it had before: pixels that were right, and pixels that were wrong. "
        "Change of PSNR on each half, mean over the photos. Two models that differ only by chance would show a small "
        "loss on the first and a small gain on the second.",
        class_="soft",
    )
    rows = []
    for variant in fixed:
        right, wrong = variant.values("right"), variant.values("wrong")
        worse = sum(value < 0 for value in right.values())
        changes = [_signed(variant.mean(metric)) for metric in SPLIT]
        rows.append([f"{variant.name} after {variant.against}", *changes, f"{worse} of {len(right)}", f"{len(wrong)}"])
    head = ["", "where right (dB)", "where wrong (dB)", "photos where right got worse", "photos"]
    yield tag("div", grid(head, rows), class_="scroll")


def _steadiness(root: Path, evaluation: RunEvaluation) -> Iterable[Safe]:
    """Does fixing flicker?"""
    if not evaluation.steadiness:
        return
    yield tag("h2", "Does fixing flicker?")
    yield tag(
        "p",
        "Warp error along a camera path, times 1000: each frame against the one before, and against the fourth before, "
        "moved by the model's depth, where both see the surface. Nothing was done to a render: its own error, of what "
        "shines and of depth that is not exact, is the scale to compare with. Carried: each fourth frame is fixed. "
        "Mixed: half of each change is that of the frame before.",
        class_="soft",
    )
    for row in dict.fromkeys(item.row for item in evaluation.steadiness):
        ways = [item for item in evaluation.steadiness if item.row == row]
        cells = [[item.way, *(f"{1e3 * value:.2f}" for value in (item.short, item.long))] for item in ways]
        yield tag("div", grid([row, "1 frame ↓", "4 frames ↓"], cells), class_="scroll")
        lines = {
            item.way: [(i, 1e3 * error) for i, error in enumerate(item.errors, 1) if math.isfinite(error)]
            for item in ways
        }
        lines = {way: points for way, points in lines.items() if points}
        if lines:
            yield tag("div", curves(lines, [], "warp error x 1000", "frame"), class_="row")
        name = TITLES.get(row)
        if name is not None and (root / "evaluation" / f"{name}.steadiness.mp4").is_file():
            names = ", ".join(item.way for item in ways)
            link = tag("a", "Video", href=f"evaluation/{quote(name)}.steadiness.mp4")
            yield tag("p", link, f" of them side by side: {names}", class_="soft")


def _signed(value: float) -> Safe:
    return tag("b", f"{value:+.2f}", class_="good" if value >= 0 else "bad")


def _pilot(run: RunFolder) -> Iterable[Safe]:
    """Does fixing help in this capture?"""
    row = run.pilot()
    if row is None:
        return
    yield tag("h2", "Does fixing help here?")
    found = f"{in_words(row)}. " + ("So there were rounds." if row["helps"] else "So nothing was distilled.")
    yield tag("p", found, class_="soft")
    if (run.path / "pilot.png").is_file():
        picture = tag("img", src=data_uri(read_image(run.path / "pilot.png"), SHEET), alt="pilot", loading="lazy")
        yield tag("details", tag("summary", "Photo, render, fixed"), picture)


def _rounds(run: RunFolder, rounds: list[dict[str, Any]]) -> Iterable[Safe]:
    if not rounds:
        return
    yield tag("h2", "Rounds")
    head = (
        "step",
        "novel views",
        "confidence",
        "left out",
        "PSNR without",
        "with",
        "gain (dB)",
        "decision",
        "weight",
        "s",
    )
    yield tag("div", grid(head, [_round(row) for row in rounds]), class_="scroll")
    for number_, row in enumerate(rounds, 1):
        path = run.path / "rounds" / f"step_{row['step']:06d}" / "sheet.png"
        if path.is_file():
            title = f"Round {number_}, before step {row['step']:,}: {row['decision']}"
            picture = tag("img", src=data_uri(read_image(path), SHEET), alt=title, loading="lazy")
            yield tag("details", tag("summary", title), picture)


def _round(row: dict[str, Any]) -> list[Any]:
    tried = row["gain"] is not None
    color = DECISIONS.get(row["decision"], "#888")
    return [
        f"{row['step']:,}",
        len(row["cameras"]),
        f"{_mean(row['confidence']):.0%}",
        len(row["held_out"]),
        f"{_mean(row['psnr_without']):.2f}" if tried else "",
        f"{_mean(row['trials'][-1]['psnr']):.2f}" if tried else "",
        _signed(row["gain"]) if tried else "",
        Safe(tag("i", class_="dot", style=f"background:{color}") + escape(row["decision"])),
        f"{row['weight']:.3g}",
        f"{sum(row['seconds'].values()):.1f}",
    ]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
