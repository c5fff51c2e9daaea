import pytest
import torch

from difix3d.devices import choose_device
from difix3d.errors import UserError


def test_cuda_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(UserError, match="no CUDA device.*Install a CUDA build of torch"):
        choose_device("cuda")


def test_devices_that_are_not_offered():
    with pytest.raises(UserError, match="no device 'mps'.* one of auto, cuda, cpu"):
        choose_device("mps")
