"""Makes ``demo.png`` of the README from a run of ``difix3d train --scene demo``, and prints its figures.

python docs/images/demo.py outputs/demo/RUN --data-dir data
"""

import tempfile
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

from difix3d.evaluate import ABLATION, Pictures, draw, measure
from difix3d.images import read_image, resize, to_uint8
from difix3d.scene import Views, load_scene
from difix3d.training.load import load_run
from difix3d.training.variants import choose_fixer, choose_rows

SHOWN = {"interpolation": ("between the cameras", 2), "extrapolation": ("far off the cameras", 5)}
"""The held-out sets of the scene, which share their training photos, and the view of each that is shown."""
WIDTH, GAP, TITLE = 320, 4, 26


def main(run: tyro.conf.Positional[Path], data_dir: Path = Path("data")) -> None:
    """Writes the picture beside this file.

    Args:
        run: folder of the training, with plain 3DGS beside it (``--compare``).
        data_dir: where the embedded scene was written.
    """
    before, after = load_run(run / "plain", data_dir=data_dir), load_run(run, data_dir=data_dir)
    fixer, why = choose_fixer(None, after)
    renders, _ = choose_rows({"3dgs": before, "difix3d": after}, fixer, ("3dgs", "difix3d", "difix3d+"), why)
    rows = []
    for split, (where, number) in SHOWN.items():
        scene = load_scene("demo", data_dir=data_dir, split=split)
        views = [Views(scene)[int(i)] for i in scene.test]
        names, shown = [f"{where}: photo"], [to_uint8(views[number].image)]
        for key, render in renders.items():
            title = ABLATION[key].title
            with tempfile.TemporaryDirectory() as folder:
                pictures = Pictures(title, Path(folder), "")
                draw(render, views, pictures)
                (result,), _ = measure(("psnr", "ssim"), [pictures], views)
                shown.append(read_image(pictures.path(views[number])))
            print(f"{split}, {title}: {result.mean('psnr'):.2f} dB, SSIM {result.mean('ssim'):.3f}, {len(views)} views")
            one = result.values("psnr")[views[number].name]
            names.append(f"{title}: here {one:.1f} dB, all {len(views)} views {result.mean('psnr'):.1f}")
        rows += [titles(names), beside(shown)]
    Image.fromarray(np.concatenate(rows)).save(Path(__file__).with_suffix(".png"), optimize=True)


def beside(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures side by side."""
    height = round(pictures[0].shape[0] * WIDTH / pictures[0].shape[1])
    row = Image.new("RGB", (len(pictures) * (WIDTH + GAP) - GAP, height), "white")
    for i, picture in enumerate(pictures):
        row.paste(Image.fromarray(resize(picture, WIDTH, height)), (i * (WIDTH + GAP), 0))
    return np.asarray(row)


def titles(names: list[str]) -> np.ndarray:
    """What the pictures are."""
    strip = Image.new("RGB", (len(names) * (WIDTH + GAP) - GAP, TITLE), "white")
    for i, name in enumerate(names):
        ImageDraw.Draw(strip).text((i * (WIDTH + GAP) + 2, 5), name, "black", font=ImageFont.load_default(15))
    return np.asarray(strip)


if __name__ == "__main__":
    tyro.cli(main)
