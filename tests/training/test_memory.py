"""The memory planner: its estimates beside bytes counted on a pretended GPU, and what it chooses for a budget."""

import json
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shared_data import SHARED, require
from small_run import write_scene

from difix3d.cli.train import train
from difix3d.scene import Views
from difix3d.training import Trainer
from difix3d.training.memory import CONTEXT, Choice, Sizes, choose, estimate, settle_memory, share_seen, sizes_of

GB = 10**9
LARGE = Sizes(
    gaussians=1_000_000,
    coefficients=16,
    pixels=1297 * 840,
    seen=0.4,
    gate=True,
    photos=185 * 1297 * 840 * 3,
    weights=int(1.9 * GB),
    frame_pixel=3200,
)
"""Garden with the published fixer."""


@pytest.mark.slow
def test_estimates_are_near_what_is_counted():
    pretend = require(SHARED / "pretend_cuda") / "pretend_cuda.py"
    command = [sys.executable, str(pretend), str(Path(__file__).with_name("counted_memory.py"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for row in json.loads(done.stdout.splitlines()[-1]):
        print(f"{row['what']}: {row['estimated']:,} estimated, {row['counted']:,} counted")
        assert row["estimated"] == pytest.approx(row["counted"], rel=0.15), row["what"]


def test_the_less_memory_there_is_the_more_is_given_up():
    plans = {budget: choose(LARGE, budget * GB) for budget in (24, 7, 5, 2)}
    assert plans[24].choice == Choice(photos_on_gpu=True)
    assert plans[7].choice == Choice(photos_on_gpu=False)
    assert plans[5].choice == Choice(tile=512)
    assert all(plan.total <= budget * GB for budget, plan in plans.items() if budget > 2)
    assert plans[2].choice.offload or plans[2].choice.packed
    assert "may not fit" in plans[2].table()
    assert "--densify.cap-max" in plans[2].table()
    assert "may not fit" not in plans[24].table()


def test_what_was_asked_for_stays():
    assert choose(LARGE, 80 * GB, packed=True).choice.packed
    assert choose(replace(LARGE, weights=0, frame_pixel=0), GB).choice.offload is False


def test_a_table_adds_up():
    rows = estimate(LARGE, Choice(photos_on_gpu=True))
    plan = choose(LARGE, 24 * GB)
    assert plan.rows == rows
    assert sum(rows.values()) < 24 * GB
    assert plan.total == sum(rows.values())
    assert f"{plan.total / GB:.2f} GB  of 24.00 GB" in plan.table("first")
    assert plan.table("first").startswith("first\n")


def test_a_cpu_has_no_plan(toy_scene, config):
    plan = Trainer(config, toy_scene).plan
    assert plan.table("as ever") == "as ever"
    assert plan.measured(300) == ""
    assert plan.photo_limit(config) == 4 * GB


def test_the_share_of_points_that_cameras_see(toy_scene):
    assert share_seen(toy_scene) > 0.9
    behind = replace(
        toy_scene,
        cameras=replace(toy_scene.cameras, c2w=toy_scene.cameras.c2w @ torch.diag(torch.tensor([-1.0, 1, -1, 1]))),
    )
    assert share_seen(behind) < 0.1


@pytest.fixture
def free(monkeypatch):
    """The GPU has 8 GB free, and 2 GB of tensors were there at most."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8 * GB, 24 * GB))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 2 * GB)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (None, "of 8.00 GB: "),
        (4.0, "of 4.00 GB: "),
        (12.0, "of 8.00 GB that are free, less than --memory-budget: "),
    ],
)
def test_no_budget_is_above_what_is_free(toy_scene, config, free, budget, said):
    _, plan = settle_memory(replace(config, memory_budget=budget), toy_scene, None, 300, torch.device("cuda"))
    assert said in plan.table()


def test_the_peak_stands_beside_the_estimate_for_the_largest_count_there_was(free):
    plan = choose(LARGE, 24 * GB)
    expected = sum(estimate(replace(LARGE, gaussians=5_000), plan.choice).values()) - CONTEXT
    assert plan.measured(5_000) == (
        f"GPU memory: at most 2.00 GB of tensors, {expected / GB:.2f} GB estimated for 5,000 Gaussians"
    )


def test_masks_are_counted_with_their_photos(toy_scene, config):
    """As :class:`Views` keeps them: a byte a pixel."""
    photos = (replace(toy_scene.photos[0], mask=Path("mask.png")), *toy_scene.photos[1:])
    before, after = (
        sizes_of(config, scene, None, 300).photos for scene in (toy_scene, replace(toy_scene, photos=photos))
    )
    width, height = toy_scene.cameras[0].size
    assert after - before == width * height


@pytest.mark.gpu
def test_photos_kept_on_the_gpu_are_the_same(toy_scene):
    here, there = Views(toy_scene, "cuda"), Views(toy_scene, "cuda", keep_on="cuda")
    for _ in range(2):
        assert torch.equal(here[0].image, there[0].image)
    assert there.held_bytes == here.held_bytes > 0


def test_plain_training_is_gone_before_the_main_one_begins(tmp_path, toy_scene, monkeypatch):
    """Model, optimiser and photos of both would not fit into a GPU for which one was planned."""
    kept: weakref.WeakSet = weakref.WeakSet()
    counts, real = [], Trainer.train

    def counted(self):
        kept.update([self.model, self.model.splats, self.views])
        counts.append(len(kept))
        return real(self)

    monkeypatch.setattr(Trainer, "train", counted)
    args = ["--scene", str(write_scene(tmp_path / "scene", toy_scene)), "--split", "every:4", "--max-steps", "2"]
    args += ["--init.points", "300", "--init.dense", "0", "--device", "cpu", "--fixer", "none", "--compare"]
    train([*args, "--output-dir", str(tmp_path / "run")])
    assert counts == [3, 3]
