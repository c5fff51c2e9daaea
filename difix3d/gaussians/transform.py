"""Taking a model to another world: back to the user's own, for files that other programs open."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from difix3d.geometry.sh import sh_basis
from difix3d.types import Gaussians


def transform(
    gaussians: Gaussians, similarity: Float[np.ndarray, "4 4"], *, dtype: torch.dtype = torch.float32
) -> Gaussians:
    """The model moved, turned and scaled; it looks the same from cameras that are taken along.

    Args:
        gaussians: the model.
        similarity: rotation times a positive scale, and translation.
        dtype: of the new means, which are computed in float64: worlds far from the origin need that for them.
    """
    scale = float(np.cbrt(np.linalg.det(similarity[:3, :3])))
    rotation = similarity[:3, :3] / scale
    device = gaussians.device
    turn = torch.from_numpy(np.roll(Rotation.from_matrix(rotation).as_quat(), 1)).float().to(device)  # xyzw to wxyz
    matrix, shift = (torch.from_numpy(part).double().to(device) for part in (similarity[:3, :3], similarity[:3, 3]))
    mixing = sh_rotation(rotation, gaussians.sh_degree).to(device)
    return Gaussians(
        means=(gaussians.means.double() @ matrix.T + shift).to(dtype),
        quats=multiply(turn, gaussians.quats),
        scales=gaussians.scales + float(np.log(scale)),
        opacities=gaussians.opacities,
        sh0=gaussians.sh0,
        shN=torch.einsum("ij,njc->nic", mixing, gaussians.shN),
    )


def multiply(a: Float[Tensor, "4"], b: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
    """Hamilton product of quaternions (wxyz): the rotation b, then a."""
    w, x, y, z = a.tolist()
    left = torch.tensor([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]], dtype=b.dtype, device=b.device)
    return b @ left.T


def sh_rotation(rotation: Float[np.ndarray, "3 3"], degree: int) -> Float[Tensor, "R R"]:
    """The matrix that turns coefficients of degrees 1..degree: Y(d) c' = Y(R^T d) c for every direction d.

    Solved from more directions than there are coefficients; the harmonics span all rotations of themselves, so that the
    solution is exact.
    """
    directions = torch.nn.functional.normalize(
        torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    here = sh_basis(directions, degree)[:, 1:]
    there = sh_basis(directions @ torch.from_numpy(rotation).double(), degree)[:, 1:]
    return (torch.linalg.pinv(here) @ there).float()
