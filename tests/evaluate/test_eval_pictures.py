"""Pictures of an evaluation, which threads write while the next ones are rendered."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from waits import counted

from difix3d.evaluate import Pictures, draw, drawing, measure
from difix3d.images import read_image, to_uint8, write_image
from difix3d.scene import Views
from difix3d.types import Render


def test_each_picture_is_that_of_its_view(toy_scene, truth, tmp_path):
    views = [Views(toy_scene)[i] for i in range(12)]
    pictures = Pictures("plain", tmp_path, "renders")
    with drawing(truth, pictures, tmp_path / "compare") as draw_one:
        for view in views:
            draw_one(view)
    assert list(pictures.seconds) == [view.name for view in views]
    for view in views:
        expected = to_uint8(truth(view.camera).rgb[0])
        assert np.array_equal(read_image(pictures.path(view)), np.asarray(expected))
    assert len(list((tmp_path / "compare").glob("*.png"))) == 12


def test_a_picture_that_cannot_be_written_ends_it(toy_scene, truth, tmp_path, monkeypatch):
    def write(path, image):
        if path.stem == "03":
            raise OSError("no space left")
        write_image(path, image)

    monkeypatch.setattr("difix3d.evaluate.pictures.write_image", write)
    views = [Views(toy_scene)[i] for i in range(12)]
    with pytest.raises(OSError, match="no space left"):
        draw(truth, views, Pictures("plain", tmp_path, "renders"))


def test_views_are_measured_while_pictures_are_written(toy_scene, truth, tmp_path, monkeypatch):
    """And the numbers are those of the files."""
    opened, drawn = threading.Event(), []

    def write(path, image):
        opened.wait(5)
        write_image(path, image)

    monkeypatch.setattr("difix3d.evaluate.pictures.write_image", write)
    views = [Views(toy_scene)[i] for i in range(4)]
    pictures = Pictures("plain", tmp_path, "renders")
    with drawing(truth, pictures, tmp_path / "compare") as draw_one:

        def look(_, view):
            drawn.append(view.name)
            return draw_one(view)

        found, _ = measure(("psnr", "ssim"), [pictures], views, look=look)
        assert drawn == [view.name for view in views]
        assert not list(tmp_path.rglob("*.png"))
        opened.set()
    assert len(list((tmp_path / "compare").rglob("*.png"))) == 4
    again, _ = measure(("psnr", "ssim"), [pictures], views)
    assert found == again


@pytest.mark.gpu
def test_on_a_gpu_the_numbers_are_those_of_the_cpu_for_one_wait(toy_scene, truth, tmp_path):
    views = [Views(toy_scene)[i] for i in range(2)]
    half = torch.zeros(views[0].image.shape[:2], dtype=torch.bool)
    half[:, 10:30] = True
    views = [replace(views[0], mask=half), views[1], replace(views[1], mask=half & False)]
    pictures = Pictures("plain", tmp_path, "renders")
    draw(lambda camera: Render(truth(camera).rgb * 0.8, truth(camera).alpha), views, pictures)

    def found(device):
        options = {"device": device, "seen": lambda _: half.roll(5, 1)}
        return measure(("psnr", "ssim", "cc_psnr"), [pictures], views, **options)[0][0].images

    for ours, theirs in zip(found("cuda"), found("cpu"), strict=True):
        assert ours.pop("name") == theirs.pop("name")
        assert ours == pytest.approx(theirs, abs=1e-5, nan_ok=True)
    view = Views(toy_scene, "cuda")[1]
    image = torch.zeros(40, 48, 3, dtype=torch.uint8, device="cuda")
    with counted() as waits:
        measure(("psnr", "ssim"), [pictures], [view], "cuda", lambda _: half, lambda *_: image)
    assert sum(waits.values()) == 1, waits
