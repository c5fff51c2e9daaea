"""Triton's kernels, on a GPU and in Triton's interpreter, which needs none."""

import os

import pytest
import torch


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.speed])])
def device(request, monkeypatch) -> torch.device:
    """Where kernels of :mod:`difix3d.gpu` run in this test, which may import them, and everything takes them."""
    pytest.importorskip("triton", reason="Triton comes with CUDA builds of torch")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # the twins' convolutions shall be in full fp32
    interpreter = os.environ.get("TRITON_INTERPRET") == "1"  # set in tests/conftest.py
    if (request.param == "interpreter") != interpreter:
        pytest.skip("in this process the kernels are for the other")
    if interpreter:
        monkeypatch.setattr("difix3d.gpu.usable", lambda _: True)
    return torch.device("cpu" if interpreter else "cuda")
