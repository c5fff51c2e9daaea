"""Files made to hang, to fill the memory or to steer the terminal are named at once."""

import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from difix3d.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")
BOMB = "\n".join(f"k{i}: &k{i} [{','.join([f'*k{i - 1}'] * 9 if i else ['x'] * 9)}]" for i in range(9))
PLY = "ply\nformat binary_little_endian 1.0\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB.replace("k8:", "scene:"), "sets k0, which does not exist"),
        (BOMB.replace("k0:", "max_steps:").replace("k8:", "scene:"), "sets .*, which does not exist|sets max_steps to"),
        ("scene: " + "[" * 3000, "cannot be read as YAML"),
        ("scene: 2020-99-99", "cannot be read as YAML"),
        ("max_steps: " + "9" * 5000, "cannot be read as YAML"),
        ("scene: " + "x" * 100_000, "has 100,007 bytes"),
        ('"\\e[31mx": 1', r"sets \\x1b\[31mx"),
    ],
)
def test_configurations(tmp_path, text, words):
    from difix3d.training import TrainConfig
    from difix3d.training.configfile import merge, read_yaml

    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=words) as error:
        merge(TrainConfig(), read_yaml(tmp_path / "c.yaml"), source=str(tmp_path / "c.yaml"))
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 7000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("device", [False, True])
def test_pipes_and_devices_are_not_opened(tmp_path, device):
    from difix3d.difix.weights import load_parts
    from difix3d.files import load_json
    from difix3d.gaussians import load_checkpoint, read_splats
    from difix3d.images import image_size
    from difix3d.scene.colmap import read_colmap
    from difix3d.scene.pointcloud import read_points
    from difix3d.training.configfile import read_yaml

    def make(name: str) -> Path:
        path = tmp_path / name
        path.symlink_to("/dev/zero") if device else os.mkfifo(path)
        return path

    make("images.bin"), make("cameras.bin")
    readers = {"a.json": load_json, "a.yaml": read_yaml, "a.png": image_size, "a.pkl": load_parts}
    readers |= {"a.safetensors": load_checkpoint, "a.ply": read_splats, "b.ply": read_points}
    for name, read in readers.items():
        with pytest.raises(UserError, match=name):
            read(make(name))
    with pytest.raises(UserError, match=r"cameras\.bin cannot be read: it is a named pipe"):
        read_colmap(tmp_path, tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_broken_links_among_photos_are_left_out(tmp_path):
    from difix3d.sfm.listing import list_photos

    for i in range(4):
        Image.new("RGB", (16, 12), (i, 0, 0)).save(tmp_path / f"{i}.png")
    os.mkfifo(tmp_path / "5.png")
    (tmp_path / "6.png").symlink_to(tmp_path / "nowhere")
    assert list_photos(tmp_path)[1] == [f"{i}.png" for i in range(4)]


@pytest.mark.parametrize(
    "header",
    [
        "element vertex 1000000000000\nproperty float x\n",
        "element vertex -5\nproperty float x\n",
        "element vertex 100000000\nproperty list uchar float x\n",
        "element vertex 1\n" + "".join(f"property float p{i}\n" for i in range(100_000)),
        "comment x\n" * 100_000,
    ],
)
def test_headers_that_claim_too_much(tmp_path, header):
    from difix3d.gaussians import read_splats

    (tmp_path / "a.ply").write_text(f"{PLY}{header}end_header\n")
    with pytest.raises(UserError, match=r"a\.ply cannot be read as PLY"):
        read_splats(tmp_path / "a.ply")


def test_many_missing_photos_are_named_at_once(tmp_path):
    """Each has no extension, is looked for under eight names, and may be another file. Shapes are not checked."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "other.jpg")
    lens = {"fl_x": 50, "fl_y": 50, "cx": 32, "cy": 24, "w": 64, "h": 48}
    pose = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    frames = [{"file_path": f"images/{i:06d}", "transform_matrix": pose} for i in range(60_000)]
    (tmp_path / "transforms.json").write_text(json.dumps({**lens, "frames": frames}))
    code = """
import sys, time
from difix3d.errors import UserError
from difix3d.scene import load_scene

start = time.process_time()
try:
    load_scene(sys.argv[1])
except UserError as error:
    print(time.process_time() - start, error)
"""
    words = [sys.executable, "-c", code, tmp_path]
    seconds, said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split(" ", 1)
    assert said.startswith("60000 of the 60000 photos")
    assert float(seconds) < 2


def test_a_mesh_s_many_faces_are_not_read(tmp_path):
    """One by one, 3 million lists took half a minute."""
    from difix3d.scene.pointcloud import read_points

    vertices = "element vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
    faces = "element face 3000000\nproperty list uchar int i\n"
    points = struct.pack("<6f", 1, 2, 3, 4, 5, 6)
    (tmp_path / "a.ply").write_bytes(f"{PLY}{vertices}{faces}end_header\n".encode() + points + bytes(3_000_000))
    start = time.process_time()
    assert read_points(tmp_path / "a.ply")[0].tolist() == [[1, 2, 3], [4, 5, 6]]
    (tmp_path / "b.ply").write_bytes(f"{PLY}{faces}{vertices}end_header\n".encode() + bytes(3_000_000) + points)
    with pytest.raises(UserError, match=r"3,000,000 lists come before its vertices end"):
        read_points(tmp_path / "b.ply")
    assert time.process_time() - start < 2
    faces = faces.replace("3000000", "3")
    (tmp_path / "c.ply").write_bytes(f"{PLY}{faces}{vertices}end_header\n".encode() + bytes(3) + points)
    assert read_points(tmp_path / "c.ply")[0].tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.skipif(not hasattr(os, "SEEK_HOLE"), reason="holes are not told here")
@pytest.mark.parametrize("name", ["a.ply", "a.splat", "points3D.bin"])
def test_files_of_holes(tmp_path, name):
    """A download that was broken off may have its whole size: 12 GB of zeros are not read."""
    from difix3d.gaussians import read_splats
    from difix3d.scene.colmap import read_colmap

    header = f"{PLY}element vertex 1000000000\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    with (tmp_path / name).open("wb") as file:
        file.write(header.encode() if name == "a.ply" else b"\1")
        file.truncate(12_000_000_000 + len(header))
    (tmp_path / "cameras.bin").write_bytes(bytes(8)), (tmp_path / "images.bin").write_bytes(bytes(8))
    with pytest.raises(UserError, match=rf"{name} is mostly holes.* of 12,0.* bytes were ever written"):
        read_colmap(tmp_path, tmp_path) if name == "points3D.bin" else read_splats(tmp_path / name)


@pytest.mark.parametrize("version", [3, 4])
def test_splats_that_unpack_to_far_more(tmp_path, version):
    import zstandard

    from difix3d.gaussians import read_splats

    header = struct.pack("<4sIIBBB", b"NGSP", version, 2**32 - 1, 0, 12, 0)
    if version == 3:
        data = gzip.compress(header + bytes(60_000_000))
    else:
        part = zstandard.compress(bytes(60_000_000))
        data = header + struct.pack("<BI12x", 5, 32) + struct.pack("<QQ", len(part), 60_000_000) * 5 + part * 5
    (tmp_path / "a.spz").write_bytes(data)
    with pytest.raises(UserError, match="unpack to more than"):
        read_splats(tmp_path / "a.spz")


@pytest.mark.parametrize(
    "text",
    ['"stabilityai/sd-turbo"', "[1]", "[" * 100_000, '{"layers_per_block": 1000000000}', '{"norm_num_groups": 0}'],
)
@pytest.mark.parametrize("part", ["unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"])
def test_configurations_of_weights(tmp_path, monkeypatch, text, part):
    import difix3d.difix
    from difix3d.difix.weights import load_parts

    shutil.copytree(Path(difix3d.difix.__file__).parent / "mini", tmp_path / "mini")
    file = tmp_path / "mini" / part
    known = json.loads(file.read_text())
    file.write_text(json.dumps(known | json.loads(text)) if text.startswith("{") else text)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    if text.startswith('{"norm') and "scheduler" in part:
        load_parts(tmp_path / "mini")
        return
    with pytest.raises(UserError, match="mini"):
        load_parts(tmp_path / "mini")


def test_images_that_claim_many_pixels(tmp_path):
    from difix3d.images import image_size

    Image.new("1", (20_000, 20_000)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="claims 400 megapixels"):
        image_size(tmp_path / "a.png")


def test_archives_that_are_encrypted(tmp_path):
    from difix3d.download.scenes import Archive, PublicScene, download

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("s/a", b"hello")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[6] |= 1
    data[data.rfind(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(UserError, match="encrypted"):
        download("s", tmp_path, scenes={"s": PublicScene(Archive("http://127.0.0.1:1/a.zip", ""), "s/", "1")})


def test_names_steer_no_terminal(capfd, monkeypatch):
    from difix3d.cli import dispatch
    from difix3d.console import console

    console.print("scan\x1b[2J\x9b31m")
    with pytest.raises(SystemExit, match="2"):
        dispatch("view", ["\x1b[31m" + "a" * 5000])
    told = capfd.readouterr().err
    assert r"scan\x1b[2J\x9b31m" in told
    assert "is too long" in told
    assert "\x1b[2J" not in told
    assert "\x1b[31m" not in told


def test_a_user_whom_nobody_knows(tmp_path, monkeypatch):
    """``docker run --user 12345``: no HOME, and no entry in /etc/passwd."""
    import pwd

    from difix3d.benchmark.scenes import _obtainable
    from difix3d.scene import load_scene
    from difix3d.scene.cache import photo_cache

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    for place in ("~/scene", "~nobody-at-all/scene"):
        with pytest.raises(UserError, match=f"There is no scene '{place}'"):
            load_scene(place)
        assert not _obtainable(place, tmp_path)
    assert photo_cache() is None
    assert not list(tmp_path.iterdir())
