"""Distances between sets of pictures, by the features of :func:`difix3d.features.inception_features`.

Computed in float64. What they mean depends on how many pictures there are: the FID of a few is far too large, which
the KID, being unbiased, is not.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

FEW = 500
"""Pictures under which a FID is hardly comparable."""

SUBSET, SUBSETS = 1000, 100
"""Pictures in each, and number of the random subsets that tell the spread of a KID (Binkowski et al. 2018)."""


@dataclass(frozen=True)
class SetDistance:
    """A distance between two sets of pictures.

    Attributes:
        name: "FID" or "KID".
        value: 0 for equal distributions; a KID, unbiased, may come out below. Not multiplied by 1000 or the like.
        count: pictures in the smaller set.
        std: spread over subsets of 1000, if there are more pictures than that.
    """

    name: str
    value: float
    count: int
    std: float | None = None

    @property
    def warning(self) -> str | None:
        """A sentence to print under the number if it comes from too few pictures."""
        if self.count >= FEW:
            return None
        return f"{self.name} of {self.count} pictures: under {FEW} it only compares sets of the same size"


def fid(a: Float[Tensor, "Na D"], b: Float[Tensor, "Nb D"]) -> SetDistance:
    """Frechet distance of two Gaussians fitted to the features (Heusel et al. 2017).

    The trace of the square root of the product of both covariances is the nuclear norm of the product of their factors
    (the centred features, or the triangle of their QR decomposition where there are more pictures than features). No
    matrix is inverted and no root of a singular one taken, so that fewer pictures than features do no harm.

    Raises:
        ValueError: fewer than two pictures.
    """
    (mean_a, factor_a), (mean_b, factor_b) = _gaussian(a), _gaussian(b)
    cross = torch.linalg.svdvals(factor_a @ factor_b.T).sum()
    traces = factor_a.square().sum() + factor_b.square().sum()
    value = (mean_a - mean_b).square().sum() + traces - 2 * cross
    return SetDistance("FID", float(value), min(len(a), len(b)))


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and a factor [min(N, D), D] of the covariance: factor.T @ factor, with N - 1 in the denominator."""
    if len(features) < 2:
        raise ValueError(f"{len(features)} pictures: a distribution needs at least two")
    x = features.double()
    centred = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    return x.mean(0), torch.linalg.qr(centred, mode="r").R if len(x) > x.shape[1] else centred


def kid(a: Float[Tensor, "Na D"], b: Float[Tensor, "Nb D"], seed: int = 0) -> SetDistance:
    """Squared maximum mean discrepancy with the kernel (x.y / D + 1)^3 (Binkowski et al. 2018), unbiased.

    The value is the U-statistic of all pictures, where the usual implementations take the mean of random subsets; the
    spread over such subsets is given beside it if there are more than 1000 pictures.

    Args:
        seed: of the subsets.

    Raises:
        ValueError: fewer than two pictures.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"{min(len(a), len(b))} pictures: a distribution needs at least two")
    a, b = (x.double() / x.shape[1] ** 0.5 for x in (a, b))
    std = None
    if min(len(a), len(b)) > SUBSET:
        generator = torch.Generator().manual_seed(seed)
        picks = ([torch.randperm(len(x), generator=generator)[:SUBSET] for x in (a, b)] for _ in range(SUBSETS))
        std = float(torch.tensor([_mmd2(a[i], b[j]) for i, j in picks]).std(correction=0))
    return SetDistance("KID", _mmd2(a, b), min(len(a), len(b)), std)


def _mmd2(a: Tensor, b: Tensor) -> float:
    """Mean kernel of two different pictures of the same set, both sets added, less twice that across the sets."""
    same = [(_kernel_sum(x, x) - _kernel(x.square().sum(1)).sum()) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return float(same[0] + same[1] - 2 * _kernel_sum(a, b) / (len(a) * len(b)))


def _kernel_sum(a: Tensor, b: Tensor) -> Tensor:
    """Over all pairs, a block of rows at a time."""
    return torch.stack([_kernel(rows @ b.T).sum() for rows in a.split(1024)]).sum()


def _kernel(dot: Tensor) -> Tensor:
    return (dot + 1) ** 3
