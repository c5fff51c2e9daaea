"""A GPU whose kernels of gsplat are missing or cannot be compiled: said before a training begins."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from difix3d.errors import UserError
from difix3d.render import backend
from difix3d.training import Trainer

CUDA = torch.device("cuda")
NAME = "gsplat.cuda._backend"


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch):
    backend.require_kernels.cache_clear()
    monkeypatch.setattr(backend, "_compiled", lambda: False)
    yield
    backend.require_kernels.cache_clear()


def test_there_is_no_toolkit(monkeypatch):
    """As pip's torch leaves a machine: gsplat then has no kernels, and says so at the first step alone."""
    monkeypatch.setitem(sys.modules, NAME, SimpleNamespace(_C=None))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(backend.shutil, "which", lambda name: None if name == "nvcc" else f"/usr/bin/{name}")
    with pytest.raises(UserError, match=r"there is no nvcc.*toolkit 12\.8.*g\+\+.*1\.6 GB.*MAX_JOBS.*CUDA_HOME"):
        backend.require_kernels(CUDA)


def test_the_reason_of_a_failed_compilation_is_not_hidden(monkeypatch):
    """gsplat catches an OSError and tries to load what was not compiled: the error that is raised is the second one."""

    def load(_):
        try:
            raise OSError("nvcc fatal: unsupported GNU version")
        except OSError:
            raise ImportError("gsplat_cuda.so: cannot open shared object file")  # noqa: B904 (as gsplat does)

    monkeypatch.setattr(backend, "import_module", load)
    with pytest.raises(UserError, match="unsupported GNU version.*VERBOSE=1"):
        backend.require_kernels(CUDA)


def test_it_is_asked_before_a_training_and_said_while_it_compiles(monkeypatch, toy_scene, config, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, NAME, SimpleNamespace(_C=None))
    with pytest.raises(UserError, match="no CUDA kernels"):
        Trainer(replace(config, device="cuda"), toy_scene)
    assert "compiling gsplat's CUDA kernels" in capsys.readouterr().err
    assert not config.output_dir.exists()


def test_a_cpu_needs_none(monkeypatch):
    monkeypatch.setattr(backend, "import_module", lambda _: pytest.fail("asked"))
    backend.require_kernels(torch.device("cpu"))
