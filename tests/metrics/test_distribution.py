"""FID and KID against scipy's matrix root, torchmetrics, loops, and closed forms."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from difix3d.metrics import SetDistance, fid, kid


def features(count, width, seed=0, shift=0.0):
    """Correlated, skewed and positive, as Inception's are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width)) / width**0.5
    return torch.from_numpy(np.maximum(rng.normal(size=(count, width)) @ mixing + shift, 0)).float()


def with_moments(count, mean, factor, seed=0):
    """Samples whose mean and covariance (factor.T @ factor) are exactly these."""
    x = np.random.default_rng(seed).normal(size=(count, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False)).T)
    return torch.from_numpy(x @ factor + mean)


def sqrtm_fid(a, b):
    """The textbook formula, as pytorch-fid evaluates it."""
    a, b = a.double().numpy(), b.double().numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root.real)


@pytest.mark.parametrize(("count_a", "count_b"), [(300, 300), (300, 170), (64, 65)])
def test_fid_equals_the_formula_with_a_matrix_root(count_a, count_b):
    a, b = features(count_a, 40, 1), features(count_b, 40, 2, shift=0.1)
    assert fid(a, b).value == pytest.approx(sqrtm_fid(a, b), rel=1e-8)


def test_fid_equals_torchmetrics():
    a, b = features(300, 40, 1).double(), features(200, 40, 2, shift=0.1).double()
    expected = _compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov())
    assert fid(a, b).value == pytest.approx(float(expected), rel=1e-8)


@pytest.mark.parametrize(("count_a", "count_b"), [(20, 20), (20, 90), (2, 3)])
def test_fid_of_fewer_pictures_than_features(count_a, count_b):
    """The covariances are singular there; a tiny multiple of the identity makes the textbook formula work."""
    a, b = features(count_a, 60, 1), features(count_b, 60, 2, shift=0.2)
    x, y = a.double(), b.double()
    eye = 1e-12 * torch.eye(60, dtype=torch.float64)
    expected = _compute_fid(x.mean(0), x.T.cov() + eye, y.mean(0), y.T.cov() + eye)
    assert fid(a, b).value == pytest.approx(float(expected), rel=1e-4)


def test_fid_of_gaussians_with_known_moments():
    mean_a, mean_b = np.array([1.0, 2, 3]), np.array([1.0, 0, 3.5])
    # covariances that commute: the distance is that of the means and of the standard deviations along common axes
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    a = with_moments(50, mean_a, np.diag([1.0, 2, 3]) @ axes)
    b = with_moments(80, mean_b, np.diag([2.0, 2, 0.5]) @ axes, seed=1)
    assert fid(a, b).value == pytest.approx(4 + 0.25 + 1 + 0 + 6.25, abs=1e-9)


def test_fid_is_symmetric_and_zero_for_the_same_pictures():
    a, b = features(80, 30, 1), features(50, 30, 2)
    assert fid(a, b).value == pytest.approx(fid(b, a).value, rel=1e-9)
    assert fid(a, a).value == pytest.approx(0, abs=1e-10)
    few = features(10, 200, 3)
    assert fid(few, few).value == pytest.approx(0, abs=1e-10)


def test_kid_equals_loops_over_pairs():
    a, b = features(12, 16, 1), features(9, 16, 2, shift=0.3)

    def kernel(x, y):
        return (float(x.double() @ y.double()) / 16 + 1) ** 3

    def within(x):
        pairs = [kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]
        return sum(pairs) / len(pairs)

    across = [kernel(x, y) for x in a for y in b]
    assert kid(a, b).value == pytest.approx(within(a) + within(b) - 2 * sum(across) / len(across), rel=1e-9)


def test_kid_equals_torchmetrics():
    a, b = features(60, 40, 1).double(), features(60, 40, 2, shift=0.1).double()
    assert kid(a, b).value == pytest.approx(float(poly_mmd(a, b)), rel=1e-9)


def test_kid_is_unbiased_where_fid_is_not():
    """Two sets of the same distribution: the mean KID is zero even for few pictures, the FID far from it."""
    pairs = [(features(20, 10, 2 * seed), features(20, 10, 2 * seed + 1)) for seed in range(200)]
    values = np.array([kid(a, b).value for a, b in pairs])
    assert abs(values.mean()) < 3 * values.std() / 200**0.5
    assert np.mean([fid(a, b).value for a, b in pairs]) > 0.2


def test_kid_of_many_pictures_tells_its_spread(monkeypatch):
    monkeypatch.setattr("difix3d.metrics.distribution.SUBSETS", 20)
    a, b = features(1500, 12, 1), features(1200, 12, 2, shift=0.1)
    first, again, other = kid(a, b), kid(a, b), kid(a, b, seed=1)
    assert kid(a[:1000], b).std is None
    assert first == again
    assert first.value == other.value
    assert 0 < first.std < first.value
    assert first.std != other.std


def test_few_pictures_are_pointed_out():
    assert SetDistance("FID", 1.0, 500).warning is None
    assert "FID of 12 pictures" in fid(features(12, 8, 1), features(90, 8, 2)).warning
    for distance in (fid, kid):
        with pytest.raises(ValueError, match="1 pictures"):
            distance(features(1, 8), features(5, 8))
