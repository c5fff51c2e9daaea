"""What stands behind photos and renders."""

import torch

from difix3d.background import over, recolored, within
from difix3d.types import Cameras, Render, View

CAMERA = Cameras(torch.eye(4)[None], torch.eye(3)[None], torch.tensor([2]), torch.tensor([1]))
COLOR = torch.tensor([1.0, 0.5, 0.0])
IMAGE, ALPHA = torch.tensor([[[0.2, 0.1, 0.0], [0.0, 0.0, 0.0]]]), torch.tensor([[0.25, 0.0]])


def test_a_photo_shows_what_is_behind_it_as_far_as_it_is_transparent():
    view = over(View(CAMERA, IMAGE, "a", alpha=ALPHA), COLOR)
    assert view.alpha is None
    torch.testing.assert_close(view.image, torch.tensor([[[0.95, 0.475, 0.0], [1.0, 0.5, 0.0]]]))
    opaque = View(CAMERA, IMAGE, "a")
    assert over(opaque, COLOR) is opaque


def test_a_render_takes_another_background_and_gives_it_back():
    black = Render(IMAGE[None], ALPHA[None, ..., None])
    colored = recolored(black, COLOR)
    torch.testing.assert_close(colored.rgb[0], over(View(CAMERA, IMAGE, "a", alpha=ALPHA), COLOR).image)
    torch.testing.assert_close(recolored(colored, None).rgb, black.rgb)
    torch.testing.assert_close(recolored(colored, torch.ones(3)).rgb, recolored(black, torch.ones(3)).rgb)


def test_nothing_is_brighter_than_its_alpha():
    assert within(torch.ones(1, 2, 3), ALPHA).amax(-1).equal(ALPHA)
    assert within(IMAGE, ALPHA).equal(IMAGE)
