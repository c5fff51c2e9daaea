"""Files of every kind that is read, tiny and whole, each with the way that it is read; and how bytes in them change."""

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from flat_pair import write_evaluated_run
from PIL import Image
from ring_scene import ring, write_model, write_photos

PHOTOS = 4
SOME = np.random.default_rng(0)


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        name: of the kind.
        file: the one whose bytes are changed.
        read: what people do that reads it; returns what came out, to be looked at.
        pack: from changed bytes to the file's, where a checksum would find any change at once.
    """

    name: str
    file: Path
    content: bytes
    read: Callable[[], object]
    pack: Callable[[bytes], bytes] = bytes


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with one to three of them changed: a bit, all eight, or to another byte of the content, so that text
    may stay text; one time in eight the end is missing as well."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at, other = rng.integers(len(data), size=2)
        data[at] = (data[at] ^ 1 << int(rng.integers(8)), int(rng.integers(256)), content[other])[rng.integers(3)]
    return bytes(data[: int(rng.integers(len(data)))] if rng.integers(8) == 0 else data)


def kinds(folder: Path, toy_scene) -> list[Kind]:
    """All of them, below a folder."""
    text, binary = folder / "text", folder / "binary"
    names = write_photos(text / "images", PHOTOS)
    write_model(text / "sparse" / "0", names, "OPENCV 32 24 30 30 16 12 0.01 0 0 0")
    write_photos(binary / "images", PHOTOS)
    _write_binary(binary / "sparse" / "0", names)
    return [
        *(_model(text, f"{name}.txt") for name in ("cameras", "images", "points3D")),
        *(_model(binary, f"{name}.bin") for name in ("cameras", "images", "points3D")),
        *_transforms(folder / "transforms"),
        *_splats(folder / "splats"),
        *_run(folder / "run", toy_scene),
        *_weights(folder / "weights"),
        *_images(folder / "pictures"),
    ]


def _load(folder: Path) -> object:
    from difix3d.scene import Views, load_scene

    scene = load_scene(folder)
    Views(scene)[0]
    return scene


def _kind(name: str, file: Path, read: Callable[[], object], **more) -> Kind:
    return Kind(name, file, file.read_bytes(), read, **more)


def _model(scene: Path, name: str) -> Kind:
    return _kind(name, scene / "sparse" / "0" / name, lambda: _load(scene))


def _write_binary(model: Path, names: list[str]) -> None:
    from ring_scene import quaternion

    model.mkdir(parents=True)
    camera = struct.pack("<QiiQQ4d", 1, 1, 1, 32, 24, 30, 30, 16, 12)
    images, points = [struct.pack("<Q", len(names))], [struct.pack("<Q", 3)]
    for i, (name, c2w) in enumerate(zip(names, ring(len(names)), strict=True)):
        w2c = np.linalg.inv(c2w)
        images.append(struct.pack("<i7di", i + 1, *quaternion(w2c[:3, :3]), *w2c[:3, 3], 1))
        images.append(name.encode() + b"\0" + struct.pack("<Qddq", 1, 3.0, 4.0, 7))
    for i, xyz in enumerate(((5, 0, 0), (5.5, 0.25, 0), (4.5, 0, -0.5))):
        points.append(struct.pack("<Q3d3BdQ4i", i, *xyz, 200, 100, 9, 0.5, 2, 1, i, 2, i))
    for file, parts in {"cameras": [camera], "images": images, "points3D": points}.items():
        (model / f"{file}.bin").write_bytes(b"".join(parts))


def _transforms(folder: Path) -> list[Kind]:
    from plyfile import PlyData, PlyElement

    names = write_photos(folder / "images", PHOTOS)
    frames = [
        {"file_path": f"images/{name}", "transform_matrix": (pose @ np.diag([1.0, -1, -1, 1])).round(6).tolist()}
        for name, pose in zip(names, ring(PHOTOS), strict=True)
    ]
    lens = {"w": 32, "h": 24, "fl_x": 30.0, "fl_y": 30.0, "cx": 16.0, "cy": 12.0, "k1": 0.01, "camera_model": "OPENCV"}
    content = lens | {"ply_file_path": "sparse_pc.ply", "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content, indent=1))
    (folder / "split.json").write_text(json.dumps({"train": names[1:], "eval": names[:1]}))
    dtype = [(axis, "f8") for axis in "xyz"] + [(color, "u1") for color in ("red", "green", "blue")]
    points = np.array([(5, 0, 0, 1, 2, 3), (5.5, 0.25, 0, 4, 5, 6), (4.5, 0, -0.5, 7, 8, 9)], dtype)
    PlyData([PlyElement.describe(points, "vertex")]).write(str(folder / "sparse_pc.ply"))
    files = ("transforms.json", "split.json", "sparse_pc.ply")
    return [_kind(name, folder / name, lambda: _load(folder)) for name in files]


def _splats(folder: Path) -> list[Kind]:
    from difix3d.gaussians import read_splats, write_ply
    from difix3d.types import Gaussians

    folder.mkdir()
    model = Gaussians(
        means=torch.tensor([[0.5, -1.25, 3.0], [-2.0, 0.0, 0.25], [1.0, 2.0, -4.0]]),
        quats=torch.nn.functional.normalize(torch.tensor([[1.0, 0, 0, 0], [0.5, -0.5, 0.5, -0.5], [1, 7, -7, 1]])),
        scales=torch.tensor([[-3.0, -2.5, -4.0]]).repeat(3, 1),
        opacities=torch.tensor([-1.0, 0.5, 1.0]),
        sh0=torch.tensor([[0.0, 1.0, -1.0]]).repeat(3, 1)[:, None],
        shN=torch.tensor([[0.5, 0.25, 0.0], [-0.5, 0.125, 0.25], [0.0, -0.25, 0.5]]).repeat(3, 1, 1),
    )
    write_ply(model, folder / "plain.ply")
    write_ply(replace(model, means=model.means.double() + 5e6), folder / "offset.ply")
    write_ply(model, folder / "packed.ply", compressed=True)
    row = struct.pack("<6f8B", 1, 2, 3, 0.1, 0.2, 0.3, 200, 100, 50, 255, 255, 128, 128, 128)
    (folder / "a.splat").write_bytes(3 * row)
    spz = struct.pack("<4sIIBBBB", b"NGSP", 3, 3, 0, 12, 0, 0) + bytes(SOME.integers(0, 256, 60, np.uint8))
    (folder / "a.spz").write_bytes(spz)
    found = ("plain.ply", "offset.ply", "packed.ply", "a.splat")
    rest = [_kind(name, folder / name, lambda name=name: read_splats(folder / name)) for name in found]
    beside = folder / "offset.offset.json"
    return [
        *rest,
        Kind("point_cloud.offset.json", beside, beside.read_bytes(), lambda: read_splats(folder / "offset.ply")),
        Kind("a.spz", folder / "a.spz", spz, lambda: read_splats(folder / "a.spz"), gzip.compress),
        Kind("packed a.spz", folder / "a.spz", gzip.compress(spz), lambda: read_splats(folder / "a.spz")),
    ]


def _run(folder: Path, toy_scene) -> list[Kind]:
    from difix3d.evaluate import read_evaluation, table
    from difix3d.report import write_report
    from difix3d.runfiles import write_state
    from difix3d.scene.pathfile import CameraPath, read_path, write_path
    from difix3d.training.load import load_run
    from difix3d.training.run import RunFolder

    run = write_evaluated_run(folder, toy_scene)
    scene = load_run(run).scene
    home, evaluation = RunFolder(run, scene), read_evaluation(run)
    cameras = scene.cameras[[0, 1]]
    write_path(CameraPath(cameras, 24.0), folder / "path.json", scene)
    pose = (cameras.c2w[0].double().numpy() @ np.diag([1.0, -1, -1, 1])).reshape(-1).tolist()
    theirs = {"render_width": 48, "render_height": 40, "fps": 24, "camera_path": [{"camera_to_world": pose, "fov": 50}]}
    (folder / "nerfstudio.json").write_text(json.dumps(theirs))

    def evaluated() -> object:
        found = table([read_evaluation(run)])
        return found.csv(), found.markdown(), found.latex(), read_evaluation(run).harm

    for name in ("metrics.json", "rounds.json"):
        write_state(run / name, (run / name).read_text())
    checkpoint = next((run / "checkpoints").iterdir())
    return [
        *(
            _kind(file.name, file, lambda: load_run(run))
            for file in (run / "config.yaml", run / "scene.json", checkpoint)
        ),
        _kind("checksums.json", run / "checksums.json", lambda: load_run(run)),
        _kind("metrics.json", run / "metrics.json", lambda: write_report(home)),
        _kind("rounds.json", run / "rounds.json", lambda: write_report(home, None, evaluation)),
        _kind("evaluation.json", run / "evaluation.json", evaluated),
        *(
            _kind(name, folder / name, lambda name=name: read_path(folder / name, scene))
            for name in ("path.json", "nerfstudio.json")
        ),
    ]


def _weights(folder: Path) -> list[Kind]:
    import difix3d.difix
    from difix3d.difix.weights import load_parts

    shutil.copytree(Path(difix3d.difix.__file__).parent / "mini", folder)
    files = ("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json", "prompt_embeds.safetensors")
    return [_kind(f"weights' {name}", folder / name, lambda: load_parts(folder)) for name in files]


def _images(folder: Path) -> list[Kind]:
    from difix3d.images import image_size, image_turn, may_be_transparent, read_mask, read_photo
    from difix3d.sfm.listing import read_header

    def read(path: Path) -> object:
        read_header(path)
        image_size(path)
        image_turn(path)
        may_be_transparent(path)
        read_mask(path)
        return read_photo(path)

    folder.mkdir()
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "a.jpg", exif=exif)
    picture.save(folder / "a.png", exif=exif)
    picture.convert("RGBA").save(folder / "a.webp")
    Image.fromarray(rng.integers(0, 65536, (12, 16), np.uint16)).save(folder / "a.tif")
    picture.save(folder / "a.bmp")
    files = sorted(folder.iterdir())
    return [_kind(file.name, file, lambda file=file: read(file)) for file in files]
