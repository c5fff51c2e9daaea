"""Compiling at first use: the cache, several processes at once, no compiler, and what loading does to the process."""

import errno
import os
import subprocess
import sys
import warnings

import pytest
import torch

from difix3d import native
from difix3d.errors import UserError

needs_compiler = pytest.mark.skipif(native.find_compiler() is None, reason="needs a C++ compiler")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache folder, and ``load`` as in a new process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.load.cache_clear()
    yield tmp_path / "difix3d"
    monkeypatch.undo()
    native.load.cache_clear()


@needs_compiler
def test_two_processes_at_once(tmp_path):
    code = "from difix3d import native; assert native.load() is not None"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    both = [subprocess.Popen([sys.executable, "-W", "error", "-c", code], env=environment) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    folder = tmp_path / "difix3d"
    assert sorted(path.suffix for path in folder.iterdir()) == [".sha256", ".so"]  # one library, nothing left over
    assert folder.stat().st_mode & 0o777 == 0o700


@needs_compiler
def test_compiled_once(fresh, monkeypatch):
    assert native.load() is not None
    compiler = native.find_compiler()
    before = native._output
    monkeypatch.setattr(
        native,
        "_output",
        lambda *command: before(*command) if "--version" in command else pytest.fail("compiled again"),
    )
    assert native.build(compiler, fresh).exists()


@needs_compiler
@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "no checksum"])
def test_a_damaged_library_is_compiled_again(fresh, damage):
    compiler, folder = native.find_compiler(), native.cache_folder()
    library = native.build(compiler, folder)
    whole = library.read_bytes()
    if damage == "no checksum":
        library.with_suffix(".sha256").unlink()
    else:
        flipped = bytes([whole[5000] ^ 1])
        changed = {"empty": b"", "cut": whole[: len(whole) // 2], "flipped": whole[:5000] + flipped + whole[5001:]}
        library.unlink()  # it may be loaded
        library.write_bytes(changed[damage])
    assert native.build(compiler, folder) == library
    assert len(library.read_bytes()) == len(whole)
    assert native.load() is not None


@needs_compiler
def test_a_cache_that_cannot_be_written_is_done_without(fresh, monkeypatch, tmp_path):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(native.tempfile, "TemporaryFile", full)
    monkeypatch.setattr(native.tempfile, "tempdir", str(tmp_path))
    native._own_folder.cache_clear()
    assert native.load() is not None
    assert native.cache_folder().parent == tmp_path
    assert not list(fresh.iterdir())
    native._own_folder.cache_clear()


@pytest.mark.parametrize("compiler", [None, "/bin/false"])
def test_without_a_working_compiler(fresh, monkeypatch, compiler):
    monkeypatch.setattr(native, "find_compiler", lambda: compiler)
    with pytest.warns(
        RuntimeWarning,
        match="rendering, losses and synthetic scenes are computed in pure torch.*"
        + ("apt install" if compiler is None else "could not compile"),
    ):
        assert native.load() is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one warning is enough
        assert native.load() is None
    from difix3d.render import rasterize
    from difix3d.ssim import ssim
    from difix3d.types import Cameras, Gaussians

    n = 5
    means = torch.rand(n, 3) + torch.tensor([0, 0, 2.0])
    g = Gaussians(
        means, torch.randn(n, 4), torch.full((n, 3), -1.0), torch.ones(n), torch.ones(n, 1, 3), torch.zeros(n, 0, 3)
    )
    K = torch.tensor([[[10.0, 0, 5], [0, 10, 5], [0, 0, 1]]])
    image = rasterize(g, Cameras(torch.eye(4)[None], K, torch.tensor([10]), torch.tensor([10]))).rgb
    assert image.max() > 0.1
    assert ssim(image, image).mean() > 0.99


def test_compiler_from_the_environment(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert native.find_compiler() is None


def test_windows_falls_back(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert native.find_compiler() is None


@needs_compiler
def test_compilers_without_openmp_or_native(fresh, monkeypatch):
    folder, before = native.cache_folder(), native._output

    def picky(*command: str) -> str:
        if "-fopenmp-simd" in command or "-march=native" in command:
            raise subprocess.CalledProcessError(1, command, stderr="error: unknown argument")
        return before(*command)

    monkeypatch.setattr(native, "_output", picky)
    assert native.build(native.find_compiler(), folder).exists()


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_cache_that_others_can_write_is_refused(fresh, mode):
    fresh.mkdir()
    fresh.chmod(mode)
    with pytest.raises(UserError, match=r"writable by other users\..*yours alone\..*chmod 700"):
        native.cache_folder()


@needs_compiler
def test_denormals_survive_loading():
    code = (
        "import numpy as np, torch; from difix3d import native; assert native.load() is not None;"
        "assert np.float32(1e-40) * np.float32(0.5) > 0; assert (torch.tensor([1e-40]) * 0.5).item() > 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_compiler
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_openmp_runtime_beside_that_of_torch():
    code = (
        "import torch; from difix3d import native; native.load(); lines = open('/proc/self/maps').read().split();"
        "print(len({x for x in lines if 'libgomp' in x or 'libomp' in x or 'libiomp' in x}))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert int(output) <= 1


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("threads", [1, 2])
def test_after_a_fork(threads):
    code = (
        "import os, torch; from difix3d.ssim import ssim; x = torch.rand(1, 150, 50, 3)\n"
        "torch.set_num_threads(2); ssim(x, x)\n"
        "pid = os.fork()\n"
        f"if pid == 0:\n    torch.set_num_threads({threads}); ssim(x, x); os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@needs_compiler
def test_several_callers_at_once():
    """A viewer renders while a training goes on: both are in the loops of the C++ part, with helpers."""
    code = (
        "import torch; from concurrent.futures import ThreadPoolExecutor; from difix3d.ssim import ssim\n"
        "torch.set_num_threads(3)\n"
        "pairs = [(torch.rand(1, 70 + i, 50, 3), torch.rand(1, 70 + i, 50, 3)) for i in range(8)] * 25\n"
        "with ThreadPoolExecutor(4) as pool: together = list(pool.map(lambda pair: ssim(*pair), pairs))\n"
        "torch.set_num_threads(1)\n"
        "assert all(torch.equal(ssim(*pair), map) for pair, map in zip(pairs, together, strict=True))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(("given", "expected"), [({}, "2000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")])
def test_how_openmp_waits_is_set_before_torch_and_the_user_decides(given, expected):
    """In the process itself, and in those that it starts."""
    code = "import os; import difix3d; os.system('echo $GOMP_SPINCOUNT'); print(os.environ.get('GOMP_SPINCOUNT'))"
    environment = {key: x for key, x in os.environ.items() if not key.startswith(("OMP_", "GOMP_", "KMP_"))} | given
    run = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    inherited, own = run.stdout.split("\n")[:2]
    assert (inherited or "None", own) == (expected, expected)


def test_torch_is_not_loaded_before_openmp_is_told():
    """``import difix3d`` alone brings nothing that brings OpenMP."""
    code = "import sys, difix3d; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout == "False\n"
