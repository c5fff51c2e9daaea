"""The rasteriser for CPUs: the C++ of :mod:`difix3d.native` behind two autograd functions.

``Project`` takes the Gaussians to the image planes (with their colours), ``Rasterize`` paints them; between the two
lies ``means2d``, so that its gradient is there for densification. Same values and gradients as
:mod:`difix3d.render.torch_twin`.
"""

import threading
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d import native
from difix3d.errors import UserError
from difix3d.ranks import ALONE, Ranks
from difix3d.render import torch_twin
from difix3d.render.exchange import cameras_of_all, to_their_cameras
from difix3d.types import Cameras, Gaussians, Render

FIELDS = 16  # floats of a packed Gaussian; the order is enum Field in splat.h
CONICS = slice(2, 5)
OPACITY = 5
COLORS = slice(6, 9)
DEPTH = 9
TILE = 16


_kept = threading.local()


def _scratch(slots: int) -> Tensor:
    """Memory for one backward pass, kept: getting tens of megabytes anew costs as much as the sums in it."""
    if getattr(_kept, "slots", None) is None or len(_kept.slots) < slots:
        _kept.slots = torch.empty(slots * 5 // 4, FIELDS)
    return _kept.slots


class Project(torch.autograd.Function):
    """Gaussians and cameras -> means2d [B,N,2], packed Gaussians [B,N,16]; radii [B,N,2], tile boxes, their total."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        *tensors, width, height, degree, antialiased, near, far = inputs
        means, _, _, _, _, shN, w2c, _, _ = tensors = [x.detach().contiguous() for x in tensors]
        n, b = len(means), len(w2c)
        means2d, splats = means.new_empty(b, n, 2), means.new_empty(b, n, FIELDS)
        radii, boxes = (torch.empty(b, n, size, dtype=kind) for size, kind in ((2, torch.int32), (4, torch.int16)))
        settings = (b, width, height, degree, int(antialiased))
        bound = native.call(
            native.load().difix3d_project,  # type: ignore[union-attr]
            *tensors[:6], n, shN.shape[1], *tensors[6:], *settings, float(near), float(far), torch.get_num_threads(),
            means2d, splats, radii, boxes,
        )  # fmt: skip
        ctx.save_for_backward(*tensors, splats, radii)
        ctx.settings = settings
        total = torch.tensor(bound)
        ctx.mark_non_differentiable(radii, boxes, total)
        return means2d, splats, radii, boxes, total

    @staticmethod
    def backward(ctx: Any, v_means2d: Tensor, v_splats: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        *tensors, splats, radii = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in tensors[:6]]
        pose = torch.empty(ctx.settings[0], 15) if any(ctx.needs_input_grad[6:8]) else None
        native.call(
            native.load().difix3d_project_backward,  # type: ignore[union-attr]
            *tensors[:6], len(tensors[0]), tensors[5].shape[1], *tensors[6:], *ctx.settings, torch.get_num_threads(),
            splats, radii, v_means2d.contiguous(), v_splats.contiguous(), *grads, pose,
        )  # fmt: skip
        v_w2c = v_centers = None
        if pose is not None:
            v_w2c = torch.cat([pose[:, :12].reshape(-1, 3, 4), pose.new_zeros(len(pose), 1, 4)], 1)
            v_centers = pose[:, 12:]
        return *grads, v_w2c, v_centers, *[None] * 7


class Rasterize(torch.autograd.Function):
    """means2d (whose values are read from the packed Gaussians), packed Gaussians, background -> rgb, alpha, depth."""

    @staticmethod
    def forward(ctx: Any, means2d: Tensor, splats: Tensor, background: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
        boxes, bound, width, height, absgrad = inputs
        b, n = means2d.shape[:2]
        threads = torch.get_num_threads()
        tiles = b * -(-width // TILE) * -(-height // TILE)
        order, starts, offsets, ids, slots = (
            torch.empty(size, dtype=torch.int32) for size in (b * n, b * n + 1, tiles + 1, bound, bound)
        )
        lists = (order, starts, offsets, ids, slots)
        library = native.load()
        visible = native.call(
            library.difix3d_tile_lists, splats, boxes, b, n, width, height, threads, *lists  # type: ignore[union-attr]
        )  # fmt: skip
        rgb, alpha, depth = (torch.empty(b, height, width, channels) for channels in (3, 1, 1))
        background = background.detach().contiguous()
        native.call(
            library.difix3d_rasterize, splats, b, width, height, background, offsets, ids, threads, rgb, alpha, depth  # type: ignore[union-attr]
        )  # fmt: skip
        ctx.save_for_backward(means2d, splats, rgb, alpha, depth, *lists)
        ctx.settings = (width, height, visible, absgrad)
        ctx.set_materialize_grads(False)
        return rgb, alpha, depth

    @staticmethod
    def backward(ctx: Any, v_rgb: Tensor | None, v_alpha: Tensor | None, v_depth: Tensor | None) -> tuple[Any, ...]:
        means2d, splats, rgb, alpha, depth, order, starts, offsets, ids, slots = ctx.saved_tensors
        width, height, visible, absgrad = ctx.settings
        v_rgb = torch.zeros_like(rgb) if v_rgb is None else v_rgb.contiguous()
        v_alpha, v_depth = (v if v is None else v.contiguous() for v in (v_alpha, v_depth))
        v_means2d, v_splats = torch.empty_like(means2d), torch.empty_like(splats)
        v_abs = torch.empty_like(means2d) if absgrad else None
        native.call(
            native.load().difix3d_rasterize_backward,  # type: ignore[union-attr]
            splats, *means2d.shape[:2], width, height, offsets, ids, slots, order, starts, visible,
            torch.get_num_threads(), rgb, alpha, depth, v_rgb, v_alpha, v_depth, _scratch(int(offsets[-1])),
            v_means2d, v_abs, v_splats,
        )  # fmt: skip
        if absgrad:
            means2d.absgrad = v_abs
        v_background = (v_rgb * (1 - alpha)).sum((0, 1, 2)) if ctx.needs_input_grad[2] else None
        return v_means2d, v_splats, v_background, *[None] * 5


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
    """See :func:`difix3d.render.rasterize`. Anything but float32, and machines without a compiler, go to the twin."""
    if gaussians.means.dtype != torch.float32 or native.load() is None:
        if ranks.count > 1:
            raise UserError("Several processes on CPUs need a C++ compiler", "There is none here")
        options = {
            "antialiased": antialiased,
            "depth": depth,
            "absgrad": absgrad,
            "packed": packed,
            "near": near,
            "far": far,
        }
        return torch_twin.rasterize(gaussians, cameras, sh_degree=sh_degree, background=background, **options)  # type: ignore[arg-type]
    width, height = cameras.size
    cameras = cameras_of_all(cameras, ranks) if ranks.count > 1 else cameras
    poses = [x.to(torch.float32) for x in (cameras.w2c, cameras.centers, cameras.K)]
    means2d, splats, radii, boxes, bound = Project.apply(
        *gaussians.as_dict().values(), *poses, width, height, sh_degree, antialiased, near, far
    )
    if means2d.requires_grad:
        means2d.retain_grad()
    drawn = means2d, splats, boxes, int(bound)
    if ranks.count > 1:
        drawn = _of_all(ranks, means2d, splats, boxes)
    rgb, alpha, expected = Rasterize.apply(*drawn[:2], background.to(torch.float32), *drawn[2:], width, height, absgrad)
    info = {
        "means2d": means2d,
        "radii": radii,
        "conics": splats[..., CONICS],
        "opacities": splats[..., OPACITY],
        "colors": splats[..., COLORS],
        "depths": splats[..., DEPTH],
        "width": width,
        "height": height,
        "n_cameras": len(cameras),
        "gaussian_ids": None,
    }
    return Render(rgb, alpha, expected if depth else None, info)


def _of_all(ranks: Ranks, means2d: Tensor, splats: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """The same of all Gaussians for this process's cameras, and the tiles that they touch."""
    boxes = to_their_cameras(boxes.int(), ranks)
    x0, x1, y0, y1 = boxes.unbind(-1)
    tiles = int(((x1 - x0) * (y1 - y0)).sum())
    return to_their_cameras(means2d, ranks), to_their_cameras(splats, ranks), boxes.short(), tiles
