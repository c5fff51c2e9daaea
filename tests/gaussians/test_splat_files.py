"""Splat models of other programs, by their files."""

import gzip
import struct

import numpy as np
import pytest
import torch
import zstandard
from scipy.spatial.transform import Rotation

from difix3d.errors import UserError
from difix3d.gaussians import is_splat_file, read_splats, write_ply
from difix3d.types import Gaussians


def three_splats() -> Gaussians:
    """Of degree 1; their numbers fit the bytes of the compact formats."""
    quats = torch.tensor([[1.0, 0, 0, 0], [0.5, -0.5, 0.5, -0.5], [0.1, 0.7, -0.7, 0.1]])
    return Gaussians(
        means=torch.tensor([[0.5, -1.25, 3.0], [-2.0, 0.0, 0.25], [1.0, 2.0, -4.0]]),
        quats=torch.nn.functional.normalize(quats, dim=1),
        scales=torch.tensor([[-3.0, -2.5, -4.0]]).repeat(3, 1),
        opacities=torch.logit(torch.tensor([51.0, 102.0, 204.0]) / 255),
        sh0=torch.tensor([[0.0, 1.0, -1.0]]).repeat(3, 1)[:, None],
        shN=torch.tensor([[0.5, 0.25, 0.0], [-0.5, 0.125, 0.25], [0.0, -0.25, 0.5]]).repeat(3, 1, 1),
    )


def spz(version: int) -> bytes:
    """``three_splats`` as Niantic's format keeps them, with y and z turned round."""
    model = three_splats()
    positions = (model.means.numpy() * [1, -1, -1] * 4096).round().astype("<i4").reshape(-1, 1).view(np.uint8)[:, :3]
    xyzw = np.roll(model.quats.numpy() * [1, 1, -1, -1], -1, axis=1)
    words = []
    for quat in xyzw:
        largest = int(np.abs(quat).argmax())
        word = largest
        for value in np.delete(quat * np.sign(quat[largest]), largest):
            word = word << 10 | int(value < 0) << 9 | round(abs(value) * np.sqrt(2) * 511)
        words.append(word)
    short = np.round((xyzw[:, :3] * np.where(xyzw[:, 3:] < 0, -1, 1) + 1) * 127.5).astype(np.uint8)
    # the harmonics of degree 1 are those of y, z and x
    harmonics = model.shN.numpy() * np.array([-1, -1, 1])[:, None] * 128 + 128
    parts = [
        positions.tobytes(),
        (model.opacities.sigmoid() * 255).round().to(torch.uint8).numpy().tobytes(),
        ((model.sh0 * 0.15 + 0.5) * 255).round().to(torch.uint8).numpy().tobytes(),
        ((model.scales + 10) * 16).to(torch.uint8).numpy().tobytes(),
        short.tobytes() if version == 2 else np.array(words, "<u4").tobytes(),
        harmonics.astype(np.uint8).tobytes(),
    ]
    header = struct.pack("<4sIIBBB", b"NGSP", version, 3, 1, 12, 0)
    if version < 4:
        return gzip.compress(header + b"\0" + b"".join(parts))
    streams = [zstandard.compress(part) for part in parts]
    table = b"".join(struct.pack("<QQ", len(s), len(p)) for s, p in zip(streams, parts, strict=True))
    return header + struct.pack("<BI12x", len(parts), 32) + table + b"".join(streams)


def splat() -> bytes:
    """``three_splats`` as antimatter15's format keeps them."""
    model = three_splats()
    color = np.clip((0.5 + 0.28209479 * model.sh0[:, 0].numpy()) * 255, 0, 255).round()
    alpha = (model.opacities.sigmoid().numpy() * 255).round()
    rows = zip(model.means, model.scales.exp(), color, alpha, model.quats, strict=True)
    return b"".join(
        struct.pack(
            "<6f8B", *mean, *size, *map(int, rgb), int(a), *(min(255, round(float(q) * 128 + 128)) for q in quat)
        )
        for mean, size, rgb, a, quat in rows
    )


def axes(model: Gaussians) -> torch.Tensor:
    """What the rotations do to unequal axes: half a turn about one of these changes nothing."""
    turns = torch.from_numpy(Rotation.from_quat(np.roll(model.quats.numpy(), -1, axis=1)).as_matrix()).float()
    return turns @ torch.diag(torch.tensor([1.0, 2.0, 3.0])) @ turns.transpose(1, 2)


def same(read: Gaussians, quats: float) -> None:
    model = three_splats()
    torch.testing.assert_close(read.means, model.means, atol=1e-3, rtol=0)
    torch.testing.assert_close(read.scales, model.scales, atol=1e-5, rtol=0)
    torch.testing.assert_close(read.opacities, model.opacities, atol=1e-4, rtol=0)
    torch.testing.assert_close(read.sh0, model.sh0, atol=0.02, rtol=0)
    torch.testing.assert_close(axes(read), axes(model), atol=quats, rtol=0)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_spz_is_read_in_the_axes_of_a_ply(tmp_path, version):
    (tmp_path / "a.spz").write_bytes(spz(version))
    read = read_splats(tmp_path / "a.spz")
    same(read, 0.1 if version == 2 else 0.005)
    torch.testing.assert_close(read.shN, three_splats().shN, atol=1e-5, rtol=0)


def test_splat_is_read(tmp_path):
    (tmp_path / "a.SPLAT").write_bytes(splat())
    same(read_splats(tmp_path / "a.SPLAT"), 0.03)


def test_upper_case_and_other_suffixes_of_ply_open(tmp_path):
    for name in ("UP.PLY", "model.splats"):
        write_ply(three_splats(), tmp_path / name)
        assert is_splat_file(tmp_path / name)
        assert torch.equal(read_splats(tmp_path / name).means, three_splats().means)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.ksplat", r"splat model of GaussianSplats3D.*\.ply, \.splat, \.spz.*Export it as \.ply"),
        ("a.sog", "splat model of PlayCanvas"),
        ("a.GLB", "glTF"),
        ("a.las", "point cloud"),
        ("a.bin", "no splat model that is known"),
        ("a.ply", r"does not begin like a \.ply"),
        ("a.spz", r"does not begin like a \.spz"),
        ("a.splat", r"cannot be read as \.splat \(9 bytes are not a multiple of 32\)"),
    ],
)
def test_other_files_are_named(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(UserError, match=words):
        read_splats(tmp_path / name)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_spz_cut_short_or_unknown_is_refused(tmp_path, version):
    whole = spz(version)
    for size in (3, 20, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a.spz").write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"a\.spz cannot be read as \.spz|does not begin"):
            read_splats(tmp_path / "a.spz")
    (tmp_path / "a.spz").write_bytes(gzip.compress(struct.pack("<4sIIBBH", b"NGSP", 9, 3, 1, 12, 0)))
    with pytest.raises(UserError, match=r"a\.spz: It is a \.spz of version 9.*Versions 2 to 4.*Export it as \.ply"):
        read_splats(tmp_path / "a.spz")
