"""Pictures of a round: what was rendered, what the fixer made of it, what it looked at, and the confidence in it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from difix3d.distill.distiller import Round
from difix3d.images import GAP, resize, straight, strip, to_uint8, write_image
from difix3d.types import View

ROWS = 12
WIDTH = 320
TITLE = 16
COLUMNS = ("render", "fixed", "reference photo", "confidence (white)")


def write_round(done: Round, folder: Path, photo: Callable[[int], View]) -> None:
    """Writes ``render/NN.png``, ``fixed/NN.png``, ``confidence/NN.png`` and, to look at, ``sheet.png``.

    Where photos have alpha, so have the first two; the sheet is over black, as the fixer sees it.

    Args:
        done: the round.
        folder: of this round.
        photo: gives a captured view by its index.
    """
    pseudo = done.pseudo

    def write(i: int) -> None:
        for name, images in (("render", done.renders), ("fixed", pseudo.images)):
            image = images[i].numpy()
            layer = image if pseudo.alpha is None else straight(image, pseudo.alpha[i].numpy())
            write_image(folder / name / f"{i:02d}.png", layer)
        write_image(folder / "confidence" / f"{i:02d}.png", pseudo.confidence[i][..., None].expand(-1, -1, 3))

    with ThreadPoolExecutor(thread_name_prefix="write") as pool:
        list(pool.map(write, range(len(pseudo))))  # raises what a thread raised
    chosen = np.unique(np.linspace(0, len(pseudo) - 1, min(ROWS, len(pseudo))).round().astype(int)).tolist()
    rows = []
    for i in chosen:
        reference = int(pseudo.reference[i])
        panels = [done.renders[i].numpy(), pseudo.images[i].numpy()]
        panels.append(np.zeros_like(panels[0]) if reference < 0 else to_uint8(photo(reference).image))
        panels.append(np.repeat(pseudo.confidence[i].numpy()[..., None], 3, 2))
        rows.append(_row(panels))
    write_image(folder / "sheet.png", strip([_titles(), *rows], axis=0))


def _row(panels: list[UInt8[np.ndarray, "_ _ 3"]]) -> UInt8[np.ndarray, "_ _ 3"]:
    """The panels side by side, each as wide as a column and as high as the first."""
    height = round(panels[0].shape[0] * WIDTH / panels[0].shape[1])
    return strip([resize(panel, WIDTH, height) for panel in panels])


def _titles() -> UInt8[np.ndarray, "_ _ 3"]:
    titles = Image.new("RGB", (len(COLUMNS) * (WIDTH + GAP) - GAP, TITLE), "white")
    for i, title in enumerate(COLUMNS):
        ImageDraw.Draw(titles).text((i * (WIDTH + GAP) + 2, 2), title, "black")
    return np.asarray(titles)
