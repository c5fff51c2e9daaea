"""What is said where a GPU has no room; trainings: tests/reliability/test_errors.py."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from difix3d.cli import dispatch, fix
from difix3d.cli.fix import FixConfig
from difix3d.difix.load import load_fixer
from difix3d.errors import UserError


def full(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_fixer_that_finds_no_room_names_smaller_ones(monkeypatch):
    monkeypatch.setattr("difix3d.difix.load_difix", full)
    with pytest.raises(UserError, match=r"no room for the fixer 'nvidia/difix_ref'.*1\.9 GB.*--fixer mini"):
        load_fixer("nvidia/difix_ref", torch.device("cpu"))


@pytest.mark.parametrize("command", ["render", "evaluate"])
def test_a_command_that_finds_no_room_ends_without_a_traceback(monkeypatch, capsys, command):
    monkeypatch.setattr(f"difix3d.cli.{command}.{command}", full)
    with pytest.raises(SystemExit) as ended:
        dispatch(command, [])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"difix3d {command}: The GPU ran out of memory. Close other programs" in said
    assert "Traceback" not in said


def test_a_large_image_is_told_to_be_tiled(monkeypatch):
    class Pipe:
        unet, device = SimpleNamespace(dtype=torch.float32), torch.device("cpu")
        optimize = staticmethod(lambda *_: None)
        __call__ = full

    monkeypatch.setattr("difix3d.difix.load_difix", lambda *_: Pipe())
    fixer = fix.load(FixConfig(Path("renders"), fixer="mini"))
    with pytest.raises(UserError, match=r"too small for an image of 32x24 pixels.*--tile"):
        fixer(np.zeros((24, 32, 3), np.uint8), None)
