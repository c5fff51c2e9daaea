"""Commands that only read need no lock, and find a model while a training replaces and prunes what they look at."""

import pytest
import torch
from small_run import write_run

from difix3d.gaussians import checkpoint, load_newest, save_checkpoint
from difix3d.runfiles import lock
from difix3d.training.load import load_run


@pytest.fixture
def pruned_under_them(monkeypatch):
    """Just before the first checkpoint is read, a newer one takes its place."""
    original, left = checkpoint.load_checkpoint, [1]

    def load(path):
        if left:
            left.clear()
            _, tensors, extra = original(path)
            save_checkpoint(path.parent, 11, tensors, extra, keep=1)
        return original(path)

    monkeypatch.setattr(checkpoint, "load_checkpoint", load)


@pytest.mark.usefixtures("pruned_under_them")
def test_a_checkpoint_that_goes_before_it_is_read(toy_scene, tmp_path):
    run = write_run(tmp_path, toy_scene)
    held = lock(run)
    assert load_run(run, device="cpu").step == 11
    held.release()


def test_a_link_to_nowhere_is_a_damaged_checkpoint(tmp_path):
    save_checkpoint(tmp_path, 3, {"x": torch.ones(2)}, {}, keep=0)
    (tmp_path / "step_0000005.safetensors").symlink_to(tmp_path / "away")
    found = load_newest(tmp_path)
    assert found is not None
    assert found[1][0] == 3
