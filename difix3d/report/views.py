"""One card for each view: a before/after slider, the photo, and where each picture is wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from difix3d.background import COLORS, over
from difix3d.evaluate import METRICS, RunEvaluation, Variant
from difix3d.evaluate.ablation import TITLES
from difix3d.evaluate.cells import number
from difix3d.images import read_image, to_uint8
from difix3d.report.images import ERROR_SCALE, data_uri, error_map, ramp_css
from difix3d.report.markup import Safe, escape, tag
from difix3d.scene import Views

SIDE, SMALL = 640, 240
"""Pixels of the embedded pictures and of the error maps, on the long side."""

CARDS = 24
"""Views that are shown, at most: a third of them the worst, a third the best, the rest in between."""

ENDS = 2
"""Worst and best views that come first."""

PHOTO = "photo"
NUMBERS = ("psnr", "ssim", "lpips_vgg")
"""Metrics below each error map."""


def cards(root: Path, evaluation: RunEvaluation, views: Views) -> Safe:
    """All cards and what steers them, the worst and the best first.

    Args:
        root: the run's folder, where the variants' pictures are.
        evaluation: its variants.
        views: the photos.
    """
    variants = evaluation.variants
    names = [PHOTO, *(variant.name for variant in variants)]
    main = main_variant(evaluation)
    left, right = (PHOTO if main is variants[0] else names[1]), main.name
    scene = views.scene
    index = {photo.name: i for i, photo in enumerate(scene.photos)}
    order = sorted(main.images, key=lambda image: np.nan_to_num(image["psnr"], nan=-np.inf, posinf=np.inf))
    shown = choose(len(order))
    parts = []
    for rank, position in enumerate(first_and_last(len(shown))):
        image = order[shown[position]]
        badge = ("worst", "best")[position >= ENDS] if rank < 2 * ENDS < len(shown) else ""
        photo = to_uint8(over(views[index[image["name"]]], COLORS[evaluation.background]).image)
        place = scene.places[index[image["name"]]]
        images = {v.name: read_image(root / v.pictures / f"{place}.png") for v in variants}
        parts.append(_card(images, variants, main, image["name"], photo, (left, right), rank, badge))
    narrowest = 380 if scene.cameras.width[0] >= scene.cameras.height[0] else 250
    text = f"{len(shown)} of {len(order)} views. " if len(shown) < len(order) else ""
    legend = tag(
        "span", "error 0", tag("i", class_="ramp", style=f"background:{ramp_css()}"), f"{ERROR_SCALE:.0%} or more"
    )
    titles = ", ".join(METRICS[key].title for key in NUMBERS if key in order[0])
    text += f"Drag the line, or use the arrow keys; a double click centres it. Below each error map: {titles}."
    note = tag("p", text, class_="soft")
    return Safe(
        note
        + _tools(names, left, right, legend)
        + tag("div", *parts, class_="cards", style=f"--narrowest:{narrowest}px")
    )


def main_variant(evaluation: RunEvaluation) -> Variant:
    """What the run is about: the last row of the ablation that it has."""
    rows = {variant.name: variant for variant in evaluation.variants}
    return next((rows[title] for title in reversed(TITLES) if title in rows), evaluation.variants[0])


def choose(count: int) -> list[int]:
    """Which of the views, in order of quality, are shown."""
    if count <= CARDS:
        return list(range(count))
    third = CARDS // 3
    between = np.linspace(third, count - third - 1, CARDS - 2 * third).round().astype(int).tolist()
    return [*range(third), *between, *range(count - third, count)]


def first_and_last(count: int) -> list[int]:
    """Positions with the worst and best few in front."""
    if count <= 2 * ENDS:
        return list(range(count))
    return [*range(ENDS), *range(count - 1, count - 1 - ENDS, -1), *range(ENDS, count - ENDS)]


def _card(
    images: dict[str, np.ndarray],
    variants: Sequence[Variant],
    main: Variant,
    name: str,
    photo: np.ndarray,
    sides: tuple[str, str],
    rank: int,
    badge: str,
) -> Safe:
    scores = {v.name: next(image for image in v.images if image["name"] == name) for v in variants}
    first, last = (scores[v.name]["psnr"] for v in (variants[0], main))
    slider = [
        tag("img", src=data_uri(image, SIDE), alt=key, class_=_class(key, sides), loading="lazy")
        for key, image in {PHOTO: photo, **images}.items()
    ]
    control = tag("input", type="range", min=0, max=100, step=0.5, value=50, aria_label=f"{name}: compare")
    height, width = photo.shape[:2]
    top = tag(
        "div",
        *slider,
        *(tag("em", side) for side in sides),
        control,
        class_="slider",
        style=f"aspect-ratio:{width}/{height}",
    )
    strip = [_thumb(photo, Safe("photo"))]
    strip += [_thumb(error_map(image, photo), _caption(key, scores[key])) for key, image in images.items()]
    head = tag(
        "h3",
        tag("b", name),
        tag(
            "span",
            f"{badge} · " if badge else "",
            f"{last:.2f} dB",
            f" ({last - first:+.2f})" if main is not variants[0] else "",
        ),
    )
    facts = {"data_psnr": _sortable(last), "data_gain": _sortable(last - first), "data_rank": rank}
    return tag("article", head, top, tag("div", *strip, class_="strip"), class_="card", **facts)


def _sortable(value: float) -> str:
    return f"{np.nan_to_num(value, nan=-999, posinf=999, neginf=-999):.4f}"


def _class(key: str, sides: tuple[str, str]) -> str | None:
    return " ".join(word for word, side in zip(("left", "right"), sides, strict=True) if side == key) or None


def _thumb(image: np.ndarray, caption: Safe) -> Safe:
    return tag("figure", tag("img", src=data_uri(image, SMALL), alt="", loading="lazy"), tag("figcaption", caption))


def _caption(name: str, scores: dict[str, Any]) -> Safe:
    numbers = [number(key, scores[key]) for key in NUMBERS if key in scores]
    return Safe(f"error of {escape(name)}<br>{' · '.join(f'<span>{text}</span>' for text in numbers)}")


def _tools(names: list[str], left: str, right: str, legend: Safe) -> Safe:
    def select(key: str, options: dict[str, str], chosen: str) -> Safe:
        items = [
            tag("option", text, value=value, selected="" if value == chosen else None)
            for value, text in options.items()
        ]
        return tag("select", *items, id=key)

    orders = {"rank 1": "worst and best first", "psnr 1": "worst first", "psnr -1": "best first"}
    if len(names) > 2:
        orders |= {"gain 1": "most lost first", "gain -1": "most gained first"}
    same = {name: name for name in names}
    chosen = {"left": select("left", same, left), "right": select("right", same, right)}
    chosen["order"] = select("order", orders, "rank 1")
    return tag("div", *(tag("label", f"{key} ", choice) for key, choice in chosen.items()), legend, class_="tools")
