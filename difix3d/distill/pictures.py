"""Pictures of a round: what was rendered, what the fixer made of it, what it looked at, and the confidence in it."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from difix3d.distill.distiller import Round
from difix3d.images import GAP, resize, straight, strip, to_uint8, write_image
from difix3d.types import View

THREADS = 4
"""That write; few, so that they leave the training its cores."""

ROWS = 12
WIDTH = 320
TITLE = 16
COLUMNS = ("render", "fixed", "reference photo", "confidence (white); kept as rendered (blue)")
BLUE = (70, 110, 200)


class RoundPictures:
    """``render/NN.png``, ``fixed/NN.png``, ``confidence/NN.png`` and, to look at, ``sheet.png``.

    Where photos have alpha, so have the first two; the sheet is over black, as the fixer sees it. All that is written
    is here as bytes on the host that nobody changes, so that a training goes on meanwhile.

    Args:
        done: the round.
        folder: of this round.
        photo: gives a captured view by its index.
    """

    def __init__(self, done: Round, folder: Path, photo: Callable[[int], View]):
        self.folder = folder
        self.pseudo = done.pseudo
        self.renders, self.fixed = ([image.numpy() for image in images] for images in (done.renders, done.fixed))
        count = len(done.pseudo)
        self.shown = np.unique(np.linspace(0, count - 1, min(ROWS, count)).round().astype(int)).tolist()
        chosen = {int(done.pseudo.reference[i]) for i in self.shown} - {-1}
        self.photos = {index: to_uint8(photo(index).image) for index in chosen}

    def write(self, then: Callable[[], None]) -> "Future[None]":
        """Begins to write them, in a few threads.

        Args:
            then: is called in one of the threads, after all are on disk.

        Returns:
            Of all of it; raises what a thread raised, after the last of them has ended.
        """
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="write")
        writing = [pool.submit(self._write_view, i) for i in range(len(self.pseudo))]
        writing.append(pool.submit(self._write_sheet))

        def end() -> None:  # of those before, each has a thread already when this one gets its own
            wait(writing)
            for written in writing:
                written.result()
            then()

        ended = pool.submit(end)
        pool.shutdown(wait=False)  # the threads end after their work; a program that ends waits for it
        return ended

    def _write_view(self, i: int) -> None:
        pseudo = self.pseudo
        for name, image in (("render", self.renders[i]), ("fixed", self.fixed[i])):
            layer = image if pseudo.alpha is None else straight(image, pseudo.alpha[i].numpy())
            write_image(self.folder / name / f"{i:02d}.png", layer)
        write_image(self.folder / "confidence" / f"{i:02d}.png", _grey(pseudo.confidence[i]))

    def _write_sheet(self) -> None:
        rows = []
        for i in self.shown:
            render, reference = self.renders[i], int(self.pseudo.reference[i])
            photo = self.photos.get(reference, np.zeros_like(render))
            rows.append(_row([render, self.fixed[i], photo, self._taught(i)]))
        write_image(self.folder / "sheet.png", strip([_titles(), *rows], axis=0))

    def _taught(self, i: int) -> UInt8[np.ndarray, "_ _ 3"]:
        """What a view has to say: the weight of the fix, and where it says that all stays as it was rendered."""
        weight = self.pseudo.confidence[i]
        picture = _grey(weight)
        picture[(weight.numpy() > 0) & (self.pseudo.images[i].numpy() == self.renders[i]).all(2)] = BLUE
        return picture


def _grey(values: UInt8[Tensor, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    return np.repeat(values.numpy()[..., None], 3, 2)


def _row(panels: list[UInt8[np.ndarray, "_ _ 3"]]) -> UInt8[np.ndarray, "_ _ 3"]:
    """The panels side by side, each as wide as a column and as high as the first."""
    height = round(panels[0].shape[0] * WIDTH / panels[0].shape[1])
    return strip([resize(panel, WIDTH, height) for panel in panels])


def _titles() -> UInt8[np.ndarray, "_ _ 3"]:
    titles = Image.new("RGB", (len(COLUMNS) * (WIDTH + GAP) - GAP, TITLE), "white")
    for i, title in enumerate(COLUMNS):
        ImageDraw.Draw(titles).text((i * (WIDTH + GAP) + 2, 2), title, "black")
    return np.asarray(titles)
