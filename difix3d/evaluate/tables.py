"""Tables of evaluations, as papers print them: scene by variant, means over photos, seeds and scenes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable
from rich.text import Text

from difix3d.evaluate.ablation import TITLES
from difix3d.evaluate.cells import TEX_ARROWS, Cell, arrow, console, interval, line, number, tex, to_csv
from difix3d.evaluate.results import METRICS, PARTS, SINGLE, RunEvaluation
from difix3d.metrics import confidence_interval

ALL = "all scenes"
PREFIXES = {pixels: prefix for prefix, pixels in PARTS.items()}
FEW = 3
"""Values under which a bootstrap says nothing."""


@dataclass(frozen=True)
class Row:
    """A variant on a scene, or on :data:`ALL`; ``runs`` went into it.

    Attributes:
        pixels: that count: ``all`` of a picture, or those that some training photo shows (``seen``), or the others
            (``unseen``).
    """

    scene: str
    variant: str
    runs: int
    cells: dict[str, Cell]
    pixels: str = "all"

    @property
    def group(self) -> str:
        """What is compared with each other: the rows of one scene and the same pixels."""
        return self.scene if self.pixels == "all" else f"{self.scene}, {self.pixels} pixels"


@dataclass(frozen=True)
class Table:
    """Rows by scene and variant, with the keys of :data:`METRICS` that any of them has; notes belong under it."""

    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def rich(self) -> RichTable:
        """For a terminal: means, their 95 % intervals, and gains over the first row with theirs."""
        metrics = [metric for metric in self.metrics if metric not in ("right", "wrong")]
        shown = RichTable(show_lines=True)
        shown.add_column("scene")
        shown.add_column("")
        for metric in metrics:
            shown.add_column(arrow(metric), justify="right")
        for row in self.rows:
            cells = [console(metric, row.cells.get(metric)) for metric in metrics]
            shown.add_row(Text(row.group), Text(row.variant), *cells)
        return shown

    def csv(self) -> str:
        """One line for each scene, variant and metric; not rounded."""
        head = ("scene", "variant", "runs", "metric", "mean", "low", "high", "gain", "gain_low", "gain_high", "count")
        lines = [
            (
                *(row.scene, row.variant, row.runs, PREFIXES[row.pixels] + metric, cell.mean),
                *(cell.interval or ("", "")),
                "" if cell.gain is None else cell.gain,
                *(cell.gain_interval or ("", "")),
                cell.count,
            )
            for row in self.rows
            for metric, cell in row.cells.items()
        ]
        return to_csv([head, *lines])

    def markdown(self) -> str:
        """Means with their 95 % intervals, the best of a scene in bold."""
        lines = [line(["scene", "", *map(arrow, self.metrics)]), line(["---", "---", *["---:"] * len(self.metrics)])]
        for row in self.rows:
            cells = [
                self._marked(row, metric, "**{}**") + interval(metric, row.cells.get(metric)) for metric in self.metrics
            ]
            lines.append(line([row.group, row.variant, *cells]))
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)]) + "\n"

    def latex(self) -> str:
        """Means, the best of a scene in bold; needs ``booktabs``."""
        head = ["", "", *(tex(METRICS[metric].title) + TEX_ARROWS[METRICS[metric].better] for metric in self.metrics)]
        lines = [f"\\begin{{tabular}}{{ll{'r' * len(self.metrics)}}}", r"\toprule", " & ".join(head) + r" \\"]
        before = None
        for row in self.rows:
            if row.group != before:
                lines.append(r"\midrule")
            cells = [self._marked(row, metric, r"\textbf{{{}}}") for metric in self.metrics]
            scene = tex(row.group) if row.group != before else ""
            lines.append(" & ".join([scene, tex(row.variant), *cells]) + r" \\")
            before = row.group
        notes = [f"% {note}" for note in self.notes]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *notes]) + "\n"

    def _marked(self, row: Row, metric: str, bold: str) -> str:
        cell = row.cells.get(metric)
        if cell is None:
            return "--"
        rivals = [r.cells[metric].mean for r in self.rows if r.group == row.group and metric in r.cells]
        best = METRICS[metric].better * cell.mean == max(METRICS[metric].better * mean for mean in rivals)
        text = number(metric, cell.mean)
        return bold.format(text) if best and len(rivals) > 1 else text


def table(evaluations: Sequence[RunEvaluation]) -> Table:
    """Puts evaluations together.

    On a scene, a metric is the mean over the photos, and over runs (seeds) for each photo first; intervals and gains
    are over photos. On all scenes it is the mean over the scenes' means. Variants come in the paper's order; the first
    row of a scene is what gains are measured against.

    Args:
        evaluations: of runs on the same or different scenes; those of one scene are of the same photos.
    """
    variants = {variant.name: None for evaluation in evaluations for variant in evaluation.variants}
    ordered = [name for name in TITLES if name in variants] + [name for name in variants if name not in TITLES]
    scenes = list(dict.fromkeys(evaluation.scene for evaluation in evaluations))
    rows: list[Row] = []
    for scene in scenes:
        own = [evaluation for evaluation in evaluations if evaluation.scene == scene]
        runs = {name: sum(v.name == name for evaluation in own for v in evaluation.variants) for name in ordered}
        for part in PARTS:
            rows += _rows(scene, {name: _values(own, name, part) for name in ordered}, runs, PARTS[part])
    for pixels in PARTS.values() if len(scenes) > 1 else ():
        rows += _all_scenes([row for row in rows if row.pixels == pixels], ordered, pixels)
    found = {metric for row in rows for metric in row.cells}
    return Table(tuple(key for key in METRICS if key in found), tuple(rows), tuple(_notes(evaluations, rows)))


def _rows(scene: str, values: dict[str, dict[str, dict[str, float]]], runs: dict[str, int], pixels: str) -> list[Row]:
    """One for each variant that has values: by metric, by what they are values of."""
    found = {name: metrics for name, metrics in values.items() if metrics}
    first = next(iter(found), None)
    return [
        Row(
            scene,
            name,
            runs[name],
            {
                metric: _cell(items, {} if first in (None, name) else found[str(first)].get(metric, {}))
                for metric, items in metrics.items()
            },
            pixels,
        )
        for name, metrics in found.items()
    ]


def _all_scenes(rows: list[Row], ordered: Iterable[str], pixels: str) -> list[Row]:
    values: dict[str, dict[str, dict[str, float]]] = {name: {} for name in ordered}
    runs = dict.fromkeys(values, 0)
    for row in rows:
        runs[row.variant] += row.runs
        for metric, cell in row.cells.items():
            values[row.variant].setdefault(metric, {})[row.scene] = cell.mean
    return _rows(ALL, values, runs, pixels)


def _values(evaluations: list[RunEvaluation], name: str, part: str) -> dict[str, dict[str, float]]:
    """By metric the values of a variant: by photo, mean over the runs; those of sets by seed.

    Args:
        part: prefix of the metrics that are taken (:data:`PARTS`), which goes off.
    """
    gathered: dict[str, dict[str, list[float]]] = {}
    for evaluation in evaluations:
        for variant in evaluation.variants:
            metrics = SINGLE if part else variant.metrics
            for metric in metrics if variant.name == name else ():
                for image, value in variant.values(part + metric).items():
                    key = image or f"seed {evaluation.seed}"
                    gathered.setdefault(metric, {}).setdefault(key, []).append(value)
    return {
        metric: {key: sum(items) / len(items) for key, items in values.items()} for metric, values in gathered.items()
    }


def _cell(values: dict[str, float], base: dict[str, float]) -> Cell:
    data = list(values.values())
    gains = [value - base[key] for key, value in values.items() if key in base]
    return Cell(
        mean=sum(data) / len(data),
        count=len(data),
        interval=confidence_interval(data) if len(data) >= FEW else None,
        gain=sum(gains) / len(gains) if gains else None,
        gain_interval=confidence_interval(gains) if len(gains) >= FEW else None,
    )


def _notes(evaluations: Sequence[RunEvaluation], rows: list[Row]) -> Iterable[str]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.scene] = max([counts.get(row.scene, 0), *(cell.count for cell in row.cells.values())])
    for scene, count in counts.items():
        kind = "scenes" if scene == ALL else "photos"
        yield f"{scene}: mean of {count} {kind}; in brackets the bootstrap 95 % interval of the mean"
    partial = {row.variant: row.cells for row in rows if row.scene == ALL and row.pixels == "all"}
    scenes = len(counts) - 1
    for name, cells in partial.items():
        have = max((cell.count for cell in cells.values()), default=0)
        if have < scenes:
            yield f"{name}: only on {have} of {scenes} scenes, so that its mean is not comparable"
    for scene in dict.fromkeys(evaluation.scene for evaluation in evaluations):
        own = [evaluation for evaluation in evaluations if evaluation.scene == scene]
        yield from _protocol(scene, own)
    yield from dict.fromkeys(f"{item.scene}: {item.harm}" for item in evaluations if item.harm)
    yield from _left_out(evaluations)
    variants = (variant for evaluation in evaluations for variant in evaluation.variants)
    warnings = [score.warning for variant in variants for score in variant.sets.values() if score.warning]
    yield from dict.fromkeys(warnings)


def _left_out(evaluations: Sequence[RunEvaluation]) -> Iterable[str]:
    """A line for each reason: of what, and of which scenes unless it is all of them."""
    reasons: dict[str, tuple[list[str], list[str]]] = {}
    for evaluation in evaluations:
        for what, why in evaluation.left_out.items():
            names, scenes = reasons.setdefault(why, ([], []))
            names.append(what)
            scenes.append(evaluation.scene)
    everywhere = {evaluation.scene for evaluation in evaluations}
    for why, (names, scenes) in reasons.items():
        where = "" if set(scenes) == everywhere else f" of {', '.join(dict.fromkeys(scenes))}"
        yield f"{', '.join(dict.fromkeys(names))}{where} left out: {why}"


def _protocol(scene: str, own: Sequence[RunEvaluation]) -> Iterable[str]:
    """What a reader has to know about the photos and pixels that count."""
    splits, masks, steps = ({getattr(item, key) for item in own} for key in ("split", "mask", "step"))
    if len(splits) > 1 or len(masks) > 1:
        yield f"{scene}: runs on different photos or pixels are mixed ({', '.join(sorted(splits | masks))})"
    if len(steps) > 1:
        yield f"{scene}: runs of {' and '.join(f'{step:,}' for step in sorted(steps))} steps are mixed"
    for given in dict.fromkeys(item.given for item in own if item.given):
        held_out = "; its held-out photos tell something only if it was made without them" * ("test" in splits)
        yield f"{scene}: As it came is {given}{held_out}"
    if "train" in splits:
        yield f"{scene}: these photos were trained on, and the fixer looks at them: no measure of novel views"
    shares = [variant.seen for item in own for variant in item.variants if math.isfinite(variant.seen)]
    if shares:
        yield (
            f"{scene}: {sum(shares) / len(shares):.0%} of the pixels are seen: a training photo reaches them by its "
            "rendered depth; what is unseen a model can only guess"
        )
    for color in sorted({item.background for item in own} - {""}):
        yield f"{scene}: photos with alpha and their pictures over {color}"
    if "visible" in masks:
        yield f"{scene}: only pixels count that training cameras see"
