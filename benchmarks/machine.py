"""The machine a benchmark runs on: what may be said of it (the model, never a host), its clock, its peak."""

import ctypes
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from difix3d import native

PEAK_SOURCE = """
#include <cstdint>
typedef float V __attribute__((vector_size(64)));
extern "C" float peak(int64_t rounds, int64_t threads) {
    float total = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : total)
    for (int64_t t = 0; t < threads; t++) {
        V a[12], x = V{} + 0.999f, y = V{} + 0.5f;
        for (int i = 0; i < 12; i++) a[i] = V{} + float(i);
        for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 12
            for (int i = 0; i < 12; i++) a[i] = a[i] * x + y;
        for (int i = 0; i < 12; i++) total += a[i][0];
    }
    return total;
}
"""


def device_name(device: torch.device | str) -> str:
    """The model of the GPU or of the processor."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def fma_peak(threads: int) -> float | None:
    """Attainable GFLOP/s of fused multiply-adds in registers, best of several runs; ``None`` without a compiler."""
    compiler = native.find_compiler()
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "peak.cpp"), Path(folder, "peak.so")
        source.write_text(PEAK_SOURCE)
        flags = ["-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC"]
        try:
            subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True, capture_output=True)
        except subprocess.CalledProcessError:
            return None
        function, rounds = ctypes.CDLL(str(library)).peak, 1_000_000
        seconds = measure(lambda: function(ctypes.c_int64(rounds), ctypes.c_int64(threads)), repeats=15)["min"]
    return threads * rounds * 12 * 16 * 2 / seconds / 1e9


def measure(run: Callable[[], object], repeats: int) -> dict[str, float]:
    """Seconds: least and median."""
    seconds = []
    for _ in range(repeats + 1):  # the first does not count
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"min": min(seconds[1:]), "median": float(np.median(seconds[1:]))}
