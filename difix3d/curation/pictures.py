"""What people look at: a contact sheet of pairs, and how good the pairs are for each strategy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from difix3d.curation.collect import Curated
from difix3d.errors import UserError
from difix3d.images import read_image, resize, write_image

ROWS, WIDTH, GAP, TITLE = 5, 200, 6, 32
METRICS = {"psnr": "PSNR of the pair / dB", "lpips": "LPIPS (VGG) of the pair"}


def write_sheet(curated: Curated) -> Path:
    """Writes ``sheet.png``: a column for each strategy, with pairs from the worst to the best PSNR."""
    columns = []
    for strategy in curated.counts:
        pairs = sorted((p for p in curated.card.values() if p["strategy"] == strategy), key=lambda pair: pair["psnr"])
        if pairs:
            chosen = np.unique(np.linspace(0, len(pairs) - 1, min(ROWS, len(pairs))).round().astype(int))
            columns.append(_joined([_row(curated.folder, pairs[i]) for i in chosen], axis=0))
    path = curated.folder / "sheet.png"
    write_image(path, _joined(columns, axis=1))
    return path


def _row(folder: Path, pair: dict[str, Any]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Two lines of text over render, photo and references, each of one width."""
    cells = []
    for path in (pair["image"], pair["target_image"], *pair["ref_image"]):
        image = read_image(folder / path)
        cells.append(resize(image, WIDTH, round(image.shape[0] * WIDTH / image.shape[1])))
    row = _joined(cells, axis=1)
    text = (
        f"{pair['strategy']} ({pair['detail']}), step {pair['step']}\n"
        f"render: {pair['psnr']:.1f} dB, {pair['distance']:.2f} off | {pair['scene']}/{pair['photo']} | reference"
    )
    strip = Image.new("RGB", (row.shape[1], TITLE), "white")
    ImageDraw.Draw(strip).text((2, 2), text, "black")
    return np.concatenate([np.asarray(strip), row])


def _joined(pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], axis: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Below (axis 0) or beside (1) each other on white, with gaps."""
    other = 1 - axis
    most = max(picture.shape[other] for picture in pictures)
    padded = []
    for picture in pictures:
        margins = [(0, 0), (0, 0), (0, 0)]
        margins[axis], margins[other] = (0, GAP), (0, most - picture.shape[other])
        padded.append(np.pad(picture, margins, constant_values=255))
    return np.concatenate(padded, axis=axis)


def write_report(curated: Curated) -> Path:
    """Writes ``report.png``: the distribution of PSNR and, if it was measured, LPIPS for each strategy.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            "matplotlib is not installed", "--report draws with it", 'pip install "difix3d[bench]", or leave it out'
        ) from error
    pairs = list(curated.card.values())
    metrics = [key for key in METRICS if all(pair[key] is not None for pair in pairs)]
    figure = Figure(figsize=(6.4, 3.2 * len(metrics)), layout="constrained")
    for axes, key in zip(figure.subplots(len(metrics), squeeze=False)[:, 0], metrics, strict=True):
        groups = {name: [p[key] for p in pairs if p["strategy"] == name] for name in curated.counts}
        edges = _edges([pair[key] for pair in pairs])
        for name, values in groups.items():
            if values:
                label = f"{name}: {len(values)}, median {np.median(values):.3g}"
                axes.hist(values, edges, histtype="step", linewidth=1.6, label=label)
        axes.set_xlabel(METRICS[key])
        axes.set_ylabel("pairs")
        axes.legend(frameon=False, fontsize=8)
    path = curated.folder / "report.png"
    figure.savefig(path, dpi=110)
    return path


def _edges(values: Sequence[float]) -> np.ndarray:
    """Thirty bins over all values, also if they are all the same."""
    low, high = min(values), max(values)
    return np.linspace(low, high if high > low else low + 1, 31)
