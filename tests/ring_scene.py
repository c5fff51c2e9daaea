"""A tiny scene on disk for the tests of this folder: a ring of cameras around a few points, photos of smooth colour."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from difix3d.geometry.poses import look_at

WIDTH, HEIGHT = 32, 24
CAMERA = f"PINHOLE {WIDTH} {HEIGHT} 30 30 16 12"


def ring(count: int) -> np.ndarray:
    """Poses [count,4,4] around the point (5, 0, 0), 3 units away, z up."""
    angle = torch.arange(count).double() * 0.3
    position = torch.stack([5 + 3 * angle.cos(), 3 * angle.sin(), 0.5 + 0 * angle], 1)
    return look_at(position, torch.tensor([5.0, 0, 0]).double(), torch.tensor([0, 0, 1.0]).double()).numpy()


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """wxyz, by the eigenvector of Bar-Itzhack's matrix: another way than the product's."""
    m = rotation
    k = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], 0, 0, 0],
            [m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], 0, 0],
            [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1], 0],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], np.trace(m)],
        ]
    )
    x, y, z, w = np.linalg.eigh(k / 3)[1][:, -1]
    return np.array([w, x, y, z])


def write_photos(folder: Path, count: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i:03d}.png" for i in range(count)]
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    for i, name in enumerate(names):
        Image.fromarray(np.stack([x, y, 0 * x + 9 * i], -1).astype(np.uint8)).save(folder / name)
    return names


def write_model(model: Path, names: list[str], camera: str, points: list[str] | None = None) -> None:
    """A COLMAP text model; ``camera`` is "MODEL WIDTH HEIGHT PARAMS"; every point is seen by images 1 and 2."""
    points = ["5 0 0", "5.5 0.25 0", "4.5 0 -0.5"] if points is None else points
    model.mkdir(parents=True, exist_ok=True)
    (model / "cameras.txt").write_text(f"# cameras\n1 {camera}\n")
    lines = ["# images"]
    for i, (name, c2w) in enumerate(zip(names, ring(len(names)), strict=True)):
        w2c = np.linalg.inv(c2w)
        numbers = " ".join(f"{v:.17g}" for v in (*quaternion(w2c[:3, :3]), *w2c[:3, 3]))
        keypoints = [f"1 {n} {7 * n + 3}" for n in range(len(points))] if i < 2 else []
        lines += [f"{i + 1} {numbers} 1 {name}", " ".join(keypoints)]
    (model / "images.txt").write_text("\n".join(lines) + "\n")
    rows = [f"{7 * i + 3} {xyz} 200 100 {i} 0.5 1 {i} 2 {i}" for i, xyz in enumerate(points)]
    (model / "points3D.txt").write_text("\n".join(["# points", *rows]) + "\n")


def write_ring(folder: Path, count: int = 10, camera: str = CAMERA, points: list[str] | None = None) -> Path:
    """Writes a COLMAP scene into ``folder/ring`` and returns that."""
    names = write_photos(folder / "ring" / "images", count)
    write_model(folder / "ring" / "sparse" / "0", names, camera, points)
    return folder / "ring"
