"""The C++ part: compiled at first use for the machine at hand, kept in the user's cache folder, called through ctypes.

Without a compiler nothing breaks: :func:`load` says once what to install and returns ``None``, and the callers use
their pure-torch twins.
"""

import atexit
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from difix3d import places
from difix3d.errors import UserError

BASE_FLAGS = ("-O3", "-ffast-math", "-fPIC", "-std=c++17", "-pthread", "-w")
# Tried in this order: some compilers do not know the machine, or the pragmas of OpenMP (of which only `simd` is used).
EXTRA_FLAGS = (("-march=native", "-fopenmp-simd"), ("-march=native",), ("-fopenmp-simd",), ())

_log = logging.getLogger(__name__)
_COUNTS = {"difix3d_project": ctypes.c_int64, "difix3d_tile_lists": ctypes.c_int64}


@functools.lru_cache
def load() -> ctypes.CDLL | None:
    """The library of all C++ files in this folder, or ``None`` (after one warning) where it cannot be compiled.

    Raises:
        UserError: if other users could have written to the cache folder.
    """
    compiler = find_compiler()
    if compiler is None:
        cure = "Install a C++ compiler (Debian, Ubuntu: apt install g++; macOS: xcode-select --install)"
        _fall_back(f"no C++ compiler found. {cure}, or name yours in CXX")
        return None
    try:
        library = ctypes.CDLL(str(build(compiler, cache_folder())))
    except (subprocess.SubprocessError, OSError) as error:
        _fall_back(f"{compiler} could not compile or load the C++ files: {_last_words(error)}")
        return None
    for function, kind in _COUNTS.items():
        getattr(library, function).restype = kind
    return library


def call(function: object, *arguments: Tensor | int | float | None) -> int:
    """Calls a C function: contiguous tensors go as pointers, floats as C floats, ints as 64 bit."""
    converted: list[object] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            converted.append(ctypes.c_void_p(argument.data_ptr()))
        elif isinstance(argument, float):
            converted.append(ctypes.c_float(argument))
        elif argument is None:
            converted.append(ctypes.c_void_p())
        else:
            converted.append(ctypes.c_int64(argument))
    return function(*converted)  # type: ignore[operator]


def find_compiler() -> str | None:
    """``$CXX``, else the system's C++ compiler; ``None`` if there is none (or on Windows, whose compilers differ)."""
    if sys.platform == "win32":
        return None
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    return next((path for name in names if (path := shutil.which(name))), None)


def cache_folder() -> Path:
    """The user's own folder for compiled files; made with mode 0700. Code is loaded from it: nobody else may write."""
    try:
        folder = places.cache_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, UserError):  # no home, a read-only one, a full disk: compile for this process only
        return _own_folder()
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise UserError(
            f"The cache folder {folder} belongs to or is writable by other users",
            "Compiled code is loaded from it, so it has to be yours alone",
            f"Run: chmod 700 {folder} (after deleting what is in it), or point XDG_CACHE_HOME elsewhere",
        )
    return folder


@functools.lru_cache
def _own_folder() -> Path:
    """A folder of this process alone, which is deleted with its end."""
    folder = Path(tempfile.mkdtemp(prefix="difix3d-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def build(compiler: str, folder: Path) -> Path:
    """Compiles the library into ``folder`` unless that was done for these sources, compiler and machine.

    Several processes may do this at once: each compiles under a name of its own and moves the finished file into place.
    A checksum beside the library tells whether it is whole: loading one that was cut short ends the process.
    """
    sources = sorted(Path(__file__).parent.glob("*.cpp"))
    texts = [file.read_text() for file in (*sources, *Path(__file__).parent.glob("*.h"))]
    identity = [*texts, _output(compiler, "--version"), _cpu(), repr((BASE_FLAGS, EXTRA_FLAGS))]
    target = folder / f"native-{hashlib.sha256(chr(0).join(identity).encode()).hexdigest()[:24]}.so"
    if _whole(target):
        return target
    _log.info("compiling %s, once for this machine", ", ".join(source.name for source in sources))
    error: subprocess.CalledProcessError | None = None
    for extra in EXTRA_FLAGS:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            objects = [Path(temporary, f"{source.stem}.o") for source in sources]
            product = Path(temporary, "whole.so")

            def compiled(source: Path, made: Path, flags: tuple[str, ...] = extra) -> str:
                return _output(compiler, *BASE_FLAGS, *flags, "-c", str(source), "-o", str(made))

            try:
                with ThreadPoolExecutor() as pool:
                    list(pool.map(compiled, sources, objects))
                # linked without -ffast-math: with it, loading would flush the whole process' denormals to zero
                _output(compiler, "-shared", "-pthread", *map(str, objects), "-o", str(product))
            except subprocess.CalledProcessError as failure:
                error = error or failure
                continue
            checksum = Path(temporary, "checksum")
            checksum.write_text(_sha256(product))
            os.replace(product, target)
            os.replace(checksum, target.with_suffix(".sha256"))
            return target
    assert error is not None
    raise error


def _whole(library: Path) -> bool:
    try:
        return library.with_suffix(".sha256").read_text() == _sha256(library)
    except (OSError, UnicodeDecodeError):
        return False


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def _cpu() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    wanted = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    return "\n".join([platform.machine(), platform.processor(), *sorted(wanted)])


def _last_words(error: Exception) -> str:
    lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
    return next((line for line in lines if "error" in line), lines[-1])


def _fall_back(reason: str) -> None:
    slow = "rendering, losses and synthetic scenes are computed in pure torch; rendering is some 200 times slower"
    warnings.warn(f"{slow}: {reason}.", RuntimeWarning, stacklevel=3)
