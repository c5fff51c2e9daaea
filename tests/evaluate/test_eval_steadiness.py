"""Steadiness along a path: what flickers is found, and what nothing was done to is the floor."""

import math

import torch

from difix3d.evaluate.steadiness import read_steadiness, steadiness


def test_flicker_is_found_and_a_constant_change_is_none(toy_scene, truth, tmp_path):
    cameras = [toy_scene.cameras[i] for i in (0, 0, 1, 1, 2, 2)]
    renders = [truth(camera).rgb[0] for camera in cameras]
    ways = {
        "render": renders,
        "fixed": [image * 0.5 + 0.1 * (i % 2) for i, image in enumerate(renders)],
        "mixed": [image * 0.5 for image in renders],
    }
    render, fixed, mixed = steadiness("row", ways, truth, cameras, tmp_path / "all.mp4")
    assert mixed.short < render.short < fixed.short
    assert fixed.short - mixed.short > 0.05
    assert abs(fixed.long - mixed.long) < 0.01  # four apart it is the same again
    assert render.errors[0] < 1e-6  # the camera stands still
    assert abs(fixed.errors[0] - 0.1) < 0.01
    assert (tmp_path / "all.mp4").stat().st_size > 0


def test_where_nothing_is_seen_twice_there_is_no_number(toy_scene, truth):
    def empty(camera):
        out = truth(camera)
        return type(out)(out.rgb, torch.zeros_like(out.alpha), out.depth)

    cameras = [toy_scene.cameras[i] for i in (0, 1)]
    (found,) = steadiness("row", {"render": [truth(camera).rgb[0] for camera in cameras]}, empty, cameras)
    assert math.isnan(found.short)
    assert math.isnan(found.long)
    content = {"row": "row", "way": "render", "short": None, "long": None, "errors": [None]}
    assert math.isnan(read_steadiness([content])[0].errors[0])
