"""What ends a run early: a loss that is NaN or infinite, and photos that show nothing of the model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from difix3d.errors import UserError
from difix3d.ranks import ALONE, Ranks
from difix3d.training.config import TrainConfig
from difix3d.types import Gaussians, RenderFn, View

EXPLODED = 100.0
"""A loss above this is not an image difference any more: that of black and white is 1."""
PERIOD = 20
"""Steps between two looks at the losses."""
SIGHT_STEPS, SIGHT_PHOTOS = (0, 200), 32
"""Steps before which photos are looked at, and how many at most."""
FAINT = 1 / 255
"""Coverage below which nothing is to be seen."""


def check_ranks(config: TrainConfig, ranks: Ranks) -> None:
    """Refuses what several processes cannot do together.

    Raises:
        UserError: it is asked for.
    """
    asked = {
        "--packed": config.packed,  # gsplat 1.5 does not send what it is in then, its absolute gradients neither
        "--densify.absgrad": config.densify.absgrad,
        "--memory-budget": config.memory_budget is not None,
    }
    for option, value in asked.items():
        if value and ranks.count > 1:
            raise UserError(f"{option} is for one process, and there are {ranks.count}", cure="Leave it out")


class BadModel(UserError):
    """A model that is not worth to be kept."""


class LossGuard:
    """Finds the first step whose loss is NaN, infinite, or far too large.

    On a GPU each look waits for the device, so that it looks only every :data:`PERIOD` steps, and before each save.
    """

    def __init__(self, run: Path):
        self._run = run
        self._recent: list[tuple[int, str, Tensor]] = []

    def watch(self, step: int, views: list[View], losses: dict[str, Tensor]) -> None:
        """Remembers a step; raises as :meth:`check` does when it is time to look."""
        names = ", ".join(view.name for view in views)
        self._recent.append((step, names, torch.stack(list(losses.values())).sum()))
        if len(self._recent) >= PERIOD:
            self.check()

    def check(self, model: Gaussians | None = None) -> None:
        """Looks at all remembered steps, and at the model that they have led to.

        Raises:
            BadModel: with the step and the views of the first bad loss, or as values are NaN or infinite.
        """
        self._find_bad_loss()
        if model is not None and not all(bool(value.isfinite().all()) for value in model.as_dict().values()):
            raise BadModel(
                "The model became NaN or infinite",
                f"The last good checkpoint in {self._run} was kept",
                "Lower the learning rates (--optim.*) and go on with --resume",
            )

    def _find_bad_loss(self) -> None:
        if not self._recent:
            return
        values = torch.stack([loss for _, _, loss in self._recent]).tolist()
        for (step, names, _), value in zip(self._recent, values, strict=True):
            if not abs(value) < EXPLODED:
                raise BadModel(
                    f"The loss became {value:.3g} at step {step}, on {names}",
                    f"The last good checkpoint in {self._run} was kept",
                    "Look at that photo and its pose; or lower the learning rates (--optim.*) and go on with --resume",
                )
        self._recent.clear()


@torch.no_grad()
def check_sight(train: np.ndarray, photo: Callable[[int], View], render: RenderFn, step: int) -> None:
    """Looks through training photos until one shows something of the model, and one has pixels that count.

    Raises:
        BadModel: none does: training would go on to its end with nothing learnt.
    """
    count = 0
    seen = used = False
    for index in train[:: max(1, len(train) // SIGHT_PHOTOS)][:SIGHT_PHOTOS].tolist():
        view = photo(index)
        count += 1
        used = used or view.mask is None or bool(view.mask.any())
        seen = seen or bool(render(view.camera).alpha.max() > FAINT)
        if seen and used:
            return
    if not used:
        raise BadModel(
            f"The masks of {count} training photos that were looked at leave no pixel",
            "Black does not count, white does",
            "Look at the masks: they may be inverted, or move them away",
        )
    raise BadModel(
        f"Before step {step} none of {count} training photos that were looked at shows a Gaussian",
        "They stand behind the cameras or elsewhere, or are too transparent to be drawn (--init.opacity)",
        "Check that poses and points are of one model, and the poses' axes",
    )


def out_of_memory(step: int, count: int, ranks: Ranks = ALONE, *, packed: bool = False) -> UserError:
    """What to say where the GPU had no room for a step, a round or an evaluation with so many Gaussians of this
    process, ``packed`` already or not."""
    less = "start more processes, " if ranks.count > 1 else "" if packed else "add --packed, "
    return UserError(
        f"The GPU ran out of memory at step {step} with {count:,} Gaussians",
        cure=f"Lower --densify.cap-max, --resolution or --batch-size, {less}or where it fixed or evaluated, "
        "--fixer mini or --fixer none; then go on with --resume",
    )
