"""Checkpoints: one safetensors file for a moment of a run, written whole or not at all.

Keys are dotted paths ("gaussians.means", "optimizer.means.exp_avg"); the header holds what is not a tensor, as JSON.
"""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from difix3d.errors import UserError
from difix3d.files import whole_file

FORMAT = 2
"""Raised whenever older programs could not continue from a newer file, or the other way round."""


def save_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], extra: dict[str, Any], *, keep: int) -> Path:
    """Writes ``step_0007000.safetensors`` and removes all but the newest ``keep`` (0 keeps all).

    The file is synced to disk before it takes its name: a power cut leaves either the old state or the new one.
    """
    path = folder / f"step_{step:07d}.safetensors"
    header = {"format": str(FORMAT), "step": str(step), "extra": json.dumps(extra)}
    with whole_file(path) as partial:
        try:
            save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, partial, header)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"The checkpoint of step {step} could not be written to {folder} ({error})",
                "The older checkpoints are untouched",
                "Free some disk space and go on with --resume",
            ) from error
    if keep > 0:
        for old in _checkpoints(folder)[:-keep]:
            old.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
    """Returns (step, tensors on the CPU, extra).

    Raises:
        UserError: the file is cut short or damaged, or was made by a version with another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"The checkpoint {path} cannot be read ({error})",
            "It was cut short or damaged",
            "Delete it: --resume then goes on from the one before",
        ) from error
    if header.get("format") != str(FORMAT):
        raise UserError(
            f"The checkpoint {path} has format {header.get('format', 'unknown')}",
            f"this version of difix3d reads format {FORMAT}",
            "Resume with the version that wrote it, or train again; its point_cloud.ply can still be viewed",
        )
    return int(header["step"]), tensors, json.loads(header["extra"])


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the highest step in the folder."""
    return next(reversed(_checkpoints(folder)), None)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step_*.safetensors") if re.fullmatch(r"step_\d+", path.stem))


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """Nested dicts of tensors as one dict with dotted keys; what is not a tensor is left out."""
    flat: dict[str, Tensor] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            flat[f"{prefix}{key}"] = value
    return flat


def nested(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The opposite of :func:`flatten`. A group that had no tensors is an empty dict when asked for."""
    tree: dict[str, Any] = defaultdict(dict)
    for key, value in tensors.items():
        *groups, name = key.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[name] = value
    return tree
