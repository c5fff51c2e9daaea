import numpy as np
import pytest
import scipy.stats

from difix3d.metrics import confidence_interval


def test_the_interval_equals_scipys():
    values = np.random.default_rng(3).gamma(2, size=25)
    expected = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    low, high = confidence_interval(values)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval), abs=0.02)
    narrow = confidence_interval(values, level=0.5)
    assert low < narrow[0] < values.mean() < narrow[1] < high


def test_the_interval_of_many_values_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(10, 2, size=400)
    half = 1.96 * values.std() / 20
    assert confidence_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_the_same_seed_gives_the_same_interval():
    values = [1.0, 2.0, 5.0, 7.0]
    assert confidence_interval(values) == confidence_interval(np.array(values))
    assert confidence_interval(values, seed=1) != confidence_interval(np.arange(20.0), seed=2)


def test_one_value_has_no_width():
    assert confidence_interval([0.3]) == pytest.approx((0.3, 0.3))


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_no_interval_without_finite_values(values):
    with pytest.raises(ValueError, match="there is no interval"):
        confidence_interval(values)
