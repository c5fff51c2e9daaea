"""Whether gsplat's CUDA kernels are there: asked before a training, so that it does not fail at its first step."""

import os
import re
import shutil
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from difix3d.console import console
from difix3d.errors import UserError

JOB = 1.6
"""GB of memory that one compiler of these takes; gsplat runs ten at once, unless MAX_JOBS says fewer."""


@cache
def require_kernels(device: torch.device) -> None:
    """Loads gsplat's kernels if the device needs them. The first time on a machine gsplat compiles them: minutes, which
    are announced.

    Raises:
        UserError: there is no CUDA toolkit, or they cannot be compiled.
    """
    if device.type != "cuda":
        return
    if not _compiled():
        console.print("compiling gsplat's CUDA kernels: once, for some minutes (VERBOSE=1 shows the compiler)")
    toolkit = f"CUDA toolkit {torch.version.cuda} with nvcc, as torch {torch.__version__} was built with, and g++"
    try:
        backend: Any = import_module("gsplat.cuda._backend")
    except Exception as error:  # of the compiler, torch's and gsplat's own
        reason = _reason(error)
        raise UserError(
            f"gsplat's CUDA kernels cannot be compiled ({reason})",
            f"The {toolkit}, {_wanted()} are needed",
            "Compile with fewer jobs where memory is short (MAX_JOBS=2), see what it says by VERBOSE=1, install a "
            "wheel of gsplat that is compiled (docs.gsplat.studio), or add --device cpu",
        ) from error
    if backend._C is None:
        missing = [name for name in ("nvcc", "g++") if shutil.which(name) is None]
        raise UserError(
            f"gsplat has no CUDA kernels{f': there is no {missing[0]}' if missing else ''}",
            f"They are compiled at first use, for which the {toolkit}, {_wanted()} are needed",
            "Install the toolkit and set CUDA_HOME, or a wheel of gsplat that is compiled (docs.gsplat.studio), or add "
            "--device cpu",
        )


def _reason(error: Exception) -> str:
    """The line that says why gsplat could not compile. What it tried before is among the causes of its error, and
    after an OSError it tries to load what was not compiled."""
    if isinstance(error, ImportError) and isinstance(error.__context__, OSError):
        error = error.__context__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    said = (line.strip() for line in lines if re.search(r"\bfatal\b|\berror\b", line))
    return next(said, lines[0])  # a build's first line is the compiler's call


def _wanted() -> str:
    jobs = os.environ.get("MAX_JOBS") or "10"
    return f"and {JOB} GB of memory for each of {jobs} jobs (MAX_JOBS)"


def _compiled() -> bool:
    """Whether they were compiled before, as far as files tell."""
    if "gsplat.cuda._backend" in sys.modules:
        return True
    import gsplat
    from torch.utils.cpp_extension import _get_build_directory

    if list(Path(gsplat.__file__).parent.glob("csrc*")):
        return True
    try:
        folder = Path(_get_build_directory("gsplat_cuda", verbose=False))
    except OSError:
        return False
    return any(folder.glob("gsplat_cuda.*"))
