"""A GPU whose kernels of gsplat are missing or cannot be compiled: said before a training begins."""

import sys
from dataclasses import replace
from subprocess import CalledProcessError
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
    with pytest.raises(
        UserError, match=r"there is no nvcc.*for which the CUDA toolkit 12\.8.*1\.6 GB.*MAX_JOBS.*CUDA_HOME"
    ):
        backend.require_kernels(CUDA)


BUILD = """Error building extension 'gsplat_cuda': [1/9] /usr/local/cuda/bin/nvcc -O3 -Werror -c Intersect.cu
FAILED: Intersect.cuda.o
host_config.h:143:2: error: #error -- unsupported GNU version! gcc versions later than 13 are not supported!
ninja: build stopped: subcommand failed."""


def gsplat_fails(build):
    """As ``gsplat/cuda/_backend.py`` and ``load_extension`` of gsplat 1.5.3 do, where compiling fails by ``build``."""
    try:
        raise ImportError("cannot import name 'csrc' from 'gsplat'")
    except ImportError:
        try:
            try:
                raise TypeError("_jit_compile() missing 1 required positional argument")
            except TypeError:
                build()
        except OSError:
            raise ImportError("gsplat_cuda.so: cannot open shared object file")  # noqa: B904 (as gsplat does)


def stopped():
    try:
        raise CalledProcessError(1, ["ninja", "-v"])
    except CalledProcessError as error:
        raise RuntimeError(BUILD) from error


def no_room():
    raise OSError(28, "No space left on device")


def no_ninja():
    raise RuntimeError("Ninja is required to load C++ extensions\n(pip install ninja to get it)")


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (stopped, r"host_config.h:143:2: error: #error -- unsupported GNU version! .* supported!"),
        (no_room, r"\[Errno 28\] No space left on device"),
        (no_ninja, "Ninja is required to load C\\+\\+ extensions"),
    ],
)
def test_the_reason_of_a_failed_compilation_is_not_hidden(monkeypatch, build, reason):
    """gsplat tries three ways, one after the other: the first that failed says nothing, and nor may the last."""
    monkeypatch.setattr(backend, "import_module", lambda _: gsplat_fails(build))
    with pytest.raises(UserError, match=rf"compiled \({reason}\).*\. The CUDA toolkit.*VERBOSE=1"):
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
