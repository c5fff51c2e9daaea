"""Real spherical harmonics in the order and with the signs of the 3DGS file format."""

import torch
from jaxtyping import Float
from torch import Tensor

SH_C0 = 0.28209479177387814
"""The constant harmonic: rgb = 0.5 + SH_C0 * sh0."""


def sh_basis(directions: Float[Tensor, "*batch 3"], degree: int) -> Float[Tensor, "*batch K"]:
    """Values of the (degree + 1)^2 harmonics of degrees 0..3 at unit directions."""
    x, y, z = directions.unbind(-1)
    xx = x * x
    yy = y * y
    zz = z * z
    values = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        values += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        values += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if degree >= 3:
        values += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(values, -1)
