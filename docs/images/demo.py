"""Makes ``demo.png`` of the README from a run of ``difix3d train --scene demo``, and prints its figures.

python scripts/train.py --scene demo --output-dir outputs/demo
python docs/images/demo.py outputs/demo --data-dir data
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
    before, after = (load_run(path, data_dir=data_dir) for path in (run / "plain", run))
    fixer, why = choose_fixer(None, after)
    rows, _ = choose_rows({"3dgs": before, "difix3d": after}, fixer, ("3dgs", "difix3d+"), why)
    renders = {ABLATION[key].title: render for key, render in rows.items()}
    strips = []
    for split, (where, number) in SHOWN.items():
        scene = load_scene("demo", data_dir=data_dir, split=split)
        views = [Views(scene)[int(i)] for i in scene.test]
        names, shown = [f"{where}: photo"], [to_uint8(views[number].image)]
        for title, render in renders.items():
            with tempfile.TemporaryDirectory() as folder:
                pictures = Pictures(title, Path(folder), "")
                draw(render, views, pictures)
                (result,), _ = measure(("psnr", "ssim"), [pictures], views)
                shown.append(read_image(pictures.path(views[number])))
            print(f"{split}, {title}: {result.mean('psnr'):.2f} dB, SSIM {result.mean('ssim'):.3f}, {len(views)} views")
            one = result.values("psnr")[views[number].name]
            names.append(f"{title}: {one:.1f} dB ({len(views)} views: {result.mean('psnr'):.1f})")
        strips += [titles(names), beside(shown)]
    Image.fromarray(np.concatenate(strips)).save(Path(__file__).with_suffix(".png"), optimize=True)


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
