"""What a benchmark may say of the machine that it ran on: the device's model, never a host's name."""

import platform
from pathlib import Path

import torch


def device_name(device: torch.device | str) -> str:
    """The model of the GPU or of the processor."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
