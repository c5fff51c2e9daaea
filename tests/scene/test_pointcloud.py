"""Point clouds keep their colours, in whatever way these are written."""

import logging

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from difix3d.errors import UserError
from difix3d.gaussians import write_ply
from difix3d.scene.pointcloud import read_points
from difix3d.types import Gaussians

POINTS = np.array([[0.5, -1, 2], [3, 4, 5], [-1, 0, 7]])
COLORS = np.array([[255, 0, 51], [102, 204, 0], [153, 51, 255]])


def write(path, names: str, values: np.ndarray, kind: str, *, coordinate: str = "f4", text=False, order="<") -> None:
    columns = names.split()
    table = np.zeros(len(values), [*((axis, coordinate) for axis in "xyz"), *((name, kind) for name in columns)])
    for axis, column in zip("xyz", POINTS.T, strict=True):
        table[axis] = column[: len(values)]
    for name, column in zip(columns, values.T, strict=True):
        table[name] = column
    PlyData([PlyElement.describe(table, "vertex")], text=text, byte_order=order).write(str(path))


@pytest.mark.parametrize(
    ("names", "values", "kind"),
    [
        ("red green blue", COLORS, "u1"),
        ("red green blue", COLORS / 255, "f4"),
        ("r g b", COLORS / 255, "f8"),
        ("red green blue", COLORS, "f4"),
        ("red green blue", COLORS * 257, "u2"),
        ("red green blue", COLORS, "u2"),
        ("red green blue", COLORS, "i4"),
        ("diffuse_red diffuse_green diffuse_blue", COLORS, "u1"),
        ("Red Green Blue", COLORS, "u1"),
        ("f_dc_0 f_dc_1 f_dc_2", (COLORS / 255 - 0.5) / 0.28209479177387814, "f4"),
        ("nx ny nz blue green red alpha", np.c_[COLORS, COLORS[:, ::-1], COLORS[:, 0]], "u1"),
    ],
)
def test_colours(tmp_path, names, values, kind):
    write(tmp_path / "a.ply", names, values, kind)
    points, colors = read_points(tmp_path / "a.ply")
    np.testing.assert_allclose(points, POINTS)
    assert np.abs(colors.astype(int) - COLORS).max() <= 1


def test_text_other_byte_order_and_doubles(tmp_path, caplog):
    utm = POINTS + np.array([448251.3, 5411932.7, 120.0])
    write(tmp_path / "a.ply", "red green blue", COLORS, "u1", coordinate="f8", text=True)
    write(tmp_path / "b.ply", "red green blue", COLORS / 255, ">f4", coordinate=">f8", order=">")
    for name in "ab":
        points, colors = read_points(tmp_path / f"{name}.ply")
        assert np.array_equal(points, POINTS)
        assert np.abs(colors.astype(int) - COLORS).max() <= 1
    names = [*"xyz", "red", "green", "blue"]
    table = np.array([(*row, 1, 2, 3) for row in utm], [(name, "f8") for name in names])
    PlyData([PlyElement.describe(table, "vertex")]).write(str(tmp_path / "c.ply"))
    assert np.array_equal(read_points(tmp_path / "c.ply")[0], utm)
    assert not caplog.records
    table = table.astype([(name, "f4") for name in names])
    PlyData([PlyElement.describe(table, "vertex")]).write(str(tmp_path / "d.ply"))
    read_points(tmp_path / "d.ply")
    assert "d.ply: its 32-bit positions are rounded to 0.5" in caplog.text


def test_intensity_is_grey_and_none_is_grey_with_a_word(tmp_path, caplog):
    write(tmp_path / "a.ply", "scalar_Intensity", np.array([[0], [1000], [2000]]), "u2")
    colors = read_points(tmp_path / "a.ply")[1]
    assert np.ptp(colors, axis=1).max() == 0
    assert np.abs(colors[:, 0] - np.array([0.0, 128, 255])).max() <= 2
    assert not caplog.records
    write(tmp_path / "b.ply", "", np.zeros((3, 0)), "u1")
    assert np.unique(read_points(tmp_path / "b.ply")[1]).tolist() == [128]
    assert "b.ply: the points have no colours" in caplog.text
    write(tmp_path / "c.ply", "red green blue", np.full((3, 3), np.nan), "f4")
    assert np.unique(read_points(tmp_path / "c.ply")[1]).tolist() == [128]


def test_splat_models_are_points_too(tmp_path):
    model = Gaussians(
        means=torch.from_numpy(POINTS).float(),
        quats=torch.ones(3, 4),
        scales=torch.zeros(3, 3),
        opacities=torch.ones(3),
        sh0=torch.from_numpy((COLORS / 255 - 0.5) / 0.28209479177387814).float()[:, None],
        shN=torch.zeros(3, 3, 3),
    )
    for compressed in (False, True):
        write_ply(model, tmp_path / "a.ply", compressed=compressed)
        points, colors = read_points(tmp_path / "a.ply")
        order = np.argsort(points[:, 2])  # the packed layout has an order of its own
        np.testing.assert_allclose(points[order], POINTS, atol=0.01)
        assert np.abs(colors[order].astype(int) - COLORS).max() <= 2


def test_empty_damaged_and_other_files(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    write(tmp_path / "a.ply", "red green blue", np.zeros((0, 3)), "f4")
    assert [len(part) for part in read_points(tmp_path / "a.ply")] == [0, 0]
    write(tmp_path / "b.ply", "red green blue", COLORS, "u1")
    data = (tmp_path / "b.ply").read_bytes()
    for size in (0, 20, len(data) - 1):
        (tmp_path / "b.ply").write_bytes(data[:size])
        with pytest.raises(UserError, match=r"b\.ply (cannot be read as PLY|is empty)"):
            read_points(tmp_path / "b.ply")
    PlyData([PlyElement.describe(np.zeros(2, [("u", "f4")]), "vertex")]).write(str(tmp_path / "c.ply"))
    with pytest.raises(UserError, match=r"have no positions.*x, y and z"):
        read_points(tmp_path / "c.ply")
    (tmp_path / "d.LAS").write_bytes(b"LASF")
    with pytest.raises(UserError, match=r"d\.LAS is a \.las file\. Points are read from \.ply"):
        read_points(tmp_path / "d.LAS")
