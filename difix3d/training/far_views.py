"""What a training does for views far off its photos, and what between them, decided by the cameras alone."""

import math
from dataclasses import replace

from difix3d.geometry.holes import share_to_fill
from difix3d.scene import Views, times_apart
from difix3d.training.config import TrainConfig
from difix3d.training.dropout import RATE
from difix3d.types import Cameras, Scene

FAR = 2.0
"""How far off they have to be (:func:`difix3d.scene.times_apart`). Held-out views between the photos have 0.6 to 1.2,
those off them 2.5 to 6.0 (docs/method.md)."""
BACKDROP = 2000
"""Gaussians that a backdrop begins with."""
PHOTOS = 8
"""Training photos, at most, of which it is asked whether they are black."""


def settle_far_views(
    config: TrainConfig, scene: Scene, targets: Cameras | None, *, small: bool = False
) -> tuple[TrainConfig, str]:
    """The same configuration with backdrop, dropout and the mode of distillation decided where they were left open, and
    a line that says what is not as usual (else empty).

    Views between the photos lose by dropout, which blurs, and have no use for a backdrop; those far off gain by both.
    Where it was not measured there is neither: without targets, and beside MCMC's own noise. What a splat file gave
    has no dropout, and no backdrop if its photos are largely black, as it is black that it was trained before. Photos
    with alpha say themselves what is behind them. What small weights make of views between the photos is no better than
    the renders: it is not distilled, unless novel cameras are sent elsewhere, or for a splat file.

    Args:
        targets: where novel cameras go, or held-out ones stand; ``None`` if that is not known.
        small: whether the fixer is difix-mini.
    """
    init, dropout = config.init, config.dropout
    mode = config.distill.mode
    lines = []
    measured = config.densify.kind == "default" and config.max_steps > 0
    left_open = measured and (init.backdrop is None or dropout is None)
    may_rest = mode == "auto" and small and init.ply is None and config.distill.targets != "perturb"
    times = math.nan if targets is None or not (left_open or may_rest) else times_apart(scene, targets)
    far, chosen = measured and times >= FAR, []
    if init.backdrop is None:
        left_out = scene.alpha or (init.ply is not None and far and largely_black(scene))
        backdrop = BACKDROP if far and not left_out else 0
        init = replace(init, backdrop=backdrop)
        chosen += [f"--init.backdrop {backdrop}"] * (backdrop > 0)
    if dropout is None:
        dropout = RATE if far and init.ply is None else 0.0
        chosen += [f"--dropout {dropout:g}"] * (dropout > 0)
    if mode == "auto":
        mode = "off" if may_rest and times < FAR else "progressive"
    apart = f"the views asked for are {times:.1f} times as far from the photos as these are from each other:"
    if chosen:
        lines.append(f"{apart} trained with {' and '.join(chosen)} (0 turns it off)")
    if mode == "off" != config.distill.mode:
        lines.append(
            f"{apart} between them difix-mini has nothing to teach, and is for render time only (--distill.mode "
            "progressive distils all the same, --distill.targets perturb goes further off)"
        )
    config = replace(config, init=init, dropout=dropout, distill=replace(config.distill, mode=mode))
    return config, "\n".join(lines)


def largely_black(scene: Scene) -> bool:
    """Whether so much of the training photos is black that it may be what is behind the scene; some are looked at."""
    views = Views(scene)
    return bool(share_to_fill([views[index] for index in scene.some_train(PHOTOS)]) == 0)
