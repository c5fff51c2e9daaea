"""How far a mean can be believed."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000


def confidence_interval(
    values: Sequence[float] | np.ndarray, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap of the mean (Efron 1979): where ``level`` of the means of 10,000 resamples lie.

    With few values it is too narrow: with five, a nominal 95 % holds the true mean in about 80 % of cases.

    Args:
        values: one for each image, scene or seed.
        seed: of the resampling.
        level: 0..1.

    Returns:
        Lower and upper bound; both the value itself if there is only one.

    Raises:
        ValueError: no values, or not finite ones.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0 or not np.isfinite(data).all():
        raise ValueError(f"{data.size} values, {np.sum(~np.isfinite(data))} of them not finite: there is no interval")
    rng = np.random.default_rng(seed)
    # how often each value is drawn, rather than which: as large as the data for each resample, and no gather
    counts = rng.multinomial(data.size, np.full(data.size, 1 / data.size), size=RESAMPLES)
    low, high = np.quantile(counts @ data / data.size, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
