"""What the report is put together of: chosen views, maps, axes."""

import re
from dataclasses import replace

import numpy as np
import pytest

from difix3d.report.cameras import SIZE, camera_map
from difix3d.report.charts import ticks
from difix3d.report.images import colorize, error_map
from difix3d.report.views import CARDS, choose, first_and_last


def test_which_views_are_shown_and_in_which_order():
    assert choose(3) == [0, 1, 2]
    assert len(choose(500)) == len(set(choose(500))) == CARDS
    assert choose(500)[:8] == list(range(8))
    assert choose(500)[-8:] == list(range(492, 500))
    assert first_and_last(3) == [0, 1, 2]
    assert first_and_last(7) == [0, 1, 6, 5, 2, 3, 4]


def test_maps_of_errors():
    photo = np.full((2, 3, 3), 100, np.uint8)
    image = photo.copy()
    image[0, 0] = 255
    colors = error_map(image, photo)
    assert (colors[1] == colorize(np.zeros((1, 1)))).all()
    assert (colors[0, 0] == colorize(np.ones((1, 1)))).all()
    lightness = colorize(np.linspace(0, 1, 50)[None]).astype(float) @ [0.3, 0.6, 0.1]
    assert (np.diff(lightness) > 0).all()


def test_the_map_is_seen_from_above(toy_scene):
    """The arc's cameras stand south and look north: wedges open upwards on paper, where y is up."""
    svg = camera_map(toy_scene, [])
    wedges = [
        np.array([pair.split(",") for pair in points.split()], float) for points in re.findall(r'points="([^"]*)"', svg)
    ]
    apexes = np.stack([wedge[0] for wedge in wedges])
    assert ((apexes > 0) & (apexes < SIZE)).all()
    order = [*toy_scene.train, *toy_scene.test]
    assert (np.argsort(apexes[:, 0]) == np.argsort(toy_scene.cameras.centers[order, 0].numpy())).all()
    middle = wedges[order.index(6)]
    assert middle[1:, 1].mean() < middle[0, 1] - 5


def test_a_camera_far_off_does_not_shrink_the_map(toy_scene):
    c2w = toy_scene.cameras.c2w.clone()
    c2w[toy_scene.train[0], 0, 3] += 200
    far = replace(toy_scene, cameras=replace(toy_scene.cameras, c2w=c2w))
    spread = [
        np.ptp([float(points.split(",")[0]) for points in re.findall(r'points="([^"]*)"', camera_map(scene, []))][1:])
        for scene in (toy_scene, far)
    ]
    assert spread[1] > 0.7 * spread[0]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (15.59, 15.88), (-0.4, 0.2), (0, 30000)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high, 5)
    assert 2 <= len(found) <= 7
    assert low <= found[0] < found[-1] <= high
