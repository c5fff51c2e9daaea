"""How good is a model: renders of views whose photos are known, their metrics, and pictures to look at."""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from difix3d.errors import UserError
from difix3d.images import to_uint8, write_image
from difix3d.metrics import psnr, ssim
from difix3d.types import Cameras, Render, View


@dataclass(frozen=True)
class ImageScore:
    """Metrics of one view; ``seconds`` is the time to render it."""

    name: str
    psnr: float
    ssim: float
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Scores of all views of a split."""

    split: str
    images: tuple[ImageScore, ...]

    def mean(self, metric: str) -> float:
        return sum(getattr(score, metric) for score in self.images) / len(self.images)

    def to_dict(self) -> dict:
        means = {metric: self.mean(metric) for metric in ("psnr", "ssim", "seconds")}
        return {"split": self.split, **means, "images": [asdict(score) for score in self.images]}


@torch.no_grad()
def evaluate(
    render: Callable[[Cameras], Render], views: Iterable[View], *, split: str, folder: Path | None = None
) -> Evaluation:
    """Renders each view and compares it with its photo, both at 8 bits.

    Args:
        render: the model.
        views: what to compare with.
        split: name of the set, for reports.
        folder: if given, ``renders/PLACE.png`` and ``compare/PLACE.png`` (photo, render, difference) are written there.
    """
    scores = []
    for view in views:
        image, seconds = shoot(render, view)
        photo = torch.from_numpy(to_uint8(view.image))
        mask = None if view.mask is None else view.mask.cpu()
        scores.append(ImageScore(view.name, psnr(image, photo, mask), ssim(image, photo, mask), seconds))
        if folder is not None:
            name = f"{view.place}.png"
            write_image(folder / "renders" / name, image)
            write_image(folder / "compare" / name, torch.cat([photo, image, difference(image, photo)], dim=1))
    return Evaluation(split, tuple(scores))


@torch.no_grad()
def shoot(
    render: Callable[[Cameras], Render], view: View, who: str = "the model"
) -> tuple[UInt8[Tensor, "H W 3"], float]:
    """The picture of a view's camera, and the seconds that it took.

    Raises:
        UserError: it has pixels that are no numbers, or is not of the photo's size; names ``who`` made it.
    """
    start = time.perf_counter()
    rgb = render(view.camera).rgb[0]
    if rgb.is_cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    check_size(rgb.shape[1], rgb.shape[0], view, f"The picture that {who} made of {view.name}")
    wrong = int((~rgb.isfinite()).any(-1).sum())
    if wrong:
        raise UserError(
            f"{wrong:,} of {rgb.shape[0] * rgb.shape[1]:,} pixels that {who} rendered of {view.name} are no numbers",
            "A metric of them would mean nothing",
            "The model or the fixer is damaged: choose an earlier checkpoint or other weights, or train again",
        )
    return torch.from_numpy(to_uint8(rgb)), seconds


def check_size(width: int, height: int, view: View, what: str) -> None:
    """Refuses a picture that is not of its photo's size; nothing is resized silently."""
    expected = view.image.shape[1], view.image.shape[0]
    if (width, height) != expected:
        raise UserError(
            f"{what} is {width} x {height} pixels, its photo {expected[0]} x {expected[1]}",
            "Pixels are compared one by one",
            "Make the pictures at the size that the run was trained at (its --resolution)",
        )


def difference(image: Tensor, photo: Tensor) -> Tensor:
    """The mean absolute difference over the channels as a grey image, three times as bright so that small ones show."""
    grey = (image.int() - photo.int()).abs().float().mean(-1, keepdim=True) * 3
    return grey.clamp(0, 255).to(torch.uint8).expand(-1, -1, 3)
