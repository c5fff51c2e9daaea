"""Poses of photos, aligned with a model at test time."""

from dataclasses import replace

import pytest
import torch

from difix3d.evaluate import psnrs
from difix3d.evaluate.align import align, at_cameras
from difix3d.geometry.poses import moved
from difix3d.scene import Views

OFF = torch.tensor([[0.01, -0.015, 0.005, 0.02, 0.015, -0.01]])
"""About a pixel."""


@pytest.fixture
def views(toy_scene):
    loaded = Views(toy_scene)
    return [loaded[int(i)] for i in toy_scene.test]


def shifted(view):
    return replace(view, camera=replace(view.camera, c2w=moved(view.camera.c2w, OFF)))


def scores(truth, view, found):
    """PSNR from the view's own pose, and from another."""
    return psnrs(truth, [view])[0], psnrs(truth, at_cameras([view], [found]))[0]


@pytest.mark.parametrize("gain", [1.0, 0.7])
def test_a_pose_that_is_off_is_found_again(truth, views, gain):
    off = shifted(views[1])
    raw, aligned = scores(truth, off, align(truth, replace(off, image=off.image * gain)))
    assert aligned > raw + 4


def test_an_exact_pose_is_kept(truth, views):
    _, aligned = scores(truth, views[0], align(truth, views[0]))
    assert aligned > 55  # less than half a grey level


def test_masked_pixels_do_not_count(truth, views):
    off = shifted(views[1])
    mask = torch.ones(off.image.shape[:2], dtype=torch.bool)
    mask[:, :12] = False
    spoilt = off.image.clone()
    spoilt[:, :12] = 0.5
    raw, aligned = scores(truth, off, align(truth, replace(off, image=spoilt, mask=mask)))
    assert aligned > raw + 3
    empty = replace(off, mask=mask & False)
    assert align(truth, empty) is empty.camera
