"""The rasteriser for CUDA: gsplat's, 1.4 and 1.5, with its results under the names and shapes used here."""

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.ranks import ALONE, Ranks
from difix3d.render.backend import require_kernels
from difix3d.types import Cameras, Gaussians, Render


def rasterize(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    sh_degree: int,
    background: Float[Tensor, "3"],
    antialiased: bool = False,
    depth: bool = True,
    absgrad: bool = False,
    packed: bool = False,
    near: float = 0.01,
    far: float = 1e10,
    ranks: Ranks = ALONE,
) -> Render:
    """See :func:`difix3d.render.rasterize`. The first call may compile gsplat's kernels (minutes)."""
    require_kernels(gaussians.device)
    from gsplat import rasterization  # here, as importing it looks for CUDA

    width, height = cameras.size
    image, alpha, info = rasterization(
        means=gaussians.means,
        quats=gaussians.quats,
        scales=gaussians.scales.exp(),
        opacities=gaussians.opacities.sigmoid(),
        colors=torch.cat([gaussians.sh0, gaussians.shN], 1),
        viewmats=cameras.w2c,
        Ks=cameras.K,
        width=width,
        height=height,
        near_plane=near,
        far_plane=far,
        sh_degree=sh_degree,
        packed=packed,
        render_mode="RGB+ED" if depth else "RGB",
        absgrad=absgrad,
        rasterize_mode="antialiased" if antialiased else "classic",
        distributed=ranks.count > 1,
    )
    # behind it ourselves: gsplat 1.5 refuses backgrounds of packed Gaussians (its issues 764 and 826)
    rgb = image[..., :3] + (1 - alpha) * background.to(image)
    if info["radii"].dim() == info["means2d"].dim() - 1:  # gsplat 1.4 has one radius for both axes
        info["radii"] = info["radii"][..., None].expand(*info["radii"].shape, 2)
    info.setdefault("gaussian_ids", None)
    info.update(width=width, height=height, n_cameras=ranks.count * len(cameras))
    if info["means2d"].requires_grad:
        info["means2d"].retain_grad()
    return Render(rgb, alpha, image[..., 3:] if depth else None, info)
