"""360 photos: cut into faces with right pixels, poses, points and splits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from PIL import Image
from ring_scene import CAMERA, ring, write_model, write_photos

from difix3d.errors import UserError
from difix3d.geometry.panorama import FACES
from difix3d.scene import Views, load_scene
from difix3d.scene.paths import path_cameras
from difix3d.scene.views import decode
from difix3d.training.clear import ways

WIDTH = 512
FULL = f"EQUIRECTANGULAR {WIDTH} {WIDTH // 2} {WIDTH} {WIDTH // 2}"


def color(directions: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
    """0..255, smooth and different in every direction of the world."""
    unit = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    return 127.5 + 60 * unit + 60 * np.sin(6 * unit[..., [1, 2, 0]])


def panorama(c2w: Float[np.ndarray, "4 4"], width: int = WIDTH) -> Image.Image:
    """What a 360 camera sees of :func:`color`, by the convention as it stands in COLMAP's source."""
    longitude, latitude = np.meshgrid(
        2 * np.pi * ((np.arange(width) + 0.5) / width - 0.5),
        np.pi * ((np.arange(width // 2) + 0.5) / (width // 2) - 0.5),
    )
    across = np.cos(latitude)
    local = np.stack([across * np.sin(longitude), np.sin(latitude), across * np.cos(longitude)], -1)
    return Image.fromarray(color(local @ c2w[:3, :3].T).round().astype(np.uint8))


def write_360(folder: Path, count: int = 9, camera: str = FULL, width: int = WIDTH) -> Path:
    """A COLMAP scene of panoramas on a ring."""
    (folder / "images").mkdir(parents=True)
    names = [f"pano_{i}.png" for i in range(count)]
    for name, c2w in zip(names, ring(count), strict=True):
        panorama(c2w, width).save(folder / "images" / name)
    write_model(folder / "sparse" / "0", names, camera)
    return folder


def expected(scene, index: int) -> Float[np.ndarray, "H W 3"]:
    """The exact colours that a camera of the scene sees (the world may be turned)."""
    camera = scene.cameras[index]
    width, height = camera.size
    K = camera.K[0].double().numpy()
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1)
    to_input = np.linalg.inv(scene.from_input[:3, :3])
    return color(rays @ camera.c2w[0, :3, :3].double().numpy().T @ to_input.T)


@pytest.mark.parametrize("resolution", [None, 60])
def test_faces_show_what_their_cameras_see(tmp_path: Path, resolution: int | None):
    scene = load_scene(write_360(tmp_path / "s", 2), resolution=resolution)
    assert [photo.name for photo in scene.photos] == [f"pano_{i}/{face}" for face in FACES for i in (0, 1)]
    side = int(scene.cameras.width[0])
    assert side == (resolution or round(WIDTH / np.pi))
    for view in Views(scene):
        error = np.abs(view.image.numpy() * 255 - expected(scene, view.index))
        assert error.max() < 2.5, view.name  # rounded twice
        assert error.mean() < 0.5, view.name


def test_a_panorama_that_is_stored_on_its_side(tmp_path: Path):
    folder = write_360(tmp_path / "s", 3)
    right = [view.image for view in Views(load_scene(folder))]
    exif = Image.Exif()
    exif[0x0112] = 6
    for file in (folder / "images").iterdir():
        with Image.open(file) as image:
            image.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)
    assert all(map(torch.equal, right, (view.image for view in Views(load_scene(folder)))))


def test_faces_of_a_large_panorama_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("difix3d.scene.cache.EXPENSIVE", 1000)
    monkeypatch.setattr("difix3d.scene.cache.KEEP_FREE_BYTES", 0)
    scene = load_scene(write_360(tmp_path / "s", 2), resolution=64)
    cache = tmp_path / "cache" / "photos"
    first = [decode(photo, scene.cameras[i], cache)[0] for i, photo in enumerate(scene.photos)]
    assert len(list(cache.iterdir())) == 12
    monkeypatch.setattr("difix3d.scene.panorama.read_photo", None)
    again = [decode(photo, scene.cameras[i], cache)[0] for i, photo in enumerate(scene.photos)]
    assert all(map(torch.equal, first, again))


def test_a_mask_goes_with_its_panorama(tmp_path: Path):
    folder = write_360(tmp_path / "s", 2)
    counts = np.full((WIDTH // 2, WIDTH), 255, np.uint8)
    counts[-WIDTH // 16 :] = 0  # 22.5 degrees from the lowest point: the tripod
    counts[WIDTH // 4 - 10 : WIDTH // 4 + 10, :10] = counts[WIDTH // 4 - 10 : WIDTH // 4 + 10, -10:] = 0
    (folder / "masks").mkdir()
    Image.fromarray(counts).save(folder / "masks" / "pano_0.png.png")
    masks = {view.name: view.mask for view in Views(load_scene(folder))}
    assert [name for name, mask in masks.items() if mask is not None] == ["pano_0/back", "pano_0/down"]
    down, back = masks["pano_0/down"].numpy(), masks["pano_0/back"].numpy()
    y, x = np.mgrid[: len(down), : len(down)] + 0.5 - len(down) / 2
    tripod = np.hypot(x, y) < WIDTH / (2 * np.pi) * np.tan(np.radians(22.5))
    assert (down == ~tripod).mean() > 0.99
    square = (np.abs(x) < 10) & (np.abs(y) < 10)  # one, on both sides of the seam
    assert (back == ~square).mean() > 0.99


def test_transparent_pixels_of_a_panorama_do_not_count(tmp_path: Path):
    """Programs that stitch leave what no lens has seen transparent: it is unknown, not empty."""
    folder = write_360(tmp_path / "s", 2)
    whole = {view.name: view.image for view in Views(load_scene(folder))}
    file = folder / "images" / "pano_0.png"
    with Image.open(file) as image:
        layer = image.convert("RGBA")
    alpha = np.full((WIDTH // 2, WIDTH), 255, np.uint8)
    alpha[-WIDTH // 16 :] = 0
    layer.putalpha(Image.fromarray(alpha))
    layer.save(file)
    scene = load_scene(folder)
    assert not scene.alpha
    views = {view.name: view for view in Views(scene)}
    down = views["pano_0/down"]
    assert down.alpha is None
    assert 0.8 < down.mask.float().mean() < 0.88
    assert (down.image - whole["pano_0/down"])[down.mask].abs().max() < 0.02
    assert views["pano_0/up"].mask is None


def test_all_faces_are_on_the_same_side_of_the_split(tmp_path: Path):
    folder = write_360(tmp_path / "s")
    names = [photo.name for photo in load_scene(folder).photos]
    scene = load_scene(folder)
    assert [names[i] for i in scene.test] == [f"pano_{n}/{face}" for face in FACES for n in (0, 8)]
    assert len(scene.train) == 42
    (folder / "split.json").write_text(json.dumps({"train": ["pano_0", "pano_3.png"], "eval": ["pano_5"]}))
    scene = load_scene(folder)
    assert {names[i].split("/")[0] for i in scene.train} == {"pano_0", "pano_3"}
    assert [names[i] for i in scene.test] == [f"pano_5/{face}" for face in FACES]


def test_a_point_is_seen_by_the_face_it_lies_before(tmp_path: Path):
    """By one of each panorama: a point that two photos see is a point that two panoramas see."""
    scene = load_scene(write_360(tmp_path / "s"), split="none")
    assert len(scene.observations) == 6  # three points, each seen by panoramas 0 and 1
    for point, photo in scene.observations.tolist():
        camera = scene.cameras[photo]
        local = camera.w2c[0, :3].double().numpy() @ np.append(scene.points[point], 1)
        assert local[2] > 0
        assert np.abs(local[:2]).max() <= local[2]
    assert {photo % 9 for photo in scene.observations[:, 1]} == {0, 1}


def test_faces_of_a_panorama_are_in_one_place_and_paths_follow_those_that_look_ahead(tmp_path: Path):
    scene = load_scene(write_360(tmp_path / "s"), split="none")
    centers = scene.cameras.centers.reshape(6, 9, 3)
    assert torch.equal(centers, centers[:1].expand(6, 9, 3))
    assert len(ways(scene.cameras.centers, 0.0)) == 9
    path = path_cameras("interp", scene, 9).cameras
    assert torch.allclose(path.c2w, scene.cameras.c2w[:9], atol=1e-5)


def test_panoramas_and_pinholes_in_one_model(tmp_path: Path):
    folder = write_360(tmp_path / "s", 4)
    [name] = write_photos(folder / "images", 1)
    poses = (folder / "sparse/0/images.txt").read_text().splitlines()
    poses[7] = " ".join([*poses[7].split()[:8], "2", name])  # the fourth image
    (folder / "sparse/0/images.txt").write_text("\n".join(poses) + "\n")
    (folder / "sparse/0/cameras.txt").write_text(f"1 {FULL}\n2 {CAMERA}\n")
    scene = load_scene(folder, split="none")
    assert [photo.name for photo in scene.photos][:2] == ["000.png", "pano_0/front"]
    assert len(scene.photos) == 19
    assert scene.cameras[0].size == (32, 24)
    assert scene.photos[0].lens is None
    assert {scene.photos[i].name[:6] for i in scene.observations[:, 1]} == {"pano_0", "pano_1"}
    assert Views(scene)[0].image.shape == (24, 32, 3)


@pytest.mark.parametrize("model", ["EQUIRECTANGULAR", "equirectangular", "spherical"])
def test_transforms_json(tmp_path: Path, model: str):
    """Of nerfstudio (where the middle looks along -z, OpenGL axes), with or without a focal length."""
    (tmp_path / "images").mkdir()
    frames = []
    for i, c2w in enumerate(ring(3)):
        panorama(c2w).save(tmp_path / "images" / f"{i}.png")
        matrix = c2w @ np.diag([1.0, -1, -1, 1])
        frames.append({"file_path": f"images/{i}.png", "transform_matrix": matrix.tolist()})
    size = {"w": WIDTH, "h": WIDTH // 2, "fl_x": WIDTH / 2, "fl_y": WIDTH / 2} if model.isupper() else {}
    (tmp_path / "transforms.json").write_text(json.dumps({"camera_model": model, **size, "frames": frames}))
    scene = load_scene(tmp_path)
    assert len(scene.photos) == 18
    for view in Views(scene):
        assert np.abs(view.image.numpy() * 255 - expected(scene, view.index)).max() < 2.5


@pytest.mark.parametrize(
    ("camera", "width", "height", "fact"),
    [
        ("EQUIRECTANGULAR 512 200 512 200", 512, 200, "is 512 x 200 pixels"),
        ("EQUIRECTANGULAR 512 256 1024 512", 512, 256, "of a panorama of"),
        (FULL, 300, 200, "is 300 x 200 pixels"),
    ],
)
def test_a_photo_that_does_not_show_all_directions(tmp_path: Path, camera: str, width: int, height: int, fact: str):
    names = write_photos(tmp_path / "images", 3, (width, height))
    write_model(tmp_path / "sparse" / "0", names, camera)
    with pytest.raises(UserError, match=fact):
        load_scene(tmp_path)


@pytest.mark.parametrize("model", ["OMNIDIRECTIONALSTEREO_L", "VR180_R", "CUBEMAP"])
def test_other_cameras_that_see_all_around_are_named(tmp_path: Path, model: str):
    names = write_photos(tmp_path / "images", 3)
    frames = [{"file_path": f"images/{name}", "transform_matrix": np.eye(4).tolist()} for name in names]
    text = json.dumps({"camera_model": model, "fl_x": 30, "frames": frames})
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(UserError, match=f"{model}.*EQUIRECTANGULAR"):
        load_scene(tmp_path)


def test_panoramas_that_differ_in_their_suffix_only(tmp_path: Path):
    folder = write_360(tmp_path / "s", 2)
    (folder / "images/pano_1.png").rename(folder / "images/pano_0.tif.png")
    (folder / "images/pano_0.png").rename(folder / "images/pano_0.tif.jpg")
    text = (folder / "sparse/0/images.txt").read_text()
    text = text.replace("pano_1.png", "pano_0.tif.png").replace(" pano_0.png", " pano_0.tif.jpg")
    (folder / "sparse/0/images.txt").write_text(text)
    names = [photo.name for photo in load_scene(folder).photos]
    assert names[:2] == ["pano_0.tif.jpg/front", "pano_0.tif.png/front"]
