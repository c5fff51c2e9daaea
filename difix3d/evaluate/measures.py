"""From folders of pictures to numbers: each picture against its photo, each set against the set of photos."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from difix3d.errors import UserError
from difix3d.evaluate.results import SetScore, Variant
from difix3d.evaluate.scores import check_size, shoot
from difix3d.features import Inception, inception_features
from difix3d.images import image_size, read_image, to_uint8, write_image
from difix3d.metrics import LPIPS, error_split, fid, kid, psnr, ssim, tsed, warp_error
from difix3d.metrics.perceptual import Net
from difix3d.types import Cameras, Render, View

Compare = Callable[[UInt8[Tensor, "H W 3"], UInt8[Tensor, "H W 3"], Bool[Tensor, "H W"] | None], float]
Network = TypeVar("Network")
RenderFn = Callable[[Cameras], Render]

IMAGE_METRICS = ("psnr", "ssim", "lpips_vgg", "lpips_alex")
SET_METRICS = ("fid", "kid")
PATH_METRICS = ("tsed", "warp")


@dataclass(frozen=True)
class Pictures:
    """One variant's pictures on disk, and where they come from.

    Attributes:
        name: of the variant.
        root, place: ``root / place`` holds a .png for each view, at the view's place; this one goes into the result.
        seconds: time per picture by the name of the view; may be empty.
        sets: metrics of paths, measured already.
        gaussians: in the model, if known.
        against: name of the variant whose pictures were fixed to get these.
    """

    name: str
    root: Path
    place: str
    seconds: dict[str, float] = field(default_factory=dict)
    sets: dict[str, SetScore] = field(default_factory=dict)
    gaussians: int | None = None
    against: str | None = None

    def path(self, view: View) -> Path:
        """The picture of a photo's view."""
        return self.root / self.place / f"{view.place}.png"


def draw(render: RenderFn, views: Iterable[View], pictures: Pictures) -> None:
    """Renders the views into the pictures' folder, and notes the seconds of each."""
    for view in views:
        image, pictures.seconds[view.name] = shoot(render, view, pictures.name)
        write_image(pictures.path(view), image)


def adopt(folder: Path, views: Iterable[View], pictures: Pictures) -> None:
    """Copies another program's pictures, which are called like the photos (any suffix) or lie in their order.

    Raises:
        UserError: there are too few or too many, or one is not of its photo's size.
    """
    expected = list(views)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if len(files) != len(expected):
        here = {path.relative_to(folder).with_suffix("").as_posix() for path in files}
        lost = [view.name for view in expected if Path(view.name).with_suffix("").as_posix() not in here]
        raise UserError(
            f"{folder} holds {len(files)} pictures for {len(expected)} photos"
            + (f"; the first without one is {lost[0]}" if lost else ""),
            "Each photo of the split needs one picture and there may be no others",
            "Choose the --split that they are of, or complete the folder",
        )
    named = {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
    named |= {path.relative_to(folder).as_posix(): path for path in files}
    for number, view in enumerate(expected):
        keys = (view.name, view.place, Path(view.name).with_suffix("").as_posix())
        path = next((named[key] for key in keys if key in named), files[number])
        check_size(*image_size(path), view, str(path))
        write_image(pictures.path(view), read_image(path))


def measure(
    metrics: Sequence[str], variants: Sequence[Pictures], views: Iterable[View], device: torch.device | str = "cpu"
) -> tuple[tuple[Variant, ...], dict[str, str]]:
    """Compares pictures with photos, both at 8 bits.

    Args:
        metrics: keys of :data:`METRICS` that single pictures or sets of them have.
        variants: whose pictures.
        views: the photos; pixels outside of their masks do not count (sets of pictures are compared whole).
        device: of the feature networks.

    Returns:
        The variants, and for metrics that could not be had the reason why.
    """
    compare, left_out = comparisons(metrics, device)
    network, reason = inception(metrics, device)
    rows: dict[str, list[dict[str, Any]]] = {pictures.name: [] for pictures in variants}
    features: dict[str, list[Tensor]] = {name: [] for name in ("", *rows)}
    for view in views:
        photo = torch.from_numpy(to_uint8(view.image))
        mask = None if view.mask is None else view.mask.cpu()
        images = {pictures.name: torch.from_numpy(read_image(pictures.path(view))) for pictures in variants}
        for pictures in variants:
            image, before = images[pictures.name], images.get(pictures.against or "")
            row = {metric: function(image, photo, mask) for metric, function in compare.items()}
            if before is not None and (mask is None or mask.any()):
                split = error_split(before, image, photo, mask)
                row |= {
                    "right": split.right_after - split.right_before,
                    "wrong": split.wrong_after - split.wrong_before,
                }
            if view.name in pictures.seconds:
                row["seconds"] = pictures.seconds[view.name]
            rows[pictures.name].append({"name": view.name, **row})
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


def comparisons(metrics: Sequence[str], device: torch.device | str) -> tuple[dict[str, Compare], dict[str, str]]:
    """Functions of picture, photo and mask by metric, and reasons for those that cannot be had."""
    found: dict[str, Compare] = {key: function for key, function in (("psnr", psnr), ("ssim", ssim)) if key in metrics}
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
    frames = [shoot(render, View(camera, blank, f"frame {i}"), who)[0] for i, camera in enumerate(cameras)]
    whole = Cameras(
        *(torch.cat([getattr(camera, key) for camera in cameras]).cpu() for key in ("c2w", "K", "width", "height"))
    )
    found = {}
    if "tsed" in asked:
        found["tsed"] = SetScore(tsed(frames, whole).score, len(frames) - 1)
    if "warp" in asked:
        depths = [_depth(surface(camera)) for camera in cameras]
        found["warp"] = SetScore(warp_error(frames, depths, whole).mean, len(frames) - 1)
    return found


def _depth(render: Render) -> Tensor:
    assert render.depth is not None
    return render.depth[0, ..., 0].cpu()
