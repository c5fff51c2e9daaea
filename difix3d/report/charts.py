"""Curves over training, as SVG: quality by step, with the rounds and what the gate decided."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from difix3d.report.markup import Safe, tag

WIDTH, HEIGHT = 640, 250
LEFT = 52
RIGHT = 16
TOP = 14
BOTTOM = 34
COLORS = ("#3564c4", "#8650b8", "#4b5563", "#0f766e")
"""Of the lines; none that a decision has."""

DECISIONS = {"keep": "#2f8f5b", "lower": "#c98a00", "roll back": "#c0392b", "refuse": "#c0392b", "unchecked": "#8a8f98"}
"""What the gate can decide, and its colour."""

Number = int | float
Points = Sequence[tuple[Number, Number]]


class Axes:
    """From numbers to places on the picture."""

    def __init__(self, xs: Sequence[Number], ys: Sequence[Number]):
        self.x0, self.x1 = min(0.0, *xs), max(xs) or 1.0
        margin = 0.08 * (max(ys) - min(ys)) or 0.5
        self.y0, self.y1 = min(ys) - margin, max(ys) + margin

    def x(self, value: Number) -> float:
        return round(LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: Number) -> float:
        return round(HEIGHT - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM), 1)

    def draw(self, unit: str, along: str = "step") -> list[Safe]:
        """Grid lines with their numbers; what the numbers along the bottom are."""
        parts = []
        for value in ticks(self.y0, self.y1, 5):
            y = self.y(value)
            parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
            parts.append(tag("text", f"{value:g}", x=LEFT - 8, y=y + 4, text_anchor="end"))
        parts += [
            tag("text", f"{value:,.0f}", x=self.x(value), y=HEIGHT - BOTTOM + 18, text_anchor="middle")
            for value in ticks(self.x0, self.x1, 6)
        ]
        parts.append(tag("text", unit, x=8, y=TOP - 2, class_="unit"))
        parts.append(tag("text", along, x=WIDTH - RIGHT, y=HEIGHT - 2, text_anchor="end", class_="unit"))
        return parts


def ticks(low: Number, high: Number, count: int) -> list[Number]:
    """Round numbers between two others, about ``count`` of them."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def curves(lines: Mapping[str, Points], rounds: Sequence[dict[str, Any]], unit: str, along: str = "step") -> Safe:
    """Lines by step, with a mark for each round in the colour of its decision.

    Args:
        lines: by name; a single point is shown as a dot.
        rounds: rows of ``rounds.json``; may be empty.
        unit: of the vertical axis.
        along: of the horizontal one.
    """
    steps = [x for points in lines.values() for x, _ in points] + [row["step"] for row in rounds]
    axes = Axes(steps, [y for points in lines.values() for _, y in points])
    parts = axes.draw(unit, along)
    for number, row in enumerate(rounds, 1):
        x, color = axes.x(row["step"]), DECISIONS.get(row["decision"], COLORS[0])
        title = tag("title", f"round {number}, step {row['step']:,}: {row['decision']}")
        parts.append(tag("line", title, x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, stroke=color, class_="round"))
    for (name, points), color in zip(lines.items(), COLORS, strict=False):
        places = [(axes.x(x), axes.y(y)) for x, y in points]
        if len(places) > 1:
            parts.append(tag("polyline", points=" ".join(f"{x},{y}" for x, y in places), stroke=color, class_="curve"))
        for (x, y), (step, value) in zip(places, points, strict=True):
            title = tag("title", f"{name}, {along} {step:,}: {value:.2f} {unit}")
            parts.append(tag("circle", title, cx=x, cy=y, r=4, fill=color))
    return figure(parts, dict(zip(lines, COLORS, strict=False)), f"{unit} by {along}")


def gains(rounds: Sequence[dict[str, Any]], last: int) -> Safe:
    """What each round gained on the photos left out of it, as bars in the colour of the decision.

    Args:
        rounds: rows of ``rounds.json``.
        last: step of the run.
    """
    tried = [row for row in rounds if row["gain"] is not None]
    if not tried:
        return Safe("")
    axes = Axes([last, *(row["step"] for row in rounds)], [0.0, *(row["gain"] for row in tried)])
    zero, parts = axes.y(0.0), axes.draw("gain in dB")
    parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=zero, y2=zero, class_="zero"))
    for row in tried:
        top = min(zero, axes.y(row["gain"]))
        title = tag("title", f"step {row['step']:,}: {row['gain']:+.2f} dB, {row['decision']}")
        color = DECISIONS.get(row["decision"], COLORS[0])
        height = max(1.5, abs(zero - axes.y(row["gain"])))
        x = axes.x(row["step"]) - 7
        parts.append(tag("rect", title, x=x, y=top, width=14, height=height, fill=color, rx=2))
    used = {row["decision"] for row in tried}
    return figure(parts, {name: color for name, color in DECISIONS.items() if name in used}, "gain of each round")


def figure(parts: Sequence[Safe], legend: dict[str, str], label: str) -> Safe:
    """A picture with its legend."""
    svg = tag("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label)
    keys = [tag("span", tag("i", style=f"background:{color}"), name) for name, color in legend.items()]
    return tag("figure", svg, tag("figcaption", *keys, class_="legend"), class_="chart")
