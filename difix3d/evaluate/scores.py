"""How good is a model: renders of views whose photos are known, their metrics, and pictures to look at."""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

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
        folder: if given, ``renders/NAME.png`` and ``compare/NAME.png`` (photo, render, difference) are written there.
    """
    scores = []
    for view in views:
        start = time.perf_counter()
        rgb = render(view.camera).rgb[0]
        if rgb.is_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        image, photo = (torch.from_numpy(to_uint8(pixels)) for pixels in (rgb, view.image))
        mask = None if view.mask is None else view.mask.cpu()
        scores.append(ImageScore(view.name, psnr(image, photo, mask), ssim(image, photo, mask), seconds))
        if folder is not None:
            name = str(Path(view.name).with_suffix(".png"))
            write_image(folder / "renders" / name, image)
            write_image(folder / "compare" / name, torch.cat([photo, image, difference(image, photo)], dim=1))
    return Evaluation(split, tuple(scores))


def difference(image: torch.Tensor, photo: torch.Tensor) -> torch.Tensor:
    """The mean absolute difference over the channels as a grey image, three times as bright so that small ones show."""
    grey = (image.int() - photo.int()).abs().float().mean(-1, keepdim=True) * 3
    return grey.clamp(0, 255).to(torch.uint8).expand(-1, -1, 3)
