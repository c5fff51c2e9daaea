"""Writes a synthetic scene as a folder of photos with a COLMAP model: what a capture would have left."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from difix3d.console import track
from difix3d.errors import UserError
from difix3d.files import read_json
from difix3d.synthetic.scene import SPLITS, SyntheticScene
from difix3d.types import Cameras

MARKER = "synthetic.json"
"""What a finished folder was made with."""

POINTS = 6000
"""Sparse points that are tried."""

Track = list[tuple[int, list[float]]]
"""Where a point was seen: index of the camera, pixel (x, y)."""


def write_scene(seed: int, folder: Path, width: int = 320, height: int = 240) -> Path:
    """Renders a scene into a capture folder: ``images/``, ``sparse/0/*.txt`` (COLMAP), ``split.json``.

    A folder that this version of the generator finished already is left as it is, one of another version is made anew.
    The folder appears whole or not at all.

    Args:
        seed: of the scene.
        folder: where to; its parents are made.
        width, height: of the images in pixels.

    Returns:
        the folder.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    stamp = {"seed": seed, "width": width, "height": height, "generator": _fingerprint()}
    marker = folder / MARKER
    if marker.is_file() and read_json(marker) == stamp:
        return folder
    if folder.exists() and not marker.is_file():
        raise UserError(
            f"{folder} exists and was not made by the generator of synthetic scenes",
            "What is in it would be lost",
            "Move it away or choose another folder",
        )
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    try:
        (partial / "images").mkdir(parents=True)
        (partial / "sparse" / "0").mkdir(parents=True)
        _fill(SyntheticScene(seed), partial, width, height)
        (partial / MARKER).write_text(json.dumps(stamp, indent=1))
        if folder.exists():
            shutil.rmtree(folder)
        partial.replace(folder)
    except OSError as error:
        cure = "Free some space or choose another --data-dir"
        raise UserError(f"The scene could not be written to {folder}: {error}", cure=cure) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _fingerprint() -> str:
    """Changes whenever the generator's source does, so that no folder can be out of date unnoticed."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


def _fill(scene: SyntheticScene, folder: Path, width: int, height: int) -> None:
    names = []
    groups = []
    images = []
    for split, count in SPLITS.items():
        groups.append(scene.cameras(split, width, height))
        names += [f"{split}_{index:03}.png" for index in range(count)]
    cameras = Cameras.cat(groups)
    for index in track(range(len(cameras)), len(cameras), f"render the scene {scene.seed}"):
        rgb = scene.render(cameras[index], depth=False).rgb[0]
        images.append((rgb * 255).round().to(torch.uint8))
        Image.fromarray(images[-1].numpy()).save(folder / "images" / names[index])
    _write_model(folder / "sparse" / "0", cameras, names, *sparse_points(scene, cameras, images))
    train, inside, far = np.split(np.array(names), np.cumsum(list(SPLITS.values()))[:-1])
    splits = {
        "regime": "extrapolation",
        "train": train.tolist(),
        "eval": far.tolist(),
        "unused": inside.tolist(),
        "interpolation": {"train": train.tolist(), "eval": inside.tolist()},
    }
    (folder / "split.json").write_text(json.dumps(splits, indent=1))


def sparse_points(
    scene: SyntheticScene, cameras: Cameras, images: list[Tensor]
) -> tuple[Float[Tensor, "P 3"], UInt8[Tensor, "P 3"], list[Track]]:
    """Points as structure from motion finds them: textured, seen by at least two training cameras, a little wrong.

    Returns:
        the points, their colours, and their tracks.
    """
    rng = torch.Generator().manual_seed(scene.seed)
    train, (width, _) = SPLITS["train"], cameras.size
    points, colors = [], []
    for index in range(train):
        gray = images[index].float().mean(2)
        detail = torch.zeros_like(gray)
        detail[1:-1, 1:-1] = (gray[1:-1, 2:] - gray[1:-1, :-2]).abs() + (gray[2:, 1:-1] - gray[:-2, 1:-1]).abs()
        pixel = torch.multinomial((detail.clamp(max=60) + 0.3).flatten(), POINTS // train, generator=rng)
        local = torch.stack([pixel % width + 0.5, pixel // width + 0.5, torch.ones(len(pixel))], 1)
        ray = local @ torch.linalg.inv(cameras.K[index]).T @ cameras.c2w[index, :3, :3].T
        center = cameras.centers[index, None]
        points.append(center + scene.world.trace(center, ray).t[:, None] * ray)
        colors.append(images[index].reshape(-1, 3)[pixel])
    exact, color = torch.cat(points), torch.cat(colors)
    pixels, seen = map(torch.stack, zip(*(scene.visible(cameras[k], exact) for k in range(len(cameras))), strict=True))
    pixels += 0.4 * torch.randn(pixels.shape, generator=rng)
    seen &= torch.rand(seen.shape, generator=rng) < 0.7  # no feature is found everywhere
    keep = (seen[:train].sum(0) >= 2).nonzero()[:, 0]
    tracks = [[(k, pixels[k, p].tolist()) for k in seen[:, p].nonzero()[:, 0].tolist()] for p in keep.tolist()]
    depth = (exact[keep] - cameras.centers[0]).norm(dim=1, keepdim=True)
    blur = 0.4 * depth / cameras.K[0, 0, 0]
    wrong = torch.rand(len(keep), 1, generator=rng) < 0.02
    offset = torch.randn(len(keep), 3, generator=rng) * torch.where(wrong, 0.03 * depth, blur)
    return exact[keep] + offset, color[keep], tracks


def _write_model(
    folder: Path, cameras: Cameras, names: list[str], points: Tensor, colors: Tensor, tracks: list[Track]
) -> None:
    """The three text files of a COLMAP model; every number as exact as a float32 is."""
    sightings: list[list[str]] = [[] for _ in names]
    lines = []
    for point, (xyz, rgb, seen) in enumerate(zip(points.tolist(), colors.tolist(), tracks, strict=True), start=1):
        ends = []
        for camera, (x, y) in seen:
            ends.append(f"{camera + 1} {len(sightings[camera])}")
            sightings[camera].append(f"{x:.3f} {y:.3f} {point}")
        position = " ".join(f"{value:.7g}" for value in xyz)
        lines.append(f"{point} {position} {' '.join(map(str, rgb))} 0.5 {' '.join(ends)}\n")
    (folder / "points3D.txt").write_text("".join(lines))

    (width, height), K = cameras.size, cameras.K[0].tolist()
    intrinsics = f"{K[0][0]} {K[1][1]} {K[0][2]} {K[1][2]}"
    (folder / "cameras.txt").write_text(f"1 PINHOLE {width} {height} {intrinsics}\n")

    lines = []
    for index, (w2c, name) in enumerate(zip(cameras.w2c.double().numpy(), names, strict=True), start=1):
        pose = " ".join(f"{value:.9g}" for value in (*_quaternion(w2c[:3, :3]), *w2c[:3, 3]))
        lines.append(f"{index} {pose} 1 {name}\n{' '.join(sightings[index - 1])}\n")
    (folder / "images.txt").write_text("".join(lines))


def _quaternion(r: np.ndarray) -> np.ndarray:
    """wxyz of a rotation matrix: the eigenvector of Bar-Itzhack's symmetric matrix (J. Guidance 23(6), 2000)."""
    k = np.zeros((4, 4))
    k[1:, 1:] = r + r.T - np.trace(r) * np.eye(3)
    k[0, 1:] = k[1:, 0] = r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]
    k[0, 0] = np.trace(r)
    return np.linalg.eigh(k)[1][:, -1]
