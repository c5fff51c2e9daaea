"""Rasterisers: Gaussians and cameras in, images out. One function, which chooses by the device of the Gaussians."""

from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.geometry.warp import COVERED
from difix3d.ranks import ALONE, Ranks
from difix3d.types import Cameras, Gaussians, Render

MAX_SH_DEGREE = 3


def rasterize(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    sh_degree: int | None = None,
    background: Float[Tensor, "3"] | None = None,
    antialiased: bool = False,
    depth: bool = True,
    absgrad: bool = False,
    packed: bool = False,
    near: float = 0.01,
    far: float = 1e10,
    surfaces: float | None = None,
    ranks: Ranks = ALONE,
) -> Render:
    """Renders the Gaussians from each camera; differentiable in their fields, in ``cameras.c2w`` and the background.

    A Gaussian with a parameter that is not finite, or a quaternion of length zero, is not drawn and gets no gradient;
    the others are not touched by it (on CUDA, gsplat decides). Cameras and background may lie on another device: they
    are small, and go to the Gaussians.

    Args:
        gaussians: before the activations; on a CPU float32 is fast, other types run in plain torch.
        cameras: all of one size.
        sh_degree: highest degree of the spherical harmonics to use; ``None`` for all that are stored.
        background: colour behind everything; ``None`` for black.
        antialiased: reduce opacities by the share of the screen-space dilation (Mip-Splatting).
        depth: also return the expected depth.
        absgrad: also sum absolute gradients of the projected means, into ``info["means2d"].absgrad`` (AbsGS).
        packed: on CUDA keep only visible Gaussians between the passes (less memory); on a CPU nothing changes.
        near, far: depths, in world units, outside of which Gaussians are not drawn.
        surfaces: depth beyond which there is only a backdrop. Where at least half of a pixel is covered by what is
            nearer, the depth is of that alone: the little that shines through of something far off would move it.
            Its coverage is the render's ``foreground``.
        ranks: where several processes have a part of the Gaussians each, all of them call this with as many cameras of
            one size. Each gets the images of its own cameras from all Gaussians; ``info`` is of its own Gaussians and
            the cameras of all. Not with ``packed`` or ``absgrad``.

    Returns:
        The images and what gsplat's densification strategies read; after a backward pass also
        ``info["means2d"].grad``.

    Raises:
        ValueError: if the cameras have different sizes, or ``sh_degree`` is above what is stored or above 3.
    """
    degree = gaussians.sh_degree if sh_degree is None else sh_degree
    if not 0 <= degree <= min(gaussians.sh_degree, MAX_SH_DEGREE):
        raise ValueError(f"sh_degree is {degree}, but has to be in 0..{min(gaussians.sh_degree, MAX_SH_DEGREE)}")
    if gaussians.device.type == "cuda":
        from difix3d.render.cuda import rasterize as run
    else:
        from difix3d.render.cpu import rasterize as run
    background = None if background is None else background.to(gaussians.device)
    cameras = cameras.to(gaussians.device)
    behind = torch.zeros(3, device=gaussians.device) if background is None else background
    draw = partial(
        run,
        gaussians,
        cameras,
        background=behind,
        antialiased=antialiased,
        depth=depth,
        packed=packed,
        near=near,
        ranks=ranks,
    )
    render = draw(sh_degree=degree, absgrad=absgrad, far=far)
    if render.depth is not None and surfaces is not None and surfaces < far:
        nearer = draw(sh_degree=0, far=surfaces)
        assert nearer.depth is not None
        depths = torch.where(nearer.alpha > COVERED, nearer.depth, render.depth)
        render = replace(render, depth=depths, foreground=nearer.alpha)
    return replace(render, background=background)
