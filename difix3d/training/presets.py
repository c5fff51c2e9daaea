"""Where configurations start, and what they leave to the device and the fixer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from difix3d.devices import choose_device
from difix3d.difix.load import resolve_fixer
from difix3d.errors import UserError
from difix3d.training.config import TrainConfig
from difix3d.training.configfile import merge

PRESETS: dict[str, dict[str, Any]] = {
    "standard": {},
    "quick": {"max_steps": 7_000, "eval_steps": [2_000], "resolution": 640, "densify": {"cap_max": 100_000}},
    "mcmc": {
        "densify": {"kind": "mcmc", "stop": 0.83},
        "init": {"opacity": 0.5, "scale": 0.1},
        "loss": {"opacity": 0.01, "scale": 0.01},
    },
}
"""Named differences from the defaults. `standard` is the schedule of 3DGS; `quick` is for two CPU cores."""
NOVEL_PROB = 0.3
"""Of the steps that take a novel view, as in the paper."""
NOVEL_PROBS = {"mini": 0.15}
"""The same where that suits a fixer better: the small weights have less to teach than a photo (docs/method.md)."""


def from_preset(name: str, device: str = "auto") -> TrainConfig:
    """The defaults with the differences of a preset.

    Args:
        name: a preset, or `auto`: `standard` on a GPU and `quick` without one.
        device: of the configuration; `auto` has to be known here.

    Raises:
        UserError: there is no such preset, or no such device.
    """
    place = choose_device(device)
    if name == "auto":
        name = "standard" if place.type == "cuda" else "quick"
    if name not in PRESETS:
        raise UserError(f"There is no preset {name!r}", cure=f"Choose from auto, {', '.join(PRESETS)}")
    return merge(TrainConfig(), PRESETS[name], source=f"preset {name}")


def settle(config: TrainConfig, device: torch.device) -> TrainConfig:
    """The same configuration with what it leaves to the device, the fixer and the splat file decided; what is set
    already stays.

    Raises:
        UserError: there is nothing to do, or to compare.
    """
    if config.max_steps == 0 and config.init.ply is None:
        raise UserError(
            "--max-steps is 0 and no splat is given",
            "Without a step there would be nothing to evaluate but points",
            "Give a splat file by --init.ply FILE, or train for some steps",
        )
    if config.max_steps == 0 and config.compare:
        raise UserError(
            "--compare needs a training, and --max-steps is 0", "It trains plain 3DGS beside it", "Add --no-compare"
        )
    fixer = resolve_fixer(config.fixer, device)
    distill = config.distill
    densify = config.densify
    init = config.init
    if distill.novel_prob is None:
        distill = replace(distill, novel_prob=NOVEL_PROBS.get(fixer, NOVEL_PROB))
    if init.ply is not None:  # what is trained already needs no start of its own, and loses by one
        init = replace(init, ply=init.ply.absolute())
        distill = distill if distill.start is not None else replace(distill, start=0)
        densify = densify if densify.reset_every is not None else replace(densify, reset_every=0)
    return replace(config, fixer=fixer, distill=distill, densify=densify, init=init)


def find_config(scene: str) -> Path | None:
    """``configs/SCENE.yaml`` in the current folder, or among those that come with the program."""
    package = Path(__file__).parents[1]
    for folder in (Path("configs"), package / "configs", package.parent / "configs"):
        path = folder / f"{scene}.yaml"
        if "/" not in scene and path.is_file():
            return path
    return None
