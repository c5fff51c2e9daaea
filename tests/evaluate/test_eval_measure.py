"""From pictures on disk to numbers, and errors that name what is wrong with them."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from difix3d.background import over
from difix3d.errors import UserError
from difix3d.evaluate import Pictures, adopt, consistency, draw, fix_photos, measure, psnrs, seen_pixels
from difix3d.evaluate.seen import as_noted, noted
from difix3d.images import read_image, to_uint8, write_image
from difix3d.metrics import color_correct, error_split, fid, kid, psnr, ssim, tsed, warp_error
from difix3d.scene import Views
from difix3d.types import Render

SIZE = (40, 48)


@pytest.fixture
def views(toy_scene):
    loaded = Views(toy_scene)
    return [loaded[int(i)] for i in toy_scene.test]


@pytest.fixture
def dim(truth):
    """A model that is too dark."""

    def render(camera):
        out = truth(camera)
        return Render(out.rgb * 0.8, out.alpha, out.depth)

    return render


@pytest.fixture
def drawn(tmp_path, truth, dim, views):
    """Two rows: too dark, and fixed."""
    before = Pictures("dark", tmp_path, "evaluation/dark")
    after = Pictures("fixed", tmp_path, "evaluation/fixed", against="dark")
    draw(dim, views, before)
    draw(truth, views, after)
    return before, after


def picture(drawn, view):
    return torch.from_numpy(read_image(drawn.path(view)))


def photo(view):
    return torch.from_numpy(to_uint8(view.image))


def test_pictures_are_the_renders(drawn, dim, views):
    for view in views:
        np.testing.assert_array_equal(picture(drawn[0], view).numpy(), to_uint8(dim(view.camera).rgb[0]))
    assert drawn[0].seconds.keys() == {view.name for view in views}


def test_numbers_are_those_of_the_metrics(drawn, views):
    (before, after), left_out = measure(("psnr", "ssim"), drawn, views)
    assert left_out == {}
    assert [image["name"] for image in before.images] == [view.name for view in views]
    for i, view in enumerate(views):
        image, fixed = (picture(item, view) for item in drawn)
        assert before.images[i]["psnr"] == psnr(image, photo(view))
        assert before.images[i]["ssim"] == ssim(image, photo(view))
        assert before.images[i]["seconds"] == drawn[0].seconds[view.name]
        split = error_split(image, fixed, photo(view))
        assert after.images[i]["wrong"] == split.wrong_after - split.wrong_before
    assert "right" not in before.images[0]
    assert after.against == "dark"


def test_colour_corrected_metrics_stand_beside_the_raw_ones(drawn, views):
    (dark, _), left_out = measure(("psnr", "cc_psnr", "cc_ssim"), drawn, views)
    (raw, _), _ = measure(("psnr",), drawn, views)
    assert left_out == {}
    assert dark.metrics == ["psnr", "cc_psnr", "cc_ssim", "seconds"]
    for image, before, view in zip(dark.images, raw.images, views, strict=True):
        assert image["psnr"] == before["psnr"]
        corrected = color_correct(picture(drawn[0], view), photo(view))
        assert image["cc_psnr"] == psnr(corrected, photo(view))
        assert image["cc_ssim"] == ssim(corrected, photo(view))
        assert image["cc_psnr"] > image["psnr"] + 10
    mask = torch.zeros(SIZE, dtype=torch.bool)
    (empty, _), _ = measure(("cc_psnr",), drawn, [replace(views[0], mask=mask)])
    assert math.isnan(empty.images[0]["cc_psnr"])


def test_masked_pixels_do_not_count(drawn, views):
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[10:20, 5:30] = True
    (before, _), _ = measure(("psnr",), drawn, [replace(views[0], mask=mask), replace(views[1], mask=mask & False)])
    image = picture(drawn[0], views[0])[10:20, 5:30].float()
    expected = -10 * math.log10(float(((image - photo(views[0])[10:20, 5:30].float()) / 255).square().mean()))
    assert before.images[0]["psnr"] == pytest.approx(expected, abs=1e-4)
    assert math.isnan(before.images[1]["psnr"])
    assert before.values("psnr").keys() == {views[0].name}


def test_without_weights_a_metric_is_left_out_with_the_way_to_get_it(drawn, views, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("DIFIX3D_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    variants, left_out = measure(("psnr", "lpips_vgg", "fid", "kid"), drawn, views)
    assert left_out.keys() == {"lpips_vgg", "fid", "kid"}
    assert all("set DIFIX3D_WEIGHTS to the folder" in reason for reason in left_out.values())
    assert variants[0].metrics == ["psnr", "seconds"]
    assert variants[0].sets == {}


@pytest.fixture
def colors(monkeypatch):
    """Mean colours in place of Inception's features."""
    from difix3d.features import Inception

    def features(images, network):
        return torch.stack([image.float().mean((0, 1)) for image in images])

    network = Inception.__new__(Inception)
    torch.nn.Module.__init__(network)
    monkeypatch.setattr(Inception, "pretrained", lambda: network)
    monkeypatch.setattr("difix3d.evaluate.measures.inception_features", features)


def test_sets_are_compared_with_the_photos(drawn, views, colors):
    (before, _), left_out = measure(("fid", "kid"), drawn, views)
    a, b = (
        torch.stack([image.float().mean((0, 1)) for image in images])
        for images in ([picture(drawn[0], view) for view in views], [photo(view) for view in views])
    )
    assert left_out == {}
    assert before.sets["fid"].value == fid(a, b).value
    assert before.sets["kid"].value == kid(a, b).value
    assert before.sets["fid"].count == 3
    assert "FID of 3 pictures" in before.sets["fid"].warning


def test_one_picture_is_no_set(drawn, views, colors):
    (before, _), left_out = measure(("psnr", "fid"), drawn, views[:1])
    assert before.sets == {}
    assert left_out == {"fid": "it compares sets of pictures, and there is only 1"}


def test_consistency_is_that_of_the_metrics(truth, dim, toy_scene):
    cameras = [toy_scene.cameras[i] for i in range(3)]
    found = consistency(("psnr", "warp", "tsed"), dim, truth, cameras, "dark")
    frames = [torch.from_numpy(to_uint8(dim(camera).rgb[0])) for camera in cameras]
    depths = [truth(camera).depth[0, ..., 0] for camera in cameras]
    assert found["warp"].value == warp_error(frames, depths, toy_scene.cameras[:3]).mean
    assert found["tsed"].value == tsed(frames, toy_scene.cameras[:3]).score
    assert (found["tsed"].count, found["warp"].count) == (2, 2)
    assert consistency(("psnr",), dim, truth, cameras, "dark") == {}


def test_other_programs_pictures(tmp_path, drawn, views):
    for number, view in enumerate(views):
        write_image(tmp_path / "theirs" / f"{number:03d}.png", photo(view))
        write_image(tmp_path / "named" / view.name, photo(view))
    for folder in ("theirs", "named"):
        theirs = Pictures(folder, tmp_path, f"evaluation/{folder}")
        adopt(tmp_path / folder, views, theirs)
        (measured,), _ = measure(("psnr",), [theirs], views)
        assert all(image["psnr"] == math.inf for image in measured.images)
        assert "seconds" not in measured.images[0]


def test_a_wrong_number_of_pictures(tmp_path, views):
    for view in views[:2]:
        write_image(tmp_path / "theirs" / view.name, view.image)
    with pytest.raises(
        UserError, match=rf"theirs holds 2 pictures for 3 photos; the first without one is {views[2].name}"
    ):
        adopt(tmp_path / "theirs", views, Pictures("theirs", tmp_path, "x"))
    for name in (views[2].name, "more.png"):
        write_image(tmp_path / "theirs" / name, views[2].image)
    with pytest.raises(UserError, match=r"holds 4 pictures for 3 photos\. .*Choose the --split"):
        adopt(tmp_path / "theirs", views, Pictures("theirs", tmp_path, "x"))
    assert not (tmp_path / "x").exists()


def test_pictures_of_another_size(tmp_path, views):
    for view in views:
        write_image(tmp_path / "theirs" / view.name, view.image[::2])
    with pytest.raises(UserError, match=rf"theirs/{views[0].name} is 48 x 20 pixels, its photo 48 x 40"):
        adopt(tmp_path / "theirs", views, Pictures("theirs", tmp_path, "x"))
    with pytest.raises(UserError, match=r"the model made of 02\.png is 24 x 40 pixels, its photo 48 x 40"):
        psnrs(lambda camera: Render(views[0].image[None, :, ::2], torch.ones(1, 40, 24, 1)), views)


def test_pixels_that_are_no_numbers(tmp_path, truth, views):
    def broken(camera):
        out = truth(camera)
        out.rgb[0, 3, 4:6, 1] = math.nan
        return out

    words = r"2 of 1,920 pixels that {} rendered of 02\.png are NaN or infinite.*earlier checkpoint"
    with pytest.raises(UserError, match=words.format("the model")):
        psnrs(broken, views)
    with pytest.raises(UserError, match=words.format("Difix3D")):
        draw(broken, views, Pictures("Difix3D", tmp_path, "eval"))
    assert not (tmp_path / "eval").exists()


def test_a_picture_that_is_gone(drawn, views):
    drawn[0].path(views[1]).unlink()
    with pytest.raises(UserError, match=r"evaluation/dark/06\.png does not exist"):
        measure(("psnr",), drawn, views)


@pytest.mark.real
def test_lpips_is_the_recorded_one(tmp_path, shared, views, monkeypatch):
    monkeypatch.setenv("DIFIX3D_WEIGHTS", str(shared / "weights"))
    recorded = np.load(shared / "golden" / "metrics.npz")
    photo = torch.from_numpy(recorded["reference_image"])
    write_image(tmp_path / "evaluation" / "02.png", torch.from_numpy(recorded["blur_image"]))
    view = replace(views[0], image=photo.float() / 255 if photo.dtype == torch.uint8 else photo)
    (measured,), left_out = measure(("lpips_alex",), [Pictures("blur", tmp_path, "evaluation")], [view])
    assert left_out == {}
    assert measured.images[0]["lpips_alex"] == pytest.approx(float(recorded["blur_lpips_alex"]), abs=2e-4)


def test_photos_with_alpha_are_given_to_the_fixer_with_it(cutout):
    given = []

    def bright(degraded):
        for item in degraded:
            given.append(item.alpha)
            yield torch.where(item.alpha[..., None] > 0, item.rgb, 1.0)

    views = [Views(cutout)[index] for index in (0, 1)]
    assert fix_photos(bright, views, ["psnr"])["psnr"] == float("inf")  # what it puts around the object is not there
    assert all(map(torch.equal, given, (view.alpha for view in views)))


def test_pictures_of_other_programs_with_alpha_are_put_over_the_photos_background(cutout, tmp_path):
    views = [over(Views(cutout)[index], torch.ones(3)) for index in (0, 1)]
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for index in (0, 1):
        shutil.copy(cutout.photos[index].path, theirs)
    pictures = Pictures("theirs", tmp_path, "pictures")
    adopt(theirs, views, pictures, white=True)
    (variant,), _ = measure(["psnr"], [pictures], views)
    assert min(image["psnr"] for image in variant.images) > 50


def test_seen_and_unseen_pixels_are_measured_apart(drawn, views, tmp_path):
    """Each on its own pixels; a part of nearly nothing has no figures, and masks go before."""
    left = torch.zeros(SIZE, dtype=torch.bool)
    left[:, :12] = True
    some = {views[0].name: left, views[1].name: torch.ones(SIZE, dtype=torch.bool), views[2].name: left}
    masked = [views[0], views[1], replace(views[2], mask=~left)]
    (dark, fixed), _ = measure(("psnr", "ssim"), drawn, masked, seen=lambda view: some[view.name])
    image = picture(drawn[0], views[0])
    first, second, third = dark.images
    assert first["seen"] == 0.25
    assert first["seen_psnr"] == psnr(image, photo(views[0]), left)
    assert first["unseen_psnr"] == psnr(image, photo(views[0]), ~left)
    assert first["unseen_ssim"] == ssim(image, photo(views[0]), ~left)
    assert second["seen"] == 1
    assert second["seen_psnr"] == second["psnr"]
    assert "unseen_psnr" not in second
    assert third["seen"] == 0
    assert "seen_psnr" not in third
    assert third["unseen_psnr"] == third["psnr"]
    assert dark.metrics == ["psnr", "ssim", "seconds"]  # they are rows of their own, no columns
    assert dark.means()["unseen_psnr"] == dark.mean("unseen_psnr")
    assert fixed.images[0]["seen"] == 0.25


def test_seen_pixels_are_found_from_training_views_alone(views, truth, toy_scene, tmp_path):
    """Only training cameras are drawn, and what is noted is found again."""
    asked = []

    def render(camera):
        asked.append(camera.centers[0])
        return truth(camera)

    train = toy_scene.cameras[toy_scene.train]
    seen = noted(seen_pixels(render, train), tmp_path)
    found = [seen(view) for view in views]
    assert torch.equal(torch.stack(asked), train.centers)
    assert all(float(item.float().mean()) > 0.9 for item in found)
    for view, item in zip(views, found, strict=True):
        assert torch.equal(as_noted(tmp_path)(view), item)
    shares = [float(seen_pixels(truth, toy_scene.cameras[:1])(view).float().mean()) for view in views]
    assert shares[0] > 0.7  # the only photo's neighbour
    assert max(shares[1:]) < 0.4  # from the side, half of the cube's points lie behind others
