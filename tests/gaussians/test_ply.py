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


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_compressed_file_is_smaller_and_holds_the_same_splats(tmp_path, degree):
    gaussians = random_gaussians(600, degree)
    write_ply(gaussians, tmp_path / "a.ply")
    write_ply(gaussians, tmp_path / "b.ply", compressed=True)
    assert (tmp_path / "b.ply").stat().st_size < 0.5 * (tmp_path / "a.ply").stat().st_size
    back = read_ply(tmp_path / "b.ply")
    seen = gaussians.opacities.sigmoid() > 1 / 255  # the others are left out; the rest comes in another order
    nearest = torch.cdist(back.means, gaussians.means[seen]).argmin(1)
    assert len(back) == int(seen.sum()) == len(set(nearest.tolist()))
    before = gaussians.map(lambda tensor: tensor[seen][nearest])
    torch.testing.assert_close(back.means, before.means, atol=0.01, rtol=0)
    torch.testing.assert_close(back.scales, before.scales, atol=0.01, rtol=0)
    torch.testing.assert_close(back.opacities.sigmoid(), before.opacities.sigmoid(), atol=0.003, rtol=0)
    torch.testing.assert_close(back.sh0, before.sh0, atol=0.03, rtol=0)
    torch.testing.assert_close(back.shN, before.shN.clamp(-4, 4), atol=0.04, rtol=0)
    cosine = (back.quats * torch.nn.functional.normalize(before.quats, dim=1)).sum(1).abs()
    assert cosine.min() > 0.9999


def test_compressed_file_reads_as_that_of_gsplat(tmp_path):
    """Another program's writer of the layout, which PlayCanvas's own viewers read."""
    pytest.importorskip("gsplat", minversion="1.5")
    from gsplat import export_splats

    gaussians = random_gaussians(300, 1)
    (tmp_path / "a.ply").write_bytes(export_splats(**gaussians.as_dict(), format="ply_compressed"))
    write_ply(gaussians, tmp_path / "b.ply", compressed=True)
    theirs, ours = read_ply(tmp_path / "a.ply"), read_ply(tmp_path / "b.ply")
    nearest = torch.cdist(ours.means, theirs.means).argmin(1)
    assert len(set(nearest.tolist())) == len(ours) == len(theirs)
    theirs = theirs.map(lambda tensor: tensor[nearest])
    for name, tolerance in {"means": 0.01, "quats": 0.005, "scales": 0.01, "sh0": 0.05, "shN": 0.01}.items():
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), atol=tolerance, rtol=0, msg=name)
    torch.testing.assert_close(ours.opacities.sigmoid(), theirs.opacities.sigmoid(), atol=0.004, rtol=0)
    assert list(PlyData.read(str(tmp_path / "b.ply")).header.split()) == [
        *PlyData.read(str(tmp_path / "a.ply")).header.split()
    ]


def test_faint_and_infinite_splats_and_chunks_of_one_place_are_packed(tmp_path):
    gaussians = random_gaussians(300, 0)
    gaussians.opacities[0], gaussians.opacities[1] = -10.0, torch.nan
    gaussians.means[2:] = gaussians.means[2]
    write_ply(gaussians, tmp_path / "a.ply", compressed=True)
    back = read_ply(tmp_path / "a.ply")
    assert len(back) == 298
    assert (back.means == gaussians.means[2]).all()
    write_ply(gaussians.map(lambda tensor: tensor[:2]), tmp_path / "a.ply", compressed=True)
    with pytest.raises(UserError, match="It has none at all"):
        read_ply(tmp_path / "a.ply")


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
    with pytest.raises(UserError, match=r"8 f_rest_\* properties.*0, 9, 24, 45 or 72"):
        read_ply(tmp_path / "b.ply")


def change(path, function) -> None:
    """Lets the function change the columns of a .ply."""
    table = PlyData.read(str(path), mmap=False)["vertex"].data
    PlyData([PlyElement.describe(function(table), "vertex")]).write(str(path))


def test_splats_that_cannot_be_drawn_are_dropped_with_a_word(tmp_path, caplog):
    gaussians = random_gaussians(degree=1)
    path = tmp_path / "a.ply"
    write_ply(gaussians, path)
    bad = [("x", np.nan), ("scale_1", -np.inf), ("opacity", np.nan), ("f_rest_3", np.inf), ("scale_0", 100.0)]

    def spoil(table):
        for row, (name, value) in enumerate(bad):
            table[name][row] = value
        for i in range(4):
            table[f"rot_{i}"][len(bad)] = 0
        table["opacity"][len(bad) + 1 : len(bad) + 3] = np.inf, -np.inf  # opaque and unseen: both can be drawn
        return table

    change(path, spoil)
    read = read_ply(path)
    assert torch.equal(read.means, gaussians.means[len(bad) + 1 :])
    assert all(value.isfinite().all() for value in read.as_dict().values())
    assert read.opacities[0].sigmoid() > 0.99999
    assert read.opacities[1].sigmoid() < 0.00001
    assert [record.message.split(": ")[1] for record in caplog.records] == ["6 of 20 splats dropped"]


def test_file_without_a_splat_that_can_be_drawn_is_refused(tmp_path):
    path = tmp_path / "a.ply"
    write_ply(random_gaussians(), path)
    change(path, lambda table: table[:0])
    with pytest.raises(UserError, match=r"no splat that can be drawn\. It has none at all"):
        read_ply(path)
    write_ply(random_gaussians().map(lambda tensor: tensor * torch.nan), path)
    with pytest.raises(UserError, match=r"no splat that can be drawn\. It has 20, all with NaN"):
        read_ply(path)


@pytest.mark.parametrize("kind", ["reversed", "double", "big-endian", "text", "further"])
def test_order_types_and_further_properties_do_not_matter(tmp_path, kind):
    gaussians = random_gaussians(degree=1)
    path = tmp_path / "a.ply"
    write_ply(gaussians, path)
    table = PlyData.read(str(path), mmap=False)["vertex"].data
    names = list(table.dtype.names)
    if kind == "reversed":
        table = repack_fields(table[names[::-1]])
    if kind == "double":
        table = table.astype([(name, "<f8") for name in names])
    elements = [PlyElement.describe(table, "vertex")]
    if kind == "further":
        wider = np.zeros(len(table), [*table.dtype.descr, ("label", "u1"), ("tags", object)])
        for name in names:
            wider[name] = table[name]
        wider["tags"] = [np.arange(3, dtype=np.int32)] * len(table)
        elements = [
            PlyElement.describe(np.zeros(2, [("value", "<f4")]), "camera"),
            PlyElement.describe(wider, "vertex"),
        ]
    PlyData(elements, text=kind == "text", byte_order=">" if kind == "big-endian" else "<").write(str(path))
    for name, value in read_ply(path).as_dict().items():
        torch.testing.assert_close(value, gaussians.as_dict()[name], msg=name)


def with_columns(table: np.ndarray, columns: dict[str, np.ndarray], without: tuple[str, ...] = ()) -> np.ndarray:
    names = [name for name in table.dtype.names if name not in without]
    wider = np.zeros(len(table), [*((name, "<f4") for name in names), *((name, "<f4") for name in columns)])
    for name in names:
        wider[name] = table[name]
    for name, column in columns.items():
        wider[name] = column
    return wider


def test_degree_4_is_cut_and_flat_splats_get_a_thickness(tmp_path, caplog):
    gaussians, path = random_gaussians(), tmp_path / "a.ply"
    write_ply(gaussians, path)
    rest = torch.cat([gaussians.shN, torch.ones(len(gaussians), 9, 3)], 1).transpose(1, 2).flatten(1).numpy()
    columns = {f"f_rest_{i}": column for i, column in enumerate(rest.T)}
    change(path, lambda table: with_columns(table, columns, (*columns, "scale_2")))
    read = read_ply(path)
    assert torch.equal(read.shN, gaussians.shN)
    assert torch.equal(read.scales[:, :2], gaussians.scales[:, :2])
    thinner = gaussians.scales[:, :2].amin(1).exp() / 1000
    torch.testing.assert_close(read.scales[:, 2].exp(), thinner)
    assert "degree 4 are left out" in caplog.text
    assert "flat splats (2DGS)" in caplog.text


def test_filter_of_mip_splatting_is_in_scales_and_opacities(tmp_path):
    gaussians, path = random_gaussians(), tmp_path / "a.ply"
    write_ply(gaussians, path)
    change(path, lambda table: with_columns(table, {"filter_3D": np.full(len(table), 0.5)}))
    read = read_ply(path)
    before, after = gaussians.scales.exp(), read.scales.exp()
    torch.testing.assert_close(after, (before**2 + 0.25).sqrt())
    mass = [g.opacities.sigmoid() * g.scales.exp().prod(1) for g in (gaussians, read)]  # what it spreads, it thins
    torch.testing.assert_close(*mass)
