"""Where configurations start: the defaults, with what a preset and a fixer change of them."""

from typing import Any

from difix3d.devices import choose_device
from difix3d.difix.load import resolve_fixer
from difix3d.errors import UserError
from difix3d.training.config import TrainConfig
from difix3d.training.configfile import merge

PRESETS: dict[str, dict[str, Any]] = {
    "standard": {},
    "quick": {"max_steps": 7_000, "eval_steps": [2_000], "resolution": 640, "densify": {"cap": 100_000}},
    "mcmc": {
        "densify": {"kind": "mcmc", "stop": 0.83},
        "init": {"opacity": 0.5, "scale": 0.1},
        "loss": {"opacity": 0.01, "scale": 0.01},
    },
}
"""Named differences from the defaults. `standard` is the schedule of 3DGS; `quick` is for two CPU cores."""
FIXERS: dict[str, dict[str, Any]] = {"mini": {"distill": {"share": 0.15}}}
"""What suits a fixer. The small weights have less to teach than a step on a photo (docs/method.md)."""


def from_preset(name: str, device: str = "auto", fixer: str = "none") -> TrainConfig:
    """The defaults with the differences of a preset, then those of a fixer.

    Args:
        name: a preset, or `auto`: `standard` on a GPU and `quick` without one.
        device, fixer: of the configuration; `auto` has to be known here.

    Raises:
        UserError: there is no such preset, or no such device.
    """
    place = choose_device(device)
    if name == "auto":
        name = "standard" if place.type == "cuda" else "quick"
    if name not in PRESETS:
        raise UserError(f"There is no preset {name!r}", cure=f"Choose from auto, {', '.join(PRESETS)}")
    config = merge(TrainConfig(), PRESETS[name], source=f"preset {name}")
    fixer = resolve_fixer(fixer, place)
    return merge(config, FIXERS.get(fixer, {}), source=f"fixer {fixer}")
