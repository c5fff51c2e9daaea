"""What people look at: a contact sheet of pairs, and how good the pairs are for each strategy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from difix3d.curation.collect import Curated
from difix3d.errors import UserError
from difix3d.files import whole_file
from difix3d.images import read_image, resize, strip, write_image

ROWS = 5
WIDTH = 200
TITLE = 32
METRICS = {"psnr": "PSNR of the pair / dB", "lpips": "LPIPS (VGG) of the pair"}


def write_sheet(curated: Curated) -> Path:
    """Writes ``sheet.png``: a column for each strategy, with pairs from the worst to the best PSNR."""
    columns = []
    for strategy in curated.counts:
        pairs = sorted((p for p in curated.card.values() if p["strategy"] == strategy), key=lambda pair: pair["psnr"])
        if pairs:
            chosen = np.unique(np.linspace(0, len(pairs) - 1, min(ROWS, len(pairs))).round().astype(int))
            columns.append(strip([_row(curated.folder, pairs[i]) for i in chosen], axis=0))
    path = curated.folder / "sheet.png"
    write_image(path, strip(columns))
    return path


def _row(folder: Path, pair: dict[str, Any]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Two lines of text over render, photo and references, each of one width."""
    cells = []
    for path in (pair["image"], pair["target_image"], *pair["ref_image"]):
        image = read_image(folder / path)
        cells.append(resize(image, WIDTH, round(image.shape[0] * WIDTH / image.shape[1])))
    row = strip(cells)
    text = (
        f"{pair['strategy']} ({pair['detail']}), step {pair['step']}\n"
        f"render: {pair['psnr']:.1f} dB, {pair['distance']:.2f} off | {pair['scene']}/{pair['photo']} | reference"
    )
    title = Image.new("RGB", (row.shape[1], TITLE), "white")
    ImageDraw.Draw(title).text((2, 2), text, "black")
    return np.concatenate([np.asarray(title), row])


def write_report(curated: Curated) -> Path:
    """Writes ``report.png``: the distribution of PSNR and, if it was measured, LPIPS for each strategy.

    Raises:
        UserError: matplotlib is not installed, or the file cannot be written.
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
    with whole_file(path, sync=False) as partial:
        figure.savefig(partial, dpi=110)
    return path


def _edges(values: Sequence[float]) -> np.ndarray:
    """Thirty bins over all values, also if they are all the same."""
    low, high = min(values), max(values)
    return np.linspace(low, high if high > low else low + 1, 31)
