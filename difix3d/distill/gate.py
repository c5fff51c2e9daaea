"""The do-no-harm gate: novel views enter the training only if photos left out of them do not get worse.

A trial trains twice from the same state for a few steps, on the same photos at the same steps and without the ones left
out: once with novel views in between, once with nothing in their place. What differs on the photos left out is the
novel views' doing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from difix3d.distill.config import DistillConfig
from difix3d.distill.pseudo import PseudoViews

LOWER = 0.25
"""Factor of the weight at which novel views that did harm get a second trial."""

Probe = Callable[[PseudoViews | None], list[float]]
"""Trains a little with these novel views (``None``: with none), restores everything, and returns the PSNR in dB of each
photo left out."""


@dataclass(frozen=True)
class Verdict:
    """What became of a round.

    Attributes:
        decision: ``keep``; ``lower``: kept with a quarter of the weight; ``roll back``: the trials did harm, and none
            of it is used; ``refuse``: no pixel is usable (photos contradict all views, or nothing is covered), so
            that there was no trial; ``unchecked``: kept without one, as the gate is off or there is no photo to spare.
        without: PSNR of the photos left out after training without the novel views.
        trials: (weight, PSNR of the photos left out) of each trial with them.
    """

    decision: Literal["keep", "lower", "roll back", "refuse", "unchecked"]
    without: list[float]
    trials: list[tuple[float, list[float]]]

    @property
    def gain(self) -> float | None:
        """Mean gain in dB of the last trial."""
        return mean_gain(self.trials[-1][1], self.without) if self.trials else None


def judge(pseudo: PseudoViews, probe: Probe | None, config: DistillConfig) -> tuple[PseudoViews | None, Verdict]:
    """Tries the views of a round, at their weight and, if that does harm, at a quarter of it.

    Args:
        pseudo: the round's views.
        probe: runs a trial; ``None`` if there is nothing to try them on.
        config: the tolerance.

    Returns:
        What to train on, and why.
    """
    if not pseudo.usable:
        return None, Verdict("refuse", [], [])
    if probe is None:
        return pseudo, Verdict("unchecked", [], [])
    without = probe(None)
    trials = []
    for decision, factor in (("keep", 1.0), ("lower", LOWER)):
        candidate = replace(pseudo, weight=factor * pseudo.weight)
        trials.append((candidate.weight, probe(candidate)))
        if mean_gain(trials[-1][1], without) >= -config.tolerance:
            return candidate, Verdict(decision, without, trials)  # type: ignore[arg-type]
    return None, Verdict("roll back", without, trials)


def mean_gain(values: list[float], without: list[float]) -> float:
    """Mean of the differences, in dB."""
    return sum(a - b for a, b in zip(values, without, strict=True)) / len(values)
