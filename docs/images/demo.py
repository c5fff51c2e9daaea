"""Makes ``demo.png`` of the README from a run of ``python scripts/train.py --scene demo``, and prints its figures.

python docs/images/demo.py outputs/demo/RUN --data-dir data
"""

from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

from difix3d.evaluate import evaluate
from difix3d.images import resize, to_uint8
from difix3d.scene import Views, load_scene
from difix3d.training.load import load_run

SHOWN = {"interpolation": ("between the training cameras", 2), "extrapolation": ("far off the training cameras", 5)}
"""The held-out sets of the scene, which share their training photos, and the view of each that is shown."""
WIDTH, GAP, TITLE = 448, 6, 34


def main(run: tyro.conf.Positional[Path], data_dir: Path = Path("data")) -> None:
    """Writes the picture beside this file.

    Args:
        run: folder of the training.
        data_dir: where the embedded scene was written.
    """
    model = load_run(run, data_dir=data_dir)
    rows = []
    for split, (where, number) in SHOWN.items():
        scene = load_scene("demo", data_dir=data_dir, split=split)
        views = Views(scene)
        result = evaluate(model.render, (views[int(i)] for i in scene.test), split=split)
        print(f"{split}: {result.mean('psnr'):.2f} dB, SSIM {result.mean('ssim'):.3f}, {len(result.images)} views")
        view = views[int(scene.test[number])]
        photo, render = to_uint8(view.image), to_uint8(model.render(view.camera).rgb[0])
        rows += [titles(f"{where}: photo", f"render, {result.images[number].psnr:.1f} dB"), pair(photo, render)]
    Image.fromarray(np.concatenate(rows)).save(Path(__file__).with_suffix(".png"), optimize=True)


def pair(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two pictures side by side."""
    height = round(left.shape[0] * WIDTH / left.shape[1])
    gap = np.full((height, GAP, 3), 255, np.uint8)
    return np.concatenate([resize(left, WIDTH, height), gap, resize(right, WIDTH, height)], axis=1)


def titles(left: str, right: str) -> np.ndarray:
    """What the two pictures are."""
    strip = Image.new("RGB", (2 * WIDTH + GAP, TITLE), "white")
    for x, text in ((4, left), (WIDTH + GAP + 4, right)):
        ImageDraw.Draw(strip).text((x, 8), text, "black", font=ImageFont.load_default(17))
    return np.asarray(strip)


if __name__ == "__main__":
    tyro.cli(main)
