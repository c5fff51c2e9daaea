"""How far a fixed pixel can be trusted: what photos say, seen through the rendered depth.

The known weakness of fixing is that it repaints what was right. Photos can tell: carried to the novel camera by the
rendered depth, they show where the render was right already, and where the fix contradicts them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difix3d.distill.references import SIDE
from difix3d.errors import UserError
from difix3d.geometry.warp import layer, warp_layer
from difix3d.limits import Limits
from difix3d.types import Degraded

NOISE = 1e-3
"""Distance from photos, 0..1, below which nothing is told apart."""

Map = Float[Tensor, "h w"]


@dataclass(frozen=True)
class ConfidenceConfig:
    """The numbers by which photos judge fixes. Differences of images are means of the channels, in 0..1."""

    window: Annotated[int, Limits(min=1)] = 9
    """Side, in pixels of the small grid, of the window within which only the mean and the spread of the colours are
    compared, not their places; odd. The rendered depth is not exact, and a sharp image a little beside its place must
    not seem worse than a blurred one."""
    fix_tolerance: Annotated[float, Limits(above=0)] = 0.08
    """A fix that is further from the photos than the render was, by this, loses 63 % of its weight."""
    change_tolerance: Annotated[float, Limits(above=0)] = 1.0
    """The same for a change of the image where no photo can judge."""
    min_change: Annotated[float, Limits(above=0)] = 0.03
    """A fix that changes less than this is not worth learning: it is mostly blur, which would add up round by round."""
    min_round_agreement: Annotated[float, Limits(min=0, max=1)] = 0.6
    """A round whose fixes keep less than this of their weight, on average over what photos see of them, does not
    count; nor does a single frame of "+"."""
    min_view_agreement: Annotated[float, Limits(min=0, max=1)] = 0.4
    """The same for a single fix of a round that counts."""
    prior: Annotated[float, Limits(above=0, max=1)] = 0.1
    """Share of a picture that photos must see of a fix for its own agreement to count as much as that of its round."""
    min_weight: Annotated[float, Limits(min=0, max=1)] = 0.25
    """Pixels of less weight do not count at all: where only novel views tell what to do, Adam follows the faintest."""

    def check(self) -> None:
        """Refuses a window without a middle."""
        if self.window % 2 == 0:
            raise UserError(f"The window of the confidence is {self.window}", "It must be odd")


@dataclass(frozen=True)
class Evidence:
    """What photos say about a render and its fix, on a small grid.

    Attributes:
        visible: pixels that at least one photo sees.
        render_error, fixed_error: distance to the photo that agrees best, 0..1; 0 where no photo sees.
        change: distance between the colours of render and fix, each the mean of a window, 0..1: detail that is only
            sharper or more blurred is no change.
    """

    visible: Bool[Tensor, "h w"]
    render_error: Map
    fixed_error: Map
    change: Map


@torch.no_grad()
def compare_with_photos(degraded: Degraded, fixed: Float[Tensor, "H W 3"], config: ConfidenceConfig) -> Evidence:
    """Carries the references to the novel camera and compares, at :data:`~difix3d.distill.references.SIDE` pixels.

    Args:
        degraded: the render with its references; the nearest two or three are enough.
        fixed: what the fixer made of it.
        config: the window.
    """
    camera = degraded.camera.limited(SIDE)
    size = camera.size[::-1]
    before, after = _reduce(degraded.rgb, size), _reduce(fixed, size)
    depth = torch.nn.functional.interpolate(degraded.depth[None, None], size, mode="nearest")[0, 0]
    carried = []
    for photo, photo_depth in zip(degraded.references, degraded.reference_depths, strict=True):
        small = photo.camera.limited(SIDE)
        carried.append(warp_layer(_reduce(layer(photo), small.size[::-1]), photo_depth, small, depth, camera))
    count = len(carried)
    everywhere = torch.ones(size, dtype=torch.bool, device=depth.device)
    valid = torch.stack([*(there for _, there in carried), everywhere])
    images = torch.stack([*(image for image, _ in carried), *[before] * (count + 1), *[after] * (count + 1)])
    moments = _moments(images, torch.cat([valid[:-1], valid, valid]), config.window)
    expected, of_render, of_fix = moments.split([count, count + 1, count + 1])
    seen, visible = valid[:-1], valid[:-1].any(0)
    distances = [(of_image[:-1] - expected).abs().sum(1).mean(1) for of_image in (of_render, of_fix)]
    # without photos nothing is visible, whatever stands there
    nearest = [torch.where(seen, distance, torch.inf).amin(0) if count else depth for distance in distances]
    render_error, fixed_error = (torch.where(visible, error, 0.0) for error in nearest)
    return Evidence(visible, render_error, fixed_error, (of_fix[-1, 0] - of_render[-1, 0]).abs().mean(0))


def _moments(images: Float[Tensor, "N h w 3"], valid: Bool[Tensor, "N h w"], window: int) -> Float[Tensor, "N 2 3 h w"]:
    """Mean and standard deviation of the valid pixels in the window around each pixel."""
    weight = valid.float()[:, None]
    values = images.permute(0, 3, 1, 2)
    sums = _sums(torch.cat([weight, values * weight, values.square() * weight], 1), window)
    share, mean, square = sums.split([1, 3, 3], 1)
    share = share.clamp(min=1e-6)
    mean, square = mean / share, square / share
    return torch.stack([mean, (square - mean.square()).clamp(min=0).sqrt()], 1)


def _sums(values: Float[Tensor, "N C h w"], window: int) -> Float[Tensor, "N C h w"]:
    """Sums over the window around each pixel: on a GPU in a kernel along each axis."""
    if values.is_cuda:
        pool, half = torch.nn.functional.avg_pool2d, window // 2
        columns = pool(values, (1, window), 1, (0, half), divisor_override=1)
        return pool(columns, (window, 1), 1, (half, 0), divisor_override=1)
    return torch.stack([_box(_box(image, window).mT, window).mT for image in values])  # each of them fits a cache


def _box(values: Float[Tensor, "C h w"], window: int) -> Float[Tensor, "C h w"]:
    """Sums over a window of columns. Shifted copies are added: several times quicker on CPUs than pooling."""
    padded, width = torch.nn.functional.pad(values, [window // 2] * 2), values.shape[-1]
    total = padded[..., :width].clone()
    for shift in range(1, window):
        total += padded[..., shift : shift + width]
    return total


def mean_agreement(evidence: Sequence[Evidence], config: ConfidenceConfig) -> float:
    """Mean agreement of some fixes with the photos, 0..1, over all that photos see of them; 1 if they see nothing."""
    values = torch.cat([_agreement(item, config)[item.visible] for item in evidence])
    return float(values.mean()) if len(values) else 1.0


def confidence(
    evidence: Evidence, size: tuple[int, int], round_agreement: float, config: ConfidenceConfig
) -> Float[Tensor, "H W"]:
    """Weight, 0..1, of each fixed pixel in training.

    A fix that hardly changes the colours has nothing to teach but its blur. Where photos see the pixel, the weight
    falls as the fix moves away from them; elsewhere the fix has its mean agreement where they do, and less
    the more it changed. A fix that photos contradict on the whole does not count at all; one that they hardly
    see is taken for as good as the others of its round.

    Args:
        evidence: of this fix.
        size: (height, width) of the result.
        round_agreement: the :func:`mean_agreement` of the whole round.
    """
    if round_agreement < config.min_round_agreement:
        return torch.zeros(size, device=evidence.change.device)
    agreement, own = _agreement(evidence, config), _own_agreement(evidence, round_agreement, config)
    unseen = own * torch.exp(-evidence.change / config.change_tolerance)
    weights = _enlarge(_moved(evidence, config) * torch.where(evidence.visible, agreement, unseen), size)
    counts = (weights >= config.min_weight) & (own >= config.min_view_agreement)  # the host does not ask a GPU for it
    return torch.where(counts, weights, 0.0)


def share_of_fix(
    evidence: Evidence, size: tuple[int, int], round_agreement: float, config: ConfidenceConfig
) -> Float[Tensor, "H W"]:
    """Share, 0..1, of the fixed image in a blend with the render: each counts by the inverse square of its distance
    from the photos, as two measurements of one value do by their variances.

    Pixels that no photo sees take as much of the fix as it agrees with photos elsewhere; a fix or a fixer that photos
    contradict on the whole is left out. Shares are means over a window: what a photo sees of hair or of the gaps
    between petals changes from pixel to pixel, and would leave stipples of the render in the fix.

    Args:
        evidence: of this fix.
        size: (height, width) of the result.
        round_agreement: the fixer's :func:`mean_agreement` in other views, which counts where photos hardly see this.
    """
    if round_agreement < config.min_round_agreement:
        return torch.zeros(size, device=evidence.change.device)
    own = _own_agreement(evidence, round_agreement, config)
    render, fixed = (error.square() + NOISE**2 for error in (evidence.render_error, evidence.fixed_error))
    share = torch.where(evidence.visible, render / (render + fixed), own)
    total, count = _sums(torch.stack([share, torch.ones_like(share)])[None], config.window)[0]
    return torch.where(own < config.min_round_agreement, 0.0, _enlarge(total / count, size))


def _own_agreement(evidence: Evidence, round_agreement: float, config: ConfidenceConfig) -> Float[Tensor, ""]:
    """Mean agreement of a fix where photos see it, drawn toward ``round_agreement`` the less they see."""
    agreement = _agreement(evidence, config)
    prior = config.prior * agreement.numel()
    seen = torch.where(evidence.visible, agreement, 0.0).sum()
    return (seen + prior * round_agreement) / (evidence.visible.sum() + prior)


def _moved(evidence: Evidence, config: ConfidenceConfig) -> Map:
    """0 where the fix has the render's colours, rising to 1."""
    return 1 - torch.exp(-evidence.change / config.min_change)


def _agreement(evidence: Evidence, config: ConfidenceConfig) -> Map:
    """1 where the fix is as near to the photos as the render was, falling as it moves away."""
    return torch.exp(-(evidence.fixed_error - evidence.render_error).clamp(min=0) / config.fix_tolerance)


def _reduce(image: Float[Tensor, "H W C"], size: tuple[int, int]) -> Float[Tensor, "h w C"]:
    if image.shape[:2] == size:
        return image
    small = torch.nn.functional.interpolate(image.permute(2, 0, 1)[None], size, mode="area")
    return small[0].permute(1, 2, 0)


def _enlarge(values: Map, size: tuple[int, int]) -> Float[Tensor, "H W"]:
    return torch.nn.functional.interpolate(values[None, None], size, mode="bilinear", align_corners=False)[0, 0]
