"""Checkpoints: one safetensors file for a moment of a run, written whole or not at all.

Keys are dotted paths ("gaussians.means", "optimizer.means.exp_avg"); the header holds what is not a tensor, as JSON,
and a checksum over everything.
"""

import hashlib
import json
import logging
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from difix3d.errors import UserError
from difix3d.files import check_file, whole_file

log = logging.getLogger(__name__)

FORMAT = 3
"""Raised whenever older programs could not continue from a newer file, or the other way round."""

WITHOUT_CHECKSUM = "2"
"""A format that is still read."""


class DamagedCheckpoint(UserError):
    """A checkpoint that cannot be read, or does not hold what was written."""

    def __init__(self, path: Path, reason: str):
        super().__init__(
            f"The checkpoint {path} is damaged ({reason})",
            "It was cut short or changed after it was written",
            "Copy it again, or use an older one (--resume takes the newest that is whole)",
        )


def save_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], extra: dict[str, Any], *, keep: int) -> Path:
    """Writes ``step_0007000.safetensors`` and removes all but the newest ``keep`` (0 keeps all).

    The file is synced to disk before it takes its name: a power cut leaves either the old state or the new one.
    """
    path = folder / f"step_{step:07d}.safetensors"
    header = {"format": str(FORMAT), "step": str(step), "extra": json.dumps(extra)}
    stored = _apart({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    header["sha256"] = _checksum(stored, header)
    with whole_file(path) as partial:
        try:
            save_file(stored, partial, header)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"The checkpoint of step {step} could not be written to {folder} ({error})",
                "The older checkpoints are untouched",
                "Free some disk space and go on with --resume",
            ) from error
    if keep > 0:
        for old in checkpoints(folder)[:-keep]:
            old.unlink(missing_ok=True)
    return path


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, with a copy of each that shares its memory with one before it: safetensors writes none of both."""
    seen: set[int] = set()
    found = {}
    for name, value in tensors.items():
        place = value.untyped_storage().data_ptr()
        found[name] = value.clone() if place in seen else value
        seen.add(place)
    return found


def load_checkpoint(path: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
    """Returns (step, tensors on the CPU, extra).

    Raises:
        DamagedCheckpoint: it is a folder or cut short, its checksum is wrong, or its Gaussians are NaN or infinite.
        UserError: it was made by a version with another format.
    """
    try:
        check_file(path)
    except UserError as error:
        raise DamagedCheckpoint(path, error.fact.rpartition(": ")[2]) from error
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedCheckpoint(path, str(error)) from error
    if header.get("format") not in (str(FORMAT), WITHOUT_CHECKSUM):
        raise UserError(
            f"The checkpoint {path} has format {header.get('format', 'unknown')}",
            f"this version of difix3d reads format {FORMAT}",
            "Resume with the version that wrote it, or train again; its point_cloud.ply can still be viewed",
        )
    known = header.pop("sha256", None)
    if known != _checksum(tensors, header) and (known or header["format"] != WITHOUT_CHECKSUM):
        raise DamagedCheckpoint(path, "its checksum is wrong")
    finite = all(value.isfinite().all() for key, value in tensors.items() if key.startswith("gaussians."))
    if not finite:
        raise DamagedCheckpoint(path, "NaN or infinite values")
    try:
        return int(header["step"]), tensors, json.loads(header["extra"])
    except (KeyError, ValueError, RecursionError) as error:
        raise DamagedCheckpoint(path, f"its header: {error}") from error


def load_newest(folder: Path) -> tuple[Path, tuple[int, dict[str, Tensor], dict[str, Any]]] | None:
    """The newest checkpoint of a folder that is whole, and what :func:`load_checkpoint` gives of it.

    Newer ones that are damaged are named in a warning. ``None`` if there is no checkpoint.

    Raises:
        DamagedCheckpoint: none of them is whole.
    """
    damaged: list[DamagedCheckpoint] = []
    for path in reversed(checkpoints(folder)):
        try:
            loaded = load_checkpoint(path)
        except DamagedCheckpoint as error:
            if not os.path.lexists(path):  # a training goes on here, and has pruned it for a newer one
                return load_newest(folder)
            damaged.append(error)
            continue
        for newer in damaged:
            log.warning("%s; that of step %d is taken", newer.fact, loaded[0])
        return path, loaded
    if damaged:
        raise damaged[0]
    return None


def _checksum(tensors: dict[str, Tensor], header: dict[str, str]) -> str:
    """SHA-256 over names, types, shapes and bytes of the tensors, and over the header."""
    whole = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for key, value in sorted(tensors.items()):
        whole.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        whole.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the highest step in the folder."""
    return next(reversed(checkpoints(folder)), None)


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints in the folder, by step."""
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
