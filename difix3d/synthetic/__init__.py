"""The embedded scenes: procedural still lifes, ray-cast exactly at any camera, endless variants by their seed.

``demo`` is one of them, picked by eye. :func:`write_scene` makes an ordinary capture folder of one, with which
everything that works on photos can be tried offline; :class:`SyntheticScene` renders any number of further views of it.
"""

from difix3d.errors import UserError
from difix3d.limits import SEEDS
from difix3d.synthetic.capture import write_scene
from difix3d.synthetic.scene import SPLITS, SyntheticScene

__all__ = ["DEMO_SEED", "SPLITS", "SyntheticScene", "parse", "write_scene"]

DEMO_SEED = 24
"""The seed of the scene ``demo``."""


def parse(source: str) -> int | None:
    """The seed that ``demo`` or ``synthetic:SEED`` stands for; ``None`` for the name of any other scene.

    Raises:
        UserError: what follows ``synthetic:`` is not a seed.
    """
    if source == "demo":
        return DEMO_SEED
    kind, colon, seed = source.partition(":")
    if kind != "synthetic" or not colon:
        return None
    if not (seed.isascii() and seed.isdigit() and len(seed) < 20 and SEEDS.allow(int(seed))):
        raise UserError(
            f"The scene {source!r} has no valid seed", f"A whole number is needed, {SEEDS}", "Try synthetic:7"
        )
    return int(seed)
