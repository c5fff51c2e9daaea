"""How often the host waits for a GPU: counted on the pretended device, with today's figures as limits."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from waits import counted

from difix3d.difix.architecture import random_difix
from difix3d.difix.fixer import DifixFixer
from difix3d.distill import Distiller
from difix3d.distill.config import DistillConfig
from difix3d.gaussians import from_points
from difix3d.images import to_uint8
from difix3d.losses import LossConfig
from difix3d.postrender import PostRender
from difix3d.render import rasterize
from difix3d.scene import Views
from difix3d.training import Trainer
from difix3d.training.refine import RefineConfig

pytestmark = pytest.mark.gpu

NOVEL, PLUS = 9, 2
"""Waits for a novel view of a round, and for a frame of "+" with its evidence and the references of the one before:
docs/performance.md says which."""


def total(waits):
    return sum(waits.values()), dict(waits)


@pytest.fixture
def render(toy_scene):
    return partial(rasterize, from_points(toy_scene.points, toy_scene.colors, opacity=0.9).to("cuda"))


@pytest.fixture
def fixer():
    return DifixFixer(random_difix(device="cuda").optimize(torch.float32, compile=False), "cuda", offload=False)


def test_a_wait_is_counted():
    with counted() as waits:
        to_uint8(torch.zeros(2, device="cuda"))
    assert total(waits)[0] == 1


CHANGES = {
    "plain": {},
    "packed": {"packed": True},
    "antialiased": {"antialiased": True},
    "white": {"background": "white"},
    "random": {"background": "random"},
    "dropout": {"dropout": 0.2},
    "poses": {"refine": RefineConfig(poses=True)},
    "exposure": {"refine": RefineConfig(exposure=True)},
    "depth": {"loss": LossConfig(depth=0.01)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_plain_step_waits_for_nothing(toy_scene, config, change):
    trainer = Trainer(replace(config, device="cuda", **change), toy_scene)
    photos = trainer.photos(toy_scene, 0)
    views = [next(photos) for _ in range(4)]
    for step in (1, 2):
        trainer.model.step(views[step], step)
    with counted() as waits:
        trainer.model.step(views[3], 3)
        next(photos)
    assert total(waits)[0] == 0, waits


def test_a_novel_view(toy_scene, render, fixer):
    config = replace(DistillConfig(), num_perturbed=2)
    views = Views(toy_scene, "cuda")
    targets = toy_scene.cameras[toy_scene.test[:2]]
    counts = []
    for number in (1, 2):
        options = {"targets": targets[:number], "max_steps": 8, "device": "cuda"}
        few = Distiller(config, toy_scene, views.__getitem__, fixer, **options)
        few.run_round(render, few.steps[0])
        with counted() as waits:
            few.run_round(render, few.steps[0])
        counts.append(total(waits)[0])
    assert counts[1] - counts[0] <= NOVEL, waits


def test_a_frame_of_plus(toy_scene, render, fixer):
    post = PostRender(render, fixer, toy_scene, Views(toy_scene, "cuda").__getitem__, device="cuda")
    for _ in range(2):  # the first one is also compared with what is known of other photos
        post(toy_scene.cameras[2])
    with counted() as waits:
        post(toy_scene.cameras[2])
    assert total(waits)[0] <= PLUS, waits
