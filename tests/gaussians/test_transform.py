import numpy as np
import torch
from scipy.spatial.transform import Rotation
from test_ply import random_gaussians

from difix3d.gaussians.transform import sh_rotation, transform
from difix3d.geometry.sh import sh_basis


def similarity(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = 2.5 * Rotation.random(random_state=rng).as_matrix()
    matrix[:3, 3] = rng.normal(size=3)
    return matrix


def covariances(gaussians):
    rotation = torch.from_numpy(Rotation.from_quat(np.roll(gaussians.quats.numpy(), -1, axis=1)).as_matrix())
    return rotation @ torch.diag_embed(torch.exp(2 * gaussians.scales.double())) @ rotation.transpose(1, 2)


def test_means_and_covariances_follow_the_similarity():
    gaussians, matrix = random_gaussians(), similarity()
    moved = transform(gaussians, matrix)
    linear, shift = torch.from_numpy(matrix[:3, :3]), torch.from_numpy(matrix[:3, 3])
    torch.testing.assert_close(moved.means.double(), gaussians.means.double() @ linear.T + shift, rtol=1e-5, atol=1e-5)
    expected = linear @ covariances(gaussians) @ linear.T
    torch.testing.assert_close(covariances(moved), expected, rtol=1e-4, atol=1e-4)


def test_colours_turn_along():
    """The moved model has in the turned direction the colour that the model had in the original one."""
    gaussians, matrix = random_gaussians(), similarity()
    moved = transform(gaussians, matrix)
    rotation = torch.from_numpy(matrix[:3, :3] / 2.5).float()
    directions = torch.nn.functional.normalize(torch.randn(20, 3), dim=-1)
    before = torch.cat([gaussians.sh0, gaussians.shN], 1).mul(sh_basis(directions, 3)[..., None]).sum(1)
    after = torch.cat([moved.sh0, moved.shN], 1).mul(sh_basis(directions @ rotation.T, 3)[..., None]).sum(1)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_there_and_back():
    gaussians, matrix = random_gaussians(), similarity()
    back = transform(transform(gaussians, matrix), np.linalg.inv(matrix))
    torch.testing.assert_close(back.means, gaussians.means, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(back.shN, gaussians.shN, rtol=1e-4, atol=1e-4)


def test_no_rotation_is_the_identity():
    torch.testing.assert_close(sh_rotation(np.eye(3), 3), torch.eye(15))
