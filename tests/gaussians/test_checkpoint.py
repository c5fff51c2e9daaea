import errno
import struct

import numpy as np
import pytest
import torch

from difix3d.errors import UserError
from difix3d.gaussians import checkpoint
from difix3d.gaussians.checkpoint import (
    DamagedCheckpoint,
    flatten,
    load_checkpoint,
    load_newest,
    nested,
    newest_checkpoint,
    save_checkpoint,
)

STATE = {"gaussians": {"means": torch.arange(6.0).reshape(2, 3)}, "moments": {"means": {"step": torch.tensor(4.0)}}}


def test_round_trip(tmp_path):
    path = save_checkpoint(tmp_path, 12, flatten(STATE), {"photos": ["a"]}, keep=0)
    step, tensors, extra = load_checkpoint(path)
    assert (step, extra) == (12, {"photos": ["a"]})
    assert torch.equal(nested(tensors)["moments"]["means"]["step"], torch.tensor(4.0))
    assert torch.equal(nested(tensors)["gaussians"]["means"], STATE["gaussians"]["means"])


def test_tensors_in_the_same_memory(tmp_path):
    whole = torch.arange(6.0)
    tensors = {"a": whole, "b": whole, "part": whole[2:4], "turned": whole.reshape(2, 3).T, "empty": whole[:0]}
    _, loaded, _ = load_checkpoint(save_checkpoint(tmp_path, 1, tensors, {}, keep=0))
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())


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
    with pytest.raises(DamagedCheckpoint, match="cut short or changed.*--resume takes the newest that is whole"):
        load_checkpoint(path)


@pytest.mark.parametrize("part", ["name", "step", "extra", "tensor"])
def test_a_changed_byte_is_noticed(tmp_path, part):
    path = save_checkpoint(tmp_path, 12, flatten(STATE), {"photos": ["a"]}, keep=0)
    content = path.read_bytes()
    old, new = {
        "name": (b"gaussians.means", b"gaussians.maens"),
        "step": (b'"step":"12"', b'"step":"13"'),
        "extra": (b'[\\"a\\"]', b'[\\"b\\"]'),
        "tensor": (struct.pack("<f", 5.0), struct.pack("<f", 5.5)),
    }[part]
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    with pytest.raises(DamagedCheckpoint, match="its checksum is wrong"):
        load_checkpoint(path)


def test_seeded_flips_are_all_noticed(tmp_path):
    path = save_checkpoint(tmp_path, 12, flatten(STATE), {"photos": ["a"]}, keep=0)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for position in rng.integers(0, len(content), 60):
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(UserError):
            load_checkpoint(path)


def test_nan_is_no_model(tmp_path):
    state = {"gaussians.means": torch.tensor([[0.0, torch.nan, 0.0]])}
    path = save_checkpoint(tmp_path, 1, state, {}, keep=0)
    with pytest.raises(DamagedCheckpoint, match="NaN or infinite"):
        load_checkpoint(path)


def test_the_newest_that_is_whole_is_taken(tmp_path, caplog):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, flatten(STATE), {}, keep=0)
    for step in (2, 3):
        (tmp_path / f"step_000000{step}.safetensors").write_bytes(b"")
    path, (step, _, _) = load_newest(tmp_path)
    assert (path.stem, step) == ("step_0000001", 1)
    assert [f"step_000000{step}" in record.getMessage() for step, record in zip((3, 2), caplog.records, strict=True)]
    assert "that of step 1 is taken" in caplog.text
    path.write_bytes(b"")
    with pytest.raises(DamagedCheckpoint, match="step_0000003"):
        load_newest(tmp_path)


def test_checkpoints_without_checksum_are_still_read(tmp_path):
    header = {"format": checkpoint.WITHOUT_CHECKSUM, "step": "4", "extra": "{}"}
    checkpoint.save_file(flatten(STATE), tmp_path / "step_0000004.safetensors", header)
    assert load_newest(tmp_path)[1][0] == 4


def test_other_version(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    path = save_checkpoint(tmp_path, 1, flatten(STATE), {}, keep=0)
    monkeypatch.undo()
    with pytest.raises(UserError, match="has format 99.*reads format 3"):
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
