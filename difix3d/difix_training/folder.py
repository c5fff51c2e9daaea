"""The folder of a training of Difix."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from difix3d.difix_training.config import TrainDifixConfig
from difix3d.difix_training.dataset import Pair
from difix3d.errors import UserError
from difix3d.files import or_nan
from difix3d.gaussians.checkpoint import newest_checkpoint
from difix3d.limits import as_given, describe_option
from difix3d.runfiles import CHECKSUMS, append_row, lock, mend_rows, read_rows, refuse_foreign
from difix3d.training.configfile import merge, read_own, read_yaml, write_yaml

METRICS, MODEL = "metrics.json", "difix"

FREE = {
    *("data", "output_dir", "config", "resume", "steps", "skip_bad", "batch_size", "accumulate", "checkpointing"),
    *("device", "workers", "save_every", "keep_checkpoints", "eval_every", "eval_pairs", "eval_pictures", "tracker"),
    *("save_as", "push_to_hub", "private"),
}
"""What a resumed run may change: what it learns does not follow from it, or :func:`check_trained_on` looks after it."""


def check_folder(config: TrainDifixConfig) -> None:
    """Refuses a new run where there are files of others, and a resumed one with other settings; writes nothing."""
    folder = config.output_dir
    if config.resume:
        _check_settings(config)
        return
    if newest_checkpoint(folder / "checkpoints") is not None:
        raise UserError(
            f"{folder} holds a run already",
            "",
            "Go on with it by --resume, give another --output-dir, or delete the folder",
        )
    if (folder / MODEL).exists():
        raise UserError(f"{folder / MODEL} is there already", "The model goes there", "Choose another --output-dir")
    refuse_foreign(folder, ("config.yaml", METRICS, "eval"), partial(_begun, folder), "training of Difix")


def _begun(folder: Path) -> bool:
    """Whether a training of Difix wrote here, which got no further."""
    path = folder / "config.yaml"
    return (folder / CHECKSUMS).is_file() and path.is_file() and "lora_rank" in read_yaml(path)


def _check_settings(config: TrainDifixConfig) -> None:
    path = config.output_dir / "config.yaml"
    if not path.is_file():
        raise UserError(f"There is no run in {path.parent}", f"{path.name} is missing", "Train it without --resume")
    then = _settings(merge(TrainDifixConfig(), read_own(path.parent), source=str(path)))
    now = _settings(config)
    differ = [
        f"{describe_option(key, now[key])} now and was {as_given(then[key])}" for key in now if now[key] != then[key]
    ]
    if differ:
        raise UserError(
            f"The run in {path.parent} was configured otherwise: {'; '.join(differ)}",
            "It goes on only as it began",
            f"Leave these options out, or begin a new run from its model (--fixer {path.parent / MODEL})",
        )


def _settings(config: TrainDifixConfig) -> dict[str, Any]:
    """What a run has to go on with, by dotted names."""
    found: dict[str, Any] = {}
    for key, value in asdict(config).items():
        if key not in FREE:
            found |= {f"{key}.{name}": x for name, x in value.items()} if isinstance(value, dict) else {key: value}
    return found


def identity(pairs: dict[str, list[Pair]]) -> dict[str, Any]:
    """What tells whether pairs are those that were trained on: in each split their number, and a SHA-256 of their
    names and prompts and of the sizes of their files, in order. They may lie in another folder."""
    found = {}
    for split, some in pairs.items():
        sizes = [[pair.id, pair.prompt, *(path.stat().st_size for path in (pair.image, pair.target))] for pair in some]
        found[split] = {"pairs": len(some), "sha256": hashlib.sha256(json.dumps(sizes).encode()).hexdigest()}
    return found


def check_trained_on(now: dict[str, Any], then: dict[str, Any], checkpoint: Path) -> None:
    """Refuses other pairs than a checkpoint was trained on, which might be those that it is tested on, and another
    number of them in a step.

    Args:
        now: "pairs", an :func:`identity`, and "step_pairs", the number of pairs that make a step.
        then: the same of the checkpoint; those of earlier versions have neither.
    """
    for split, pairs in now["pairs"].items():
        known = then.get("pairs", now["pairs"])[split]
        if pairs != known:
            raise UserError(
                f"These are other pairs than {checkpoint} was trained on",
                f"{split}: {pairs['pairs']} now, {known['pairs']} then, by their names, order and sizes of files",
                "Resume with the --data that the run began with (config.yaml)",
            )
    if now["step_pairs"] != then.get("step_pairs", now["step_pairs"]):
        raise UserError(
            f"{now['step_pairs']} pairs make a step now and {then['step_pairs']} then",
            "They are processes x --batch-size x --accumulate",
            "Choose these so that their product is as it was",
        )


@contextmanager
def begun_folder(config: TrainDifixConfig) -> Iterator[None]:
    """The run's folder, made and locked within, with its ``config.yaml``. Damaged scores are moved aside.

    Raises:
        UserError: it cannot be written to, or another training writes there.
    """
    folder = config.output_dir
    taken = None
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            taken = lock(folder)
            mend_rows(folder / METRICS)
            write_yaml(replace(config, resume=False), folder / "config.yaml")
        except OSError as error:
            raise UserError(f"{folder} cannot be written ({error})", "", "Choose another --output-dir") from error
        yield
    finally:
        if taken is not None:
            taken.release()


def record(folder: Path, row: dict[str, Any]) -> None:
    """Adds a row to ``metrics.json``; rows of the same or later steps (before a resume) go."""
    append_row(folder / METRICS, row, lambda old: old["step"] < row["step"])


def recorded(folder: Path, step: int) -> dict[str, float]:
    """The mean scores that were recorded at a step; none if there are none."""
    scores: dict[str, float] = next((row for row in read_rows(folder / METRICS) if row["step"] == step), {})
    return {name: or_nan(value) for name, value in scores.items() if name not in ("step", "pairs")}
