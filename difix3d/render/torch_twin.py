"""The rasteriser in plain torch: readable, any dtype; the oracle of the tests, and the fallback without a compiler.

Projection as in EWA splatting (Zwicker et al. 2002) and 3DGS (Kerbl et al. 2023), with the conventions of gsplat 1.5.
"""

from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from difix3d.geometry.poses import rotation_matrices
from difix3d.geometry.sh import sh_basis
from difix3d.types import Cameras, Gaussians, Render

DILATION = 0.3  # added to the projected covariance, in square pixels
MIN_ALPHA = 1 / 255
MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4
TILE = 16


def project(
    g: Gaussians, cameras: Cameras, sh_degree: int, antialiased: bool, near: float, far: float
) -> dict[str, Tensor]:
    """What each camera sees: ``means2d``, ``conics``, ``depths``, ``opacities``, ``colors``, ``radii`` [B,N,...]."""
    width, height = cameras.size
    coefficients = torch.cat([g.sh0, g.shN], 1)[:, : (sh_degree + 1) ** 2]
    parts = [g.means, g.quats, g.scales, g.opacities[:, None], coefficients.flatten(1)]
    valid = torch.cat(parts, 1).isfinite().all(1) & (g.quats.square().sum(1) > 1e-24)
    if not valid.all():  # keeps NaN out of the gradients of the others
        g = g.map(lambda x: torch.where(valid.reshape(-1, *[1] * (x.dim() - 1)), x, torch.ones_like(x)))
        coefficients = torch.cat([g.sh0, g.shN], 1)[:, : (sh_degree + 1) ** 2]

    w2c, K = cameras.w2c.to(g.means), cameras.K.to(g.means)[:, None]
    fx = K[..., 0, 0]
    fy = K[..., 1, 1]
    cx = K[..., 0, 2]
    cy = K[..., 1, 2]
    x, y, z = (torch.einsum("bij,nj->bni", w2c[:, :3, :3], g.means) + w2c[:, None, :3, 3]).unbind(-1)
    valid = valid & (z >= near) & (z <= far)
    z = torch.where(valid, z, 1)
    # Beyond 15 % of the image's size outside of it, the linearisation of the projection is held.
    u = (x / z).clamp(-cx / fx - 0.15 * width / fx, (width - cx) / fx + 0.15 * width / fx)
    v = (y / z).clamp(-cy / fy - 0.15 * height / fy, (height - cy) / fy + 0.15 * height / fy)
    zero = torch.zeros_like(z)
    J = torch.stack([fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z], -1).unflatten(-1, (2, 3))
    S = J @ w2c[:, None, :3, :3] @ (rotation_matrices(g.quats) * g.scales.exp()[:, None])  # covariance = S S^T
    c00 = (S[..., 0, :] ** 2).sum(-1)
    c01 = (S[..., 0, :] * S[..., 1, :]).sum(-1)
    c11 = (S[..., 1, :] ** 2).sum(-1)
    det_before = torch.linalg.cross(S[..., 0, :], S[..., 1, :]).square().sum(-1)
    det = det_before + DILATION * (c00 + c11) + DILATION**2
    c00, c11 = c00 + DILATION, c11 + DILATION
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    opacities = g.opacities.sigmoid() * ((det_before / det).sqrt() if antialiased else torch.ones_like(det))

    directions = F.normalize(g.means - cameras.centers.to(g.means)[:, None], dim=-1)
    colors = torch.einsum("bnk,nkc->bnc", sh_basis(directions, sh_degree), coefficients)
    with torch.no_grad():
        reach = (2 * (opacities / MIN_ALPHA).clamp(min=1).log()).sqrt().clamp(max=3.33)
        radii = (reach[..., None] * torch.stack([c00, c11], -1).sqrt()).ceil()
        size = torch.tensor([width, height]).to(means2d)
        inside = ((means2d + radii > 0) & (means2d - radii < size)).all(-1)
        finite = torch.cat([means2d, radii, colors], -1).isfinite().all(-1) & det.isfinite()
        radii = torch.where((valid & inside & finite & (opacities >= MIN_ALPHA))[..., None], radii, 0).int()
    conics = torch.stack([c11, -c01, c00], -1) / det[..., None]
    return {
        "means2d": means2d,
        "conics": conics,
        "depths": z,
        "opacities": opacities,
        "colors": (colors + 0.5).clamp(min=0),
        "radii": radii,
    }


def _add_absolute(total: Tensor, ids: Tensor, grad: Tensor) -> None:
    total.index_add_(0, ids, grad.abs().sum(0))


def composite(
    p: dict[str, Tensor], b: int, width: int, height: int, background: Tensor, absgrad: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Camera ``b``: colour and accumulated depth [H,W,4], and alpha [H,W], tile by tile, front to back."""
    radii, means2d = p["radii"][b].to(p["means2d"]), p["means2d"][b]
    visible = (radii > 0).all(-1).nonzero()[:, 0]
    order = visible[p["depths"][b, visible].argsort(stable=True)]
    features = torch.cat([p["colors"][b], p["depths"][b, :, None]], -1)
    low, high = (means2d - radii)[order].detach(), (means2d + radii)[order].detach()
    rows = []
    for y0 in range(0, height, TILE):
        row = []
        for x0 in range(0, width, TILE):
            y1, x1 = min(y0 + TILE, height), min(x0 + TILE, width)
            ids = order[(high[:, 0] > x0) & (low[:, 0] < x1) & (high[:, 1] > y0) & (low[:, 1] < y1)]
            ys, xs = torch.meshgrid(torch.arange(y0, y1), torch.arange(x0, x1), indexing="ij")
            pixels = torch.stack([xs, ys], -1).reshape(-1, 1, 2).to(means2d) + 0.5
            delta = pixels - means2d[ids].expand(len(pixels), -1, 2)
            if absgrad is not None and delta.requires_grad:
                delta.register_hook(partial(_add_absolute, absgrad[b], ids))
            A, B, C = p["conics"][b, ids].unbind(-1)
            dx, dy = delta.unbind(-1)
            alpha = p["opacities"][b, ids] * (-0.5 * (A * dx * dx + C * dy * dy) - B * dx * dy).exp()
            alpha = torch.where(alpha >= MIN_ALPHA, alpha, 0).clamp(max=MAX_ALPHA)
            alpha = alpha * ((1 - alpha.detach()).cumprod(1) > MIN_TRANSMITTANCE)
            after = (1 - alpha).cumprod(1)
            before = torch.cat([after.new_ones(len(pixels), 1), after], 1)
            image = (alpha * before[:, :-1]) @ features[ids]
            image = torch.cat([image[:, :3] + before[:, -1:] * background, image[:, 3:], 1 - before[:, -1:]], 1)
            row.append(image.reshape(y1 - y0, x1 - x0, 5))
        rows.append(torch.cat(row, 1))
    image = torch.cat(rows, 0)
    return image[..., :4], image[..., 4]


def rasterize(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    sh_degree: int,
    background: Float[Tensor, "3"],
    antialiased: bool = False,
    depth: bool = True,
    absgrad: bool = False,
    packed: bool = False,  # noqa: ARG001 - the same signature for all
    near: float = 0.01,
    far: float = 1e10,
) -> Render:
    """See :func:`difix3d.render.rasterize`. Slow: for tests, and for machines without a compiler."""
    width, height = cameras.size
    p = project(gaussians, cameras, sh_degree, antialiased, near, far)
    means2d = p["means2d"]
    if means2d.requires_grad:
        means2d.retain_grad()
    sums = torch.zeros_like(means2d) if absgrad else None
    if absgrad:
        means2d.absgrad = sums  # type: ignore[attr-defined]
    images = [composite(p, b, width, height, background.to(means2d), sums) for b in range(len(cameras))]
    image, alpha = torch.stack([i for i, _ in images]), torch.stack([a for _, a in images])[..., None]
    expected = image[..., 3:] / alpha.clamp(min=1e-10) if depth else None
    info = {**p, "width": width, "height": height, "n_cameras": len(cameras), "gaussian_ids": None}
    return Render(image[..., :3], alpha, expected, info)
