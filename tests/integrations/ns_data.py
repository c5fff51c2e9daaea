"""Small inputs for nerfstudio, made from scenes of ours."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from plyfile import PlyData

ALEXNET = "alexnet-owt-7be5be79.pth"
"""What nerfstudio's LPIPS wants in torch's cache of downloads."""


def write_nerfstudio(scene, folder: Path) -> Path:
    """A scene as nerfstudio's ``transforms.json``, with its split and points, in the scene's normalised world."""
    from difix3d.files import write_json
    from difix3d.geometry.poses import FROM_OPENGL
    from difix3d.images import write_image
    from difix3d.scene import Views

    views = Views(scene)
    frames = []
    for index in [*scene.train.tolist(), *scene.test.tolist()]:
        camera, name = scene.cameras[index], f"images/{index:03d}.png"
        write_image(folder / name, views[index].image)
        K = camera.K[0].tolist()
        frames.append(
            {
                "file_path": name,
                "transform_matrix": (camera.c2w[0].double().numpy() @ FROM_OPENGL).tolist(),
                "fl_x": K[0][0],
                "fl_y": K[1][1],
                "cx": K[0][2],
                "cy": K[1][2],
                "w": int(camera.width[0]),
                "h": int(camera.height[0]),
            }
        )
    names = [frame["file_path"] for frame in frames]
    held_out = names[len(scene.train) :]
    lists = {"train_filenames": names[: len(scene.train)], "val_filenames": held_out, "test_filenames": held_out}
    write_json(
        folder / "transforms.json", {"camera_model": "OPENCV", "frames": frames, **lists} | _points(scene, folder)
    )
    return folder


def _points(scene, folder: Path) -> dict[str, str]:
    rows = [
        " ".join(map(str, [*point.tolist(), *color.tolist()]))
        for point, color in zip(scene.points.astype(np.float32), scene.colors, strict=True)
    ]
    header = ["ply", "format ascii 1.0", f"element vertex {len(rows)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"property uchar {color}" for color in ("red", "green", "blue")]
    (folder / "points.ply").write_text("\n".join([*header, "end_header", *rows, ""]))
    return {"ply_file_path": "points.ply"}


def write_alexnet(home: Path) -> None:
    """Random weights in place of the ones that nerfstudio would download."""
    import torchvision

    torch.manual_seed(0)
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), folder / ALEXNET)


def stand_in_for_open3d() -> None:
    """nerfstudio reads points with open3d, which cannot be imported where the system lacks libusb or libGL."""
    try:
        import open3d  # noqa: F401
    except (ImportError, OSError):
        io = SimpleNamespace(read_point_cloud=_point_cloud)
        sys.modules["open3d"] = SimpleNamespace(io=io)  # type: ignore[assignment]


def _point_cloud(path: str) -> SimpleNamespace:
    table = PlyData.read(path)["vertex"]
    points = np.stack([table[axis] for axis in "xyz"], 1).astype(np.float64)
    colors = np.stack([table[color] for color in ("red", "green", "blue")], 1) / 255
    return SimpleNamespace(points=points, colors=colors)
