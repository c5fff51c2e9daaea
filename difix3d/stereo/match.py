"""How well two photos match if what a pixel shows lies at some depth: the normalised cross-correlation of windows."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from difix3d import native
from difix3d.geometry.warp import into, pixel_centers, sample
from difix3d.types import View

RADIUS = 3
"""Of the windows, in pixels: 7 x 7."""
NOISE = 3e-4
"""Variance of a window's colours, summed over the channels, that tells nothing: it is added to each window's."""
MIDDLE = 0.5
"""Of colours; taken away, so that variances keep their digits."""


def match(view: View, other: View, inverse_depths: Float[Tensor, "D"]) -> Float[Tensor, "D H W"]:
    """Scores in -1..1, the correlation of the colours in a window about each pixel with those that another view has
    where the window would be seen; -1 where that is outside of it.

    Each window is taken to face the camera, at one depth (plane sweep).

    Args:
        view, other: what is compared; of any sizes.
        inverse_depths: of the planes, along the view's optical axis in 1 / world units; 0 is infinitely far.
    """
    library = native.load() if view.image.device.type == "cpu" else None
    if library is None:
        return match_twin(view, other, inverse_depths)
    image, theirs = ((one.image - MIDDLE).contiguous() for one in (view, other))
    means, variances = moments(image)
    turn, shift = into(other.camera, view.camera)
    scores = torch.empty(len(inverse_depths), *image.shape[:2])
    native.call(
        library.difix3d_match, image, means, variances, *image.shape[:2], theirs, *theirs.shape[:2], turn, shift,
        inverse_depths.contiguous(), len(inverse_depths), RADIUS, NOISE, torch.get_num_threads(), scores,
    )  # fmt: skip
    return scores


def match_twin(view: View, other: View, inverse_depths: Float[Tensor, "D"]) -> Float[Tensor, "D H W"]:
    """:func:`match` in plain torch."""
    image, theirs = view.image - MIDDLE, other.image - MIDDLE
    means, variances = moments(image)
    turn, shift = (value.to(image.device) for value in into(other.camera, view.camera))
    there = pixel_centers(image) @ turn.T
    theirs_size = theirs.shape[0], theirs.shape[1]
    scores = []
    for inverse in inverse_depths:
        at = there + shift * inverse
        pixels = at[..., :2] / torch.where(at[..., 2:] > 0, at[..., 2:], 1.0)
        size = pixels.new_tensor(theirs_size[::-1])
        ahead = at[..., 2] > 0
        inside = ahead & (pixels >= 0).all(-1) & (pixels < size).all(-1)
        warped = sample(theirs, torch.where(ahead[..., None], pixels, 0.0), theirs_size)
        their_means, their_variances = moments(warped)
        covariances = _means((warped * image).sum(-1, keepdim=True))[..., 0] - (means * their_means).sum(-1)
        found = covariances / ((variances + NOISE) * (their_variances + NOISE)).sqrt()
        scores.append(torch.where(inside, found, -1.0))
    return torch.stack(scores)


def moments(image: Float[Tensor, "H W C"], radius: int = RADIUS) -> tuple[Float[Tensor, "H W C"], Float[Tensor, "H W"]]:
    """Each window's mean colour, and the variance of its colours, summed over the channels."""
    means = _means(image, radius)
    squares = _means(image.square().sum(-1, keepdim=True), radius)[..., 0]
    return means, (squares - means.square().sum(-1)).clamp_min(0)


def _means(image: Float[Tensor, "H W C"], radius: int = RADIUS) -> Float[Tensor, "H W C"]:
    """Over the windows; those at the edges are smaller."""
    channels = image.permute(2, 0, 1)[None]
    means = avg_pool2d(channels, 2 * radius + 1, 1, radius, count_include_pad=False)
    return means[0].permute(1, 2, 0).contiguous()
