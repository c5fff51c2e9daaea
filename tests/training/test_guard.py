"""A training that can only come to nothing ends at once, and says why."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from difix3d.errors import UserError
from difix3d.images import write_image
from difix3d.training import Trainer


def masked(scene, folder, values):
    """The scene with a mask of one value for each photo."""
    photos = []
    for photo, value in zip(scene.photos, values, strict=True):
        mask = folder / f"{photo.name}.mask.png"
        write_image(mask, np.full((40, 48, 1), value, np.uint8))
        photos.append(replace(photo, mask=mask))
    return replace(scene, photos=tuple(photos))


def test_photos_that_are_masked_whole(toy_scene, config, tmp_path):
    count = len(toy_scene.photos)
    with pytest.raises(UserError, match="The masks of 9 training photos .* leave no pixel.*inverted"):
        Trainer(config, masked(toy_scene, tmp_path, [0] * count)).train()
    some = [255 if i == toy_scene.train[-1] else 0 for i in range(count)]
    trainer = Trainer(replace(config, output_dir=tmp_path / "some"), masked(toy_scene, tmp_path, some))
    trainer.train()
    (row,) = trainer.folder.rows("metrics.json")
    assert row["psnr"] is None  # no held-out photo has a pixel that counts


def test_one_held_out_photo_masked_whole_leaves_the_mean_of_the_others(toy_scene, config, tmp_path):
    values = [0 if i == toy_scene.test[0] else 255 for i in range(len(toy_scene.photos))]
    trainer = Trainer(config, masked(toy_scene, tmp_path, values))
    trainer.train()
    (row,) = trainer.folder.rows("metrics.json")
    assert row["images"][0]["psnr"] is None
    assert row["psnr"] == pytest.approx(np.mean([image["psnr"] for image in row["images"][1:]]))


def test_no_gaussian_in_sight(toy_scene, config):
    away = replace(toy_scene, points=toy_scene.points * 0.1 + [0, 0, 500.0])
    with pytest.raises(UserError, match="Before step 0 none of 9 training photos .* shows a Gaussian.*one model"):
        Trainer(config, away).train()


def test_a_model_that_has_faded(toy_scene, config):
    trainer = Trainer(replace(config, max_steps=210), toy_scene)

    def fade(event):
        if getattr(event, "step", 0) == 199:
            with torch.no_grad():
                trainer.gaussians.opacities.fill_(-20)

    trainer.listeners = [fade]
    with pytest.raises(UserError, match="Before step 200 none of"):
        trainer.train()
