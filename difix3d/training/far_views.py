"""What a training does for views far off its photos, decided by the cameras alone: a backdrop, and dropout."""

import math
from dataclasses import replace

from difix3d.scene import times_apart
from difix3d.training.config import TrainConfig
from difix3d.training.dropout import RATE
from difix3d.types import Cameras, Scene

FAR = 2.0
"""How far off they have to be (:func:`difix3d.scene.times_apart`). Held-out views between the photos have 0.6 to 1.2,
those off them 2.5 to 6.0 (docs/method.md)."""
BACKDROP = 2000
"""Gaussians that a backdrop begins with."""


def settle_far_views(config: TrainConfig, scene: Scene, targets: Cameras | None) -> tuple[TrainConfig, str]:
    """The same configuration with backdrop and dropout decided where they were left open, and a line that says so if
    there is one now (else empty).

    Views between the photos lose by dropout, which blurs, and have no use for a backdrop; those far off gain by both.
    Where it was not measured there is neither: without targets, for what a splat file gave, and beside MCMC's own
    noise. Photos with alpha say themselves what is behind them.

    Args:
        targets: where novel cameras go, or held-out ones stand; ``None`` if that is not known.
    """
    init, dropout, chosen = config.init, config.dropout, []
    measured = init.ply is None and config.densify.kind == "default"
    left_open = init.backdrop is None or dropout is None
    times = math.nan if targets is None or not (measured and left_open) else times_apart(scene, targets)
    if init.backdrop is None:
        backdrop = BACKDROP if times >= FAR and not scene.alpha else 0
        init = replace(init, backdrop=backdrop)
        chosen += [f"--init.backdrop {backdrop}"] * (backdrop > 0)
    if dropout is None:
        dropout = RATE if times >= FAR else 0.0
        chosen += [f"--dropout {dropout:g}"] * (dropout > 0)
    line = (
        f"the views asked for are {times:.1f} times as far from the photos as these are from each other: "
        f"trained with {' and '.join(chosen)} (0 turns it off)"
    )
    return replace(config, init=init, dropout=dropout), line if chosen else ""
