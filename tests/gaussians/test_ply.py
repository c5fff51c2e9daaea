import numpy as np
import pytest
import torch
from numpy.lib.recfunctions import repack_fields
from plyfile import PlyData, PlyElement

from difix3d.errors import UserError
from difix3d.gaussians import read_ply, write_ply
from difix3d.types import Gaussians


def random_gaussians(count: int = 20, degree: int = 3) -> Gaussians:
    generator = torch.Generator().manual_seed(degree)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return Gaussians(
        means=normal(count, 3),
        quats=normal(count, 4),
        scales=normal(count, 3),
        opacities=normal(count),
        sh0=normal(count, 1, 3),
        shN=normal(count, (degree + 1) ** 2 - 1, 3),
    )


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip_is_exact(tmp_path, degree):
    gaussians = random_gaussians(degree=degree)
    write_ply(gaussians, tmp_path / "a.ply")
    for name, value in read_ply(tmp_path / "a.ply").as_dict().items():
        assert torch.equal(value, gaussians.as_dict()[name]), name


def test_layout_is_the_one_of_3dgs(tmp_path):
    """f_rest runs over the coefficients first and the channels last: R of all, then G, then B."""
    gaussians = random_gaussians(3)
    write_ply(gaussians, tmp_path / "a.ply")
    vertex = PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    names = [prop.name for prop in vertex.properties]
    assert names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[-8:] == ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    np.testing.assert_array_equal(vertex["f_rest_16"], gaussians.shN[:, 1, 1].numpy())


def test_compressed_file_is_smaller_and_holds_the_same_splats(tmp_path):
    pytest.importorskip("gsplat", minversion="1.5")
    gaussians = random_gaussians(600)
    write_ply(gaussians, tmp_path / "a.ply")
    write_ply(gaussians, tmp_path / "b.ply", compressed=True)
    assert (tmp_path / "b.ply").stat().st_size < 0.5 * (tmp_path / "a.ply").stat().st_size
    assert PlyData.read(str(tmp_path / "b.ply"))["vertex"].count == 600


def test_compression_needs_gsplat_1_5(tmp_path, monkeypatch):
    import gsplat

    monkeypatch.delattr(gsplat, "export_splats", raising=False)
    with pytest.raises(UserError, match=r"needs gsplat 1\.5"):
        write_ply(random_gaussians(), tmp_path / "a.ply", compressed=True)
    assert not list(tmp_path.iterdir())


def test_missing_damaged_and_other_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no file .*none\.ply"):
        read_ply(tmp_path / "none.ply")
    write_ply(random_gaussians(), tmp_path / "cut.ply")
    data = (tmp_path / "cut.ply").read_bytes()
    (tmp_path / "cut.ply").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"cut\.ply cannot be read"):
        read_ply(tmp_path / "cut.ply")


def test_point_cloud_without_splats_is_refused(tmp_path):
    table = np.zeros(4, dtype=[(axis, "<f4") for axis in "xyz"])
    PlyData([PlyElement.describe(table, "vertex")]).write(str(tmp_path / "points.ply"))
    with pytest.raises(UserError, match=r"lacks the properties opacity.*f_dc_0"):
        read_ply(tmp_path / "points.ply")


def test_odd_number_of_coefficients_is_refused(tmp_path):
    write_ply(random_gaussians(degree=1), tmp_path / "a.ply")
    vertex = PlyData.read(str(tmp_path / "a.ply"))["vertex"].data
    names = [name for name in vertex.dtype.names if name != "f_rest_8"]
    PlyData([PlyElement.describe(repack_fields(vertex[names]), "vertex")]).write(str(tmp_path / "b.ply"))
    with pytest.raises(UserError, match=r"8 f_rest_\* properties.*0, 9, 24 or 45"):
        read_ply(tmp_path / "b.ply")
