"""Corrections of photos: what they learn, and what they must not take from the scene."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from difix3d.geometry.poses import common_motions, moved, rotation_about
from difix3d.images import read_image, write_image
from difix3d.training import Trainer
from difix3d.training.configfile import merge
from difix3d.training.refine import Corrections, RefineConfig


@pytest.fixture
def flickering(toy_scene, tmp_path):
    """The toy scene on automatic exposure: a gain of 0.75 to 1.33 for each photo."""
    rng = np.random.default_rng(0)
    photos = []
    for photo in toy_scene.photos:
        gain = np.exp(rng.uniform(np.log(0.75), np.log(4 / 3)))
        path = tmp_path / "photos" / photo.name
        write_image(path, (read_image(photo.path) * gain).clip(0, 255).round().astype(np.uint8))
        photos.append(replace(photo, path=path))
    return replace(toy_scene, photos=tuple(photos))


def train(scene, config, name, **refine):
    """Trains for 150 steps; gives back the trainer and the last row of what it evaluated."""
    changes = {"refine": refine, "densify": {"kind": "none"}, "init": {"opacity": 0.8}}
    config = merge(replace(config, max_steps=150, output_dir=config.output_dir / name), changes, source="test")
    trainer = Trainer(config, scene)
    trainer.train()
    return trainer, trainer.folder.rows("metrics.json")[-1]


def test_exposures_do_not_take_light_from_the_scene(flickering, config):
    _, without = train(flickering, config, "without")
    trainer, with_ = train(flickering, config, "with", exposure=True, exposure_rate=1e-2)
    exposure = trainer.model.corrections.exposure.detach()
    torch.testing.assert_close(exposure[flickering.train].mean(0), torch.eye(3, 4), atol=1e-5, rtol=0)
    assert exposure[flickering.train].sub(torch.eye(3, 4)).abs().max() > 0.05
    torch.testing.assert_close(exposure[flickering.test], torch.eye(3, 4).expand(3, 3, 4))
    assert with_["cc_psnr"] > with_["psnr"]
    assert "cc_psnr" not in without
    assert with_["psnr"] > without["psnr"] + 3  # and not half of it, as where the scene takes a part of the gains


def test_poses_do_not_move_the_scene(toy_scene, config):
    trainer, _ = train(toy_scene, config, "with", poses=True, pose_rate=1e-3)
    motion = trainer.model.corrections.motion.detach()[toy_scene.train]
    common = common_motions(toy_scene.cameras.c2w[toy_scene.train])
    assert motion.abs().max() > 1e-3
    assert torch.einsum("nik,ni->k", common, motion).abs().max() < 1e-4


def test_a_motion_of_the_world_as_one_is_taken_away_and_others_stay(toy_scene):
    corrections = Corrections(toy_scene, RefineConfig(poses=True, exposure=True), max_steps=100)
    common = common_motions(toy_scene.cameras.c2w[toy_scene.train])
    torch.manual_seed(0)
    single = 1e-3 * torch.randn(len(common), 6)
    with torch.no_grad():
        corrections.motion[toy_scene.train] = common @ torch.tensor([2e-3, 1e-3, -1e-3, 3e-3, 0.0, 1e-3, 2e-3])
        corrections.step(0)
        assert corrections.motion.abs().max() < 1e-6
        corrections.motion[toy_scene.train] = single
        corrections.step(0)
        left = corrections.motion[toy_scene.train].clone()
        corrections.step(0)
    assert (left - single).norm() < 0.7 * single.norm()
    torch.testing.assert_close(corrections.motion[toy_scene.train], left, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["turn", "shift", "grow"])
def test_what_is_common_to_a_world_that_moves_as_one(toy_scene, kind):
    c2w, weights = toy_scene.cameras.c2w, torch.zeros(7)
    center, expected = c2w[:, :3, 3].mean(0), c2w.clone()
    if kind == "turn":
        weights[:3] = 2e-3 * torch.tensor([0.6, 0.0, 0.8])
        turn = rotation_about(torch.tensor([0.6, 0.0, 0.8]), torch.tensor(2e-3))
        expected[:, :3, :3] = turn @ c2w[:, :3, :3]
        expected[:, :3, 3] = (c2w[:, :3, 3] - center) @ turn.T + center
    elif kind == "shift":
        weights[3:6] = torch.tensor([1e-3, -2e-3, 3e-3])
        expected[:, :3, 3] += weights[3:6]
    else:
        weights[6] = 1e-3
        expected[:, :3, 3] += 1e-3 * (c2w[:, :3, 3] - center)
    torch.testing.assert_close(moved(c2w, common_motions(c2w) @ weights), expected, atol=1e-5, rtol=0)
