"""The model as viser's splats, which the browser renders by itself."""

from typing import Any

import numpy as np
import torch
import viser
from jaxtyping import Float

from difix3d.geometry.sh import sh_basis
from difix3d.types import Gaussians

C0 = float(sh_basis(torch.zeros(1, 3), 0)[0, 0])
"""Constant basis function of the colours."""


@torch.no_grad()
def splat_arrays(gaussians: Gaussians) -> dict[str, Float[np.ndarray, "N ..."]]:
    """Centers, covariances, colours (of degree 0: the browser's splats look the same from all sides) and opacities."""
    w, x, y, z = torch.nn.functional.normalize(gaussians.quats, dim=1).unbind(1)
    rotation = torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ],
        1,
    ).reshape(-1, 3, 3)  # fmt: skip
    axes = rotation * gaussians.scales.exp()[:, None, :]
    arrays = {
        "centers": gaussians.means,
        "covariances": axes @ axes.mT,
        "rgbs": (0.5 + C0 * gaussians.sh0[:, 0]).clamp(0, 1),
        "opacities": gaussians.opacities.sigmoid()[:, None],
    }
    return {name: value.cpu().numpy() for name, value in arrays.items()}


class Splats:
    """One client's splats; they are sent when they are asked for, and again when the model has changed."""

    def __init__(self, client: viser.ClientHandle):
        self._client = client
        self._node: viser.GaussianSplatHandle | None = None
        self._sent: Gaussians | None = None

    def show(self, gaussians: Gaussians) -> None:
        if gaussians is not self._sent:
            arrays: dict[str, Any] = splat_arrays(gaussians)
            if self._node is None:
                self._node = self._client.scene.add_gaussian_splats("/splats", **arrays)
            else:
                self._node.set_gaussians(**arrays)
            self._sent = gaussians
        assert self._node is not None
        self._node.visible = True

    def hide(self) -> None:
        if self._node is not None:
            self._node.visible = False
