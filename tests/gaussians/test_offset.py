"""Models far from the origin of their world, where float32 does not hold them: their files have another origin."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement
from test_ply import random_gaussians

from difix3d.errors import UserError
from difix3d.gaussians import read_ply, transform, write_ply
from difix3d.types import Gaussians

UTM = np.array([448251.3, 5411932.7, 120.0])


def far_out(count: int = 300) -> Gaussians:
    """Splats of 5 cm, within 2 m, in the coordinates of a survey."""
    model = random_gaussians(count, 1)
    means = model.means.double() + torch.from_numpy(UTM)
    return replace(model, means=means, scales=torch.full_like(model.scales, -3.0), opacities=torch.ones(count))


@pytest.mark.parametrize("compressed", [False, True])
def test_comes_back_to_a_tenth_of_a_splat(tmp_path, compressed):
    model, path = far_out(), tmp_path / "a.ply"
    write_ply(model, path, compressed=compressed)
    back = read_ply(path)
    assert back.means.dtype == torch.float64
    distance = torch.cdist(back.means - torch.from_numpy(UTM), model.means - torch.from_numpy(UTM)).amin(1)
    assert distance.max() < (0.005 if compressed else 1e-6)
    assert len(back) == 300


def test_file_lies_near_its_origin_and_says_where_that_is(tmp_path):
    model, path = far_out(), tmp_path / "a.ply"
    write_ply(model, path)
    ply = PlyData.read(str(path))
    beside = json.loads((tmp_path / "a.offset.json").read_text())
    assert ply.comments[0] == "offset " + " ".join(map(repr, beside["offset"]))
    for axis, offset, mean in zip("xyz", beside["offset"], model.means.T, strict=True):
        assert np.abs(ply["vertex"][axis]).max() < 10
        np.testing.assert_allclose(ply["vertex"][axis].astype(np.float64) + offset, mean, atol=1e-6)


def test_editors_that_drop_comments_leave_the_file_beside(tmp_path):
    model, path = far_out(), tmp_path / "a.ply"
    write_ply(model, path)
    ply = PlyData.read(str(path), mmap=False)
    ply.comments = []
    ply.write(str(path))
    torch.testing.assert_close(read_ply(path).means, model.means, atol=1e-6, rtol=0)
    (tmp_path / "a.offset.json").write_text('{"format": "difix3d offset", "offset": [1, 2]}')
    with pytest.raises(UserError, match=r"offset of .*a\.offset\.json is not three numbers"):
        read_ply(path)


def test_ordinary_model_has_no_offset_and_takes_an_old_one_away(tmp_path):
    path = tmp_path / "a.ply"
    write_ply(far_out(), path)
    ordinary = random_gaussians(300, 1)
    write_ply(ordinary, path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.ply"]
    assert PlyData.read(str(path)).comments == []
    assert torch.equal(read_ply(path).means, ordinary.means)
    (tmp_path / "a.offset.json").write_text('{"mine": 1}')
    write_ply(ordinary, path)
    assert (tmp_path / "a.offset.json").exists()
    assert torch.equal(read_ply(path).means, ordinary.means)


def test_doubles_of_other_programs_are_kept_where_they_are_needed(tmp_path):
    model, path = far_out(), tmp_path / "a.ply"
    write_ply(replace(model, means=model.means - torch.from_numpy(UTM)), path)
    table = PlyData.read(str(path), mmap=False)["vertex"].data
    table = table.astype([(name, "<f8") for name in table.dtype.names])
    for axis, shift in zip("xyz", UTM, strict=True):
        table[axis] += shift
    PlyData([PlyElement.describe(table, "vertex")]).write(str(path))
    torch.testing.assert_close(read_ply(path).means, model.means, atol=1e-6, rtol=0)


def test_positions_that_another_program_rounded_are_told(tmp_path, caplog):
    model, path = far_out(), tmp_path / "a.ply"
    write_ply(replace(model, means=model.means - torch.from_numpy(UTM)), path)
    table = PlyData.read(str(path), mmap=False)["vertex"].data
    assert read_ply(path).means.dtype == torch.float32
    assert not caplog.records
    for axis, shift in zip("xyz", UTM, strict=True):
        table[axis] += np.float32(shift)
    PlyData([PlyElement.describe(table, "vertex")]).write(str(path))
    assert read_ply(path).means.dtype == torch.float64
    assert "32-bit positions are too coarse for its large coordinates" in caplog.text


def test_transform_loses_nothing_on_the_way_home():
    model = far_out()
    home = np.eye(4)
    home[:3, 3] = -UTM
    near = transform(model, home)
    assert near.means.dtype == torch.float32
    torch.testing.assert_close(near.means, random_gaussians(300, 1).means, atol=1e-6, rtol=0)
    back = transform(near, np.linalg.inv(home), dtype=torch.float64)
    torch.testing.assert_close(back.means, model.means, atol=1e-6, rtol=0)
