"""Where the cameras are, from above: captured, held out, and the novel ones of each round."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from difix3d.geometry.normalize import ASIDE, remoteness
from difix3d.report.markup import Safe, tag
from difix3d.types import Scene

SIZE, MARGIN = 520, 24
DOTS = 2500
"""Sparse points that are drawn, at most."""
TRAIN = "#3564c4"
TEST = "#c2571a"
NOVEL = "#2f8f5b"


def camera_map(scene: Scene, rounds: Sequence[dict[str, Any]]) -> Safe:
    """The normalised world from above (+z towards the reader), with a slider over the rounds.

    Args:
        scene: its cameras and points.
        rounds: rows of ``rounds.json``; may be empty.
    """
    c2w = scene.cameras.c2w.double().cpu().numpy()
    novel = [np.array(row["cameras"]).reshape(-1, 4, 4) for row in rounds]
    used = np.concatenate([c2w[scene.train], c2w[scene.test], *novel])
    middle, half = _frame(used[remoteness(used[:, :3, 3], scene.points) <= ASIDE, :2, 3])
    scale = (SIZE / 2 - MARGIN) / half

    def place(points: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N 2"]:
        return (points[:, :2] - middle) * [scale, -scale] + SIZE / 2

    parts = [tag("g", *_points(scene, place), class_="points")]
    unused = np.setdiff1d(np.arange(len(c2w)), np.concatenate([scene.train, scene.test]))
    for indices, kind in ((unused, "unused"), (scene.train, "train"), (scene.test, "test")):
        symbols = [_camera(c2w[i], place, scene.photos[i].name, kind) for i in indices]
        parts.append(tag("g", *symbols, class_=kind))
    for number, (row, poses) in enumerate(zip(rounds, novel, strict=True), 1):
        title = f"round {number}, step {row['step']:,}: {row['decision']}"
        parts.append(
            tag("g", *(_camera(pose, place, title, "novel") for pose in poses), class_="novel", data_round=number)
        )
    svg = tag("svg", *parts, viewBox=f"0 0 {SIZE} {SIZE}", role="img", aria_label="cameras from above", id="map")
    legend = [
        tag("span", tag("i", style=f"background:{color}"), f"{len(indices)} {kind}")
        for kind, indices, color in (("training", scene.train, TRAIN), ("held out", scene.test, TEST))
        if len(indices)
    ]
    if novel:
        legend.append(tag("span", tag("i", style=f"background:{NOVEL}"), "novel"))
    control = _control(rounds) if rounds else ""
    return tag("figure", svg, tag("figcaption", *legend, class_="legend"), control, class_="map")


def _frame(places: Float[np.ndarray, "N 2"]) -> tuple[Float[np.ndarray, "2"], float]:
    """Middle and half width of what is shown: the cameras but for those far off, and some of what is around them."""
    low, high = places.min(0), places.max(0)
    return (low + high) / 2, max(0.5, 0.65 * float((high - low).max()))


def _points(scene: Scene, place: Any) -> list[Safe]:
    chosen = np.random.default_rng(0).permutation(len(scene.points))[:DOTS]
    dots = place(scene.points[chosen])
    inside = ((dots > 0) & (dots < SIZE)).all(1)
    return [
        tag("circle", cx=f"{x:.0f}", cy=f"{y:.0f}", r=1, fill="#{:02x}{:02x}{:02x}".format(*scene.colors[i]))
        for i, (x, y) in zip(chosen[inside], dots[inside], strict=True)
    ]


def _camera(c2w: Float[np.ndarray, "4 4"], place: Any, title: str, kind: str) -> Safe:
    """A wedge that opens where the camera looks."""
    apex = place(c2w[None, :3, 3])[0]
    axes = c2w[:2, [2, 0]] * [[1], [-1]]  # forward and right, on paper
    length = 9 if kind == "unused" else 14
    corners = [apex + length * (axes[:, 0] + side * 0.45 * axes[:, 1]) for side in (-1, 1)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (apex, *corners))
    return tag("polygon", tag("title", title), points=points)


def _control(rounds: Sequence[dict[str, Any]]) -> Safe:
    labels = ["all rounds"] + [f"round {i}, step {row['step']:,}: {row['decision']}" for i, row in enumerate(rounds, 1)]
    slider = tag("input", type="range", min=0, max=len(rounds), value=0, id="rounds", data_labels="|".join(labels))
    return tag("label", "novel cameras of ", tag("output", labels[0], for_="rounds"), slider, class_="control")
