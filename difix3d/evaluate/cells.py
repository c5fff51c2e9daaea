"""A number of a table, and how it is written: for terminals, Markdown, LaTeX and spreadsheets."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass

from rich.text import Text

from difix3d.evaluate.results import METRICS

Interval = tuple[float, float]


@dataclass(frozen=True)
class Cell:
    """A mean and how far it can be believed.

    Attributes:
        mean: of the metric.
        count: values in it: photos, or scenes, or seeds for the metric of a set.
        interval: bootstrap 95 % confidence interval; ``None`` for one or two values.
        gain, gain_interval: mean difference to the scene's first row, paired (over what both have).
    """

    mean: float
    count: int
    interval: Interval | None = None
    gain: float | None = None
    gain_interval: Interval | None = None


def number(metric: str, value: float, sign: bool = False) -> str:
    """A value of a metric as it is shown."""
    kind = METRICS[metric]
    return f"{value * kind.factor:{'+' if sign else ''}.{kind.digits}f}"


def to_csv(rows: Iterable[Iterable[object]]) -> str:
    """Lines of comma-separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


TEX_ARROWS = {1: r" $\uparrow$", -1: r" $\downarrow$", 0: ""}


def arrow(metric: str) -> str:
    """The title of a metric's column, with the direction of what is better."""
    return METRICS[metric].title + {1: " ↑", -1: " ↓", 0: ""}[METRICS[metric].better]


def tex(text: str) -> str:
    """Text with the letters escaped that mean something to TeX."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join("\\" + letter if letter in "_&%#${}" else special.get(letter, letter) for letter in text)


def line(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def interval(metric: str, cell: Cell | None) -> str:
    """The interval of a cell in brackets, behind its value; empty if it has none."""
    return "" if cell is None or cell.interval is None else f" [{_range(metric, cell.interval)}]"


def _range(metric: str, interval: Interval, sign: bool = False) -> str:
    return ", ".join(number(metric, value, sign) for value in interval)


def console(metric: str, cell: Cell | None) -> Text:
    """A cell for a terminal: its mean, and below it the interval, the gain and the gain's interval."""
    if cell is None:
        return Text("-")
    text = Text(number(metric, cell.mean), "bold")
    if cell.interval is not None:
        text = Text.assemble(text, (f"\n[{_range(metric, cell.interval)}]", "dim"))
    if cell.gain is not None:
        better = METRICS[metric].better * cell.gain >= 0
        text = Text.assemble(text, (f"\n{number(metric, cell.gain, True)}", "green" if better else "red"))
        if cell.gain_interval is not None:
            text = Text.assemble(text, (f"\n[{_range(metric, cell.gain_interval, True)}]", "dim"))
    return text
