import errno

import pytest
import torch

from difix3d.errors import UserError
from difix3d.gaussians import checkpoint
from difix3d.gaussians.checkpoint import flatten, load_checkpoint, nested, newest_checkpoint, save_checkpoint

STATE = {"gaussians": {"means": torch.arange(6.0).reshape(2, 3)}, "moments": {"means": {"step": torch.tensor(4.0)}}}


def test_round_trip(tmp_path):
    path = save_checkpoint(tmp_path, 12, flatten(STATE), {"photos": ["a"]}, keep=0)
    step, tensors, extra = load_checkpoint(path)
    assert (step, extra) == (12, {"photos": ["a"]})
    assert torch.equal(nested(tensors)["moments"]["means"]["step"], torch.tensor(4.0))
    assert torch.equal(nested(tensors)["gaussians"]["means"], STATE["gaussians"]["means"])


def test_only_the_newest_are_kept(tmp_path):
    for step in (100, 20, 3000):
        save_checkpoint(tmp_path, step, flatten(STATE), {}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_0000100.safetensors", "step_0003000.safetensors"]
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.stem == "step_0003000"


def test_cut_short(tmp_path):
    path = save_checkpoint(tmp_path, 1, flatten(STATE), {}, keep=0)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="cut short or damaged.*--resume then goes on from the one before"):
        load_checkpoint(path)


def test_other_version(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    path = save_checkpoint(tmp_path, 1, flatten(STATE), {}, keep=0)
    monkeypatch.undo()
    with pytest.raises(UserError, match="has format 99.*reads format 2"):
        load_checkpoint(path)


def test_full_disk_leaves_the_older_ones(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, flatten(STATE), {}, keep=1)

    def full(tensors, path, header):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(UserError, match="step 2 could not be written.*No space left.*Free some disk space"):
        save_checkpoint(tmp_path, 2, flatten(STATE), {}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_0000001.safetensors"]
