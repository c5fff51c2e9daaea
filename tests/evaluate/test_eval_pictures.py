"""Pictures of an evaluation, which threads write while the next ones are rendered."""

import numpy as np
import pytest

from difix3d.evaluate import Pictures, draw
from difix3d.images import read_image, to_uint8, write_image
from difix3d.scene import Views


def test_each_picture_is_that_of_its_view(toy_scene, truth, tmp_path):
    views = [Views(toy_scene)[i] for i in range(12)]
    pictures = Pictures("plain", tmp_path, "renders")
    draw(truth, views, pictures, tmp_path / "compare")
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
