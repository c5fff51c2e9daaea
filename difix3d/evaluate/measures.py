"""From folders of pictures to numbers: each picture against its photo, each set against the set of photos."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from difix3d.background import within
from difix3d.errors import UserError
from difix3d.evaluate.pictures import Pictures, shoot, target, there
from difix3d.evaluate.results import CORRECTED, SetScore, Variant
from difix3d.evaluate.seen import Seen, parts
from difix3d.features import Inception, inception_features
from difix3d.images import read_image, to_uint8
from difix3d.metrics import (
    LPIPS,
    color_correct,
    contrast,
    error_split,
    fid,
    kid,
    psnr,
    psnr_there,
    ssim_there,
    tsed,
    warp_error,
)
from difix3d.metrics.perceptual import Net
from difix3d.types import Cameras, Degraded, Fixer, RenderFn, View

Compare = Callable[[UInt8[Tensor, "H W 3"], UInt8[Tensor, "H W 3"], Bool[Tensor, "H W"] | None], float | Tensor]
"""Of picture, photo and mask: a number, perhaps still on its way from the device of the pictures."""
Look = Callable[[Pictures, View], UInt8[Tensor, "H W 3"]]
Network = TypeVar("Network")

SET_METRICS = ("fid", "kid")
PATH_METRICS = ("tsed", "warp")


def measure(
    metrics: Sequence[str],
    variants: Sequence[Pictures],
    views: Iterable[View],
    device: torch.device | str = "cpu",
    seen: Seen | None = None,
    look: Look = lambda pictures, view: torch.from_numpy(read_image(pictures.path(view))),
) -> tuple[tuple[Variant, ...], dict[str, str]]:
    """Compares pictures with photos, both at 8 bits.

    Args:
        metrics: keys of :data:`METRICS` that single pictures or sets of them have.
        variants: whose pictures.
        views: the photos; pixels outside of their masks do not count (sets of pictures are compared whole).
        device: where they are compared.
        seen: which pixels training photos show; if given, these and the others are also measured apart.
        look: gives a variant's picture of a view; by default it is read from its file.

    Returns:
        The variants, and for metrics that could not be had the reason why.
    """
    compare, left_out = comparisons(metrics, device)
    asked = [metric.removeprefix(CORRECTED) for metric in metrics if metric.startswith(CORRECTED)]
    fitted, reasons = comparisons(asked, device)
    left_out |= {CORRECTED + metric: reason for metric, reason in reasons.items()}
    network, reason = inception(metrics, device)
    rows: dict[str, list[dict[str, Any]]] = {pictures.name: [] for pictures in variants}
    features: dict[str, list[Tensor]] = {name: [] for name in ("", *rows)}
    for view in views:
        photo, mask = target(view, device)
        share, apart = ({}, {}) if seen is None else parts(seen(view), None if mask is None else mask.cpu())
        apart = {part: there(pixels, device) for part, pixels in apart.items()}
        images = {pictures.name: there(look(pictures, view), device) for pictures in variants}
        for pictures in variants:
            image, before = images[pictures.name], images.get(pictures.against or "")
            row = share | {
                f"{part}{metric}": function(image, photo, pixels)
                for part, pixels in ({"": mask} | apart).items()
                for metric, function in compare.items()
            }
            if pictures.exported is not None:
                other = replace(pictures, place=pictures.exported).path(view)
                row["psnr_ply"] = psnr_there(there(torch.from_numpy(read_image(other)), device), photo, mask)
            if fitted:
                corrected = there(color_correct(*on_host(image, photo, mask)), device)
                row |= {CORRECTED + metric: function(corrected, photo, mask) for metric, function in fitted.items()}
            if before is not None and (mask is None or mask.any()):
                split = error_split(*on_host(before, image, photo, mask))
                row |= {
                    "right": split.right_after - split.right_before,
                    "wrong": split.wrong_after - split.wrong_before,
                }
            if view.name in pictures.seconds:
                row["seconds"] = pictures.seconds[view.name]
            rows[pictures.name].append({"name": view.name, **numbers(row)})
        if network is not None:
            for name, image in {"": photo, **images}.items():
                features[name].append(inception_features([image], network))
    sets = {name: distances(metrics, features[name], features[""]) for name in rows} if network is not None else {}
    result = tuple(
        Variant(
            pictures.name,
            pictures.place,
            tuple(rows[pictures.name]),
            sets.get(pictures.name, {}) | pictures.sets,
            pictures.gaussians,
            pictures.against,
        )
        for pictures in variants
    )
    if network is not None and len(features[""]) < 2:
        reason = f"it compares sets of pictures, and there is only {len(features[''])}"
    return result, left_out | {metric: reason for metric in SET_METRICS if metric in metrics and reason}


def psnrs(render: RenderFn, views: Iterable[View]) -> list[float]:
    """PSNR of each view's render, at 8 bits, with nothing written."""
    images = ((shoot(render, view)[0], view) for view in views)
    return [psnr(image, *target(view, image.device)) for image, view in images]


@torch.no_grad()
def fix_photos(
    fixer: Fixer, views: Iterable[View], metrics: Sequence[str], device: torch.device | str = "cpu"
) -> dict[str, float]:
    """What a fixer does to photos that need nothing: it should leave them alone.

    They are given to it as if they were renders that cover all that is there, with nothing to look at.

    Args:
        views: the photos, with their alpha.
        metrics: as for :func:`measure`; those of single pictures count.
        device: of the feature networks.

    Returns:
        Means over the photos of these metrics and of :func:`~difix3d.metrics.contrast` (1: kept), and their ``count``.
    """
    compare: dict[str, Compare] = comparisons(metrics, device)[0] | {"contrast": contrast}
    given: list[View] = []

    def photos() -> Iterator[Degraded]:
        for view in views:
            given.append(view)
            blank = torch.zeros_like(view.image[..., 0])
            yield Degraded(view.camera, view.image, blank + 1 if view.alpha is None else view.alpha, blank)

    scores = []
    for number, fixed in enumerate(fixer(photos())):
        alpha = given[number].alpha
        image = torch.from_numpy(to_uint8(fixed if alpha is None else within(fixed, alpha)))
        photo = target(given[number], "cpu")
        scores.append(numbers({name: function(image, *photo) for name, function in compare.items()}))
    means = {name: sum(score[name] for score in scores) / len(scores) for name in compare}
    return means | {"count": len(scores)}


def comparisons(metrics: Sequence[str], device: torch.device | str) -> tuple[dict[str, Compare], dict[str, str]]:
    """Functions of picture, photo and mask by metric, and reasons for those that cannot be had."""
    pixels = {"psnr": psnr_there, "ssim": ssim_there}
    found: dict[str, Compare] = {key: function for key, function in pixels.items() if key in metrics}
    left_out: dict[str, str] = {}
    nets: tuple[Net, ...] = ("vgg", "alex")
    for net in nets:
        key = f"lpips_{net}"
        if key in metrics:
            network, reason = _try(partial(LPIPS, net))
            if network is None:
                left_out[key] = reason
            else:
                found[key] = network.to(device).score
    return found, left_out


def numbers(row: dict[str, Any]) -> dict[str, Any]:
    """The row with numbers in place of its tensors; a host waits once for all of them."""
    tensors = {key: value for key, value in row.items() if isinstance(value, Tensor)}
    return row | dict(zip(tensors, torch.stack([*tensors.values()]).tolist(), strict=True)) if tensors else row


def on_host(*tensors: Tensor | None) -> list[Any]:
    """The same on the CPU, for what is computed there only."""
    return [None if tensor is None else tensor.cpu() for tensor in tensors]


def inception(metrics: Sequence[str], device: torch.device | str) -> tuple[Inception | None, str]:
    """The network of FID and KID if one of them is asked for, and the reason if it cannot be had."""
    if not any(metric in metrics for metric in SET_METRICS):
        return None, ""
    return _try(lambda: Inception.pretrained().to(device))


def distances(metrics: Sequence[str], pictures: list[Tensor], photos: list[Tensor]) -> dict[str, SetScore]:
    """FID and KID of sets of features [1, D]; nothing for a single picture."""
    if len(photos) < 2:
        return {}
    functions = {"fid": fid, "kid": kid}
    found = {key: functions[key](torch.cat(pictures), torch.cat(photos)) for key in SET_METRICS if key in metrics}
    return {key: SetScore(score.value, score.count, score.std, score.warning) for key, score in found.items()}


def _try(load: Callable[[], Network]) -> tuple[Network | None, str]:
    """What was loaded, or why it could not be."""
    try:
        return load(), ""
    except UserError as error:
        return None, str(error)


def consistency(
    metrics: Sequence[str], render: RenderFn, surface: RenderFn, cameras: Sequence[Cameras], who: str
) -> dict[str, SetScore]:
    """How well the frames along a path agree with each other (TSED and warp error).

    Args:
        metrics: "tsed", "warp" or both.
        render: makes the frames.
        surface: the model, the same for all variants, whose depth carries each frame into the next.
        cameras: single cameras along the path, all of one size.
        who: name of the variant, for errors.
    """
    asked = [metric for metric in PATH_METRICS if metric in metrics]
    if not asked:
        return {}
    width, height = cameras[0].size
    blank = torch.zeros(height, width, 3)
    frames = [shoot(render, View(camera, blank, f"frame {i}"), who)[0].cpu() for i, camera in enumerate(cameras)]
    whole = Cameras.cat(cameras).to("cpu")
    found = {}
    if "tsed" in asked:
        found["tsed"] = SetScore(tsed(frames, whole).score, len(frames) - 1)
    if "warp" in asked:
        depths = [surface(camera).depth_map.cpu() for camera in cameras]
        found["warp"] = SetScore(warp_error(frames, depths, whole).mean, len(frames) - 1)
    return found
