"""Carrying pixels from one camera to another by rendered depth.

Depth is the distance along the optical axis in world units, 0 where nothing is seen; the centre of the top-left pixel
lies at (0.5, 0.5). Cameras may lie on the host, wherever the pixels are.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difix3d.types import Cameras, Degraded, View

COVERED = 0.5
"""Alpha from which a rendered depth is taken for that of a surface."""
TOLERANCE = 0.05
"""Difference in depth, as a share of the depth, up to which two cameras are taken to see the same surface."""


def pixel_centers(image: Float[Tensor, "H W *channels"]) -> Float[Tensor, "H W 3"]:
    """(x, y, 1) of each pixel's centre in an image or a depth map."""
    row, column = torch.meshgrid(*(torch.arange(n, device=image.device) + 0.5 for n in image.shape[:2]), indexing="ij")
    return torch.stack([column, row, torch.ones_like(row)], -1)


def times(points: Float[Tensor, "*shape 3"], matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*shape 3"]:
    """``points @ matrix``; on a GPU not as a product of matrices, which takes 0.1 ms for one as thin as this."""
    if not points.is_cuda:
        return points @ matrix
    x, y, z = points.unsqueeze(-1).unbind(-2)
    first, second, third = matrix.unsqueeze(-3).unbind(-2)
    return torch.addcmul(torch.addcmul(x * first, y, second), z, third)


def unproject(depth: Float[Tensor, "H W"], camera: Cameras) -> Float[Tensor, "H W 3"]:
    """World points of the pixel centres; the camera's own position where the depth is 0."""
    camera = camera.to(depth.device)
    c2w, K = camera.c2w[0], camera.K[0]
    rays = times(pixel_centers(depth).to(depth), torch.linalg.inv_ex(K)[0].T)
    return times(rays * depth[..., None], c2w[:3, :3].T) + c2w[:3, 3]


def project(
    points: Float[Tensor, "*shape 3"], camera: Cameras
) -> tuple[Float[Tensor, "*shape 2"], Float[Tensor, "*shape"]]:
    """Pixels and depths of world points; pixels of points that are not in front of the camera mean nothing."""
    pixels, depth = project_each(points, camera[:1])
    return pixels[0], depth[0]


def project_each(
    points: Float[Tensor, "*shape 3"], cameras: Cameras
) -> tuple[Float[Tensor, "N *shape 2"], Float[Tensor, "N *shape"]]:
    """:func:`project` into several cameras at once."""
    cameras = cameras.to(points.device)
    local = times(points.reshape(-1, 3) - cameras.c2w[:, None, :3, 3], cameras.c2w[:, :3, :3])
    depth = local[..., 2]
    pixels = times(local, cameras.K.mT)[..., :2] / depth.clamp(min=1e-9)[..., None]
    shape = (len(cameras), *points.shape[:-1])
    return pixels.reshape(*shape, 2), depth.reshape(shape)


def into(other: Cameras, camera: Cameras) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """From a pixel ``p = (x, y, 1)`` of a camera times its depth to another camera's pixel times its depth there:
    ``A p + b``; both on the host."""
    K, c2w = (value[0].double().cpu() for value in (camera.K, camera.c2w))
    other_K, other_c2w = (value[0].double().cpu() for value in (other.K, other.c2w))
    turn = other_K @ other_c2w[:3, :3].T
    shift = turn @ (c2w[:3, 3] - other_c2w[:3, 3])
    return (turn @ c2w[:3, :3] @ torch.linalg.inv(K)).float().contiguous(), shift.float().contiguous()


def seen_by(
    points: Float[Tensor, "H W 3"], camera: Cameras, depth: Float[Tensor, "h w"], tolerance: float = TOLERANCE
) -> tuple[Bool[Tensor, "H W"], Float[Tensor, "H W 2"]]:
    """Which world points a camera sees, not hidden behind what is in its depth map, and where (in pixels)."""
    seen, pixels = seen_by_each(points, camera[:1], depth[None], tolerance)
    return seen[0], pixels[0]


def seen_by_each(
    points: Float[Tensor, "H W 3"], cameras: Cameras, depths: Float[Tensor, "N h w"], tolerance: float = TOLERANCE
) -> tuple[Bool[Tensor, "N H W"], Float[Tensor, "N H W 2"]]:
    """:func:`seen_by` of several cameras at once, which takes a GPU's host as long as of one."""
    pixels, z = project_each(points, cameras)
    height, width = depths.shape[1:]
    inside = (z > 0) & (pixels >= 0).all(-1) & (pixels[..., 0] < width) & (pixels[..., 1] < height)
    column = pixels[..., 0].nan_to_num().clamp(0, width - 1).long()
    row = pixels[..., 1].nan_to_num().clamp(0, height - 1).long()
    there = depths.flatten(1).gather(1, (row * width + column).flatten(1)).view_as(z)
    return inside & ((there - z).abs() <= tolerance * z), pixels


def sample(
    image: Float[Tensor, "h w C"], pixels: Float[Tensor, "H W 2"], size: tuple[int, int]
) -> Float[Tensor, "H W C"]:
    """An image at places in pixels, bilinearly; outside of it, what is at its edge.

    Args:
        size: (height, width) that the pixels are those of, as a smaller depth map of the image has.
    """
    height, width = size
    grid = torch.stack([pixels[..., 0] / width, pixels[..., 1] / height], -1) * 2 - 1
    channels = image.permute(2, 0, 1)[None]
    return torch.nn.functional.grid_sample(channels, grid[None], "bilinear", "border", align_corners=False)[0].permute(
        1, 2, 0
    )


def surface(depth: Float[Tensor, "H W"], alpha: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """A rendered depth where half of a pixel is covered; 0 elsewhere: that depth is of no surface."""
    return torch.where(alpha > COVERED, depth, 0.0)


def warp(
    image: Float[Tensor, "h w C"],
    image_depth: Float[Tensor, "_ _"],
    image_camera: Cameras,
    depth: Float[Tensor, "H W"],
    camera: Cameras,
) -> tuple[Float[Tensor, "H W C"], Bool[Tensor, "H W"]]:
    """An image as another camera would see it, sampled bilinearly.

    Args:
        image: where the pixels come from, of any size.
        image_depth, image_camera: of the image, of one size.
        depth, camera: where they go, and how far away the surface is there.

    Returns:
        The warped image, and where it is valid: seen by both cameras, by the depth maps. Elsewhere it is 0.
    """
    valid, pixels = seen_by(unproject(depth, camera), image_camera, image_depth)
    valid &= depth > 0
    height, width = image_depth.shape
    warped = sample(image, torch.where(valid[..., None], pixels, 0.0), (height, width))
    return warped * valid[..., None], valid


def layer(photo: View) -> Float[Tensor, "H W C"]:
    """A photo's colours, and its alpha behind them if it has one (C = 4): what :func:`warp_layer` takes."""
    return photo.image if photo.alpha is None else torch.cat([photo.image, photo.alpha[..., None]], -1)


def warp_layer(
    image: Float[Tensor, "h w C"],
    image_depth: Float[Tensor, "_ _"],
    image_camera: Cameras,
    depth: Float[Tensor, "H W"],
    camera: Cameras,
) -> tuple[Float[Tensor, "H W 3"], Bool[Tensor, "H W"]]:
    """:func:`warp` of a :func:`layer`: what is outside of its alpha is not valid, whatever the model has there."""
    warped, valid = warp(image, image_depth, image_camera, depth, camera)
    if image.shape[2] == 4:
        valid = valid & (warped[..., 3] >= COVERED)
        warped = warped[..., :3] * valid[..., None]
    return warped, valid


@torch.no_grad()
def warped_references(degraded: Degraded, count: int) -> Float[Tensor, "V H W 4"]:
    """The references as the render's camera would see them, in layers, with alpha 1 where a layer is valid, else 0.

    A pixel's first layer is the best reference that sees it, the second one the next best, and so on: where two agree,
    the rendered depth is right; where no reference sees a pixel, all its layers are 0.

    Args:
        degraded: with its references, the best first, and their depth maps.
        count: how many layers.
    """
    depths = surface(degraded.depth, degraded.alpha)
    layers = degraded.rgb.new_zeros(count, *degraded.rgb.shape[:2], 4)
    for photo, depth in zip(degraded.references, degraded.reference_depths, strict=True):
        camera = photo.camera.resized(depth.shape[1], depth.shape[0])
        warped, valid = warp_layer(layer(photo), depth, camera, depths, degraded.camera)
        rest = torch.cat([warped, valid[..., None].to(warped)], -1)
        for filled in layers:  # what a pixel of this layer has already goes on to the next layer
            free = filled[..., 3:] == 0
            filled.copy_(torch.where(free, rest, filled))
            rest = torch.where(free, 0.0, rest)
    return layers


def guide(degraded: Degraded, layers: int, foreground: bool = True) -> Float[Tensor, "K H W"]:
    """What a small network sees beside a render: its coverage, then RGBA of each layer of :func:`warped_references`.

    ``foreground``: by what is nearer than a backdrop, so that what no photo saw is told from what one did.
    """
    warped = warped_references(degraded, layers).permute(0, 3, 1, 2).flatten(0, 1)
    coverage = degraded.coverage if foreground else degraded.alpha
    return torch.cat([coverage[None], warped])
