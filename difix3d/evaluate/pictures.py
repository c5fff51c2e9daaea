"""Pictures of views whose photos are known: drawn by a model, or taken over from another program."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from difix3d.errors import UserError
from difix3d.evaluate.results import SetScore
from difix3d.formats import IMAGES
from difix3d.images import image_size, read_image, to_bytes, write_image
from difix3d.types import RenderFn, View

AHEAD = 8
"""Pictures that wait to be written, at most."""


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
        exported: folder below ``root`` of the same views as other viewers show the model, if they were drawn.
    """

    name: str
    root: Path
    place: str
    seconds: dict[str, float] = field(default_factory=dict)
    sets: dict[str, SetScore] = field(default_factory=dict)
    gaussians: int | None = None
    against: str | None = None
    exported: str | None = None

    def path(self, view: View) -> Path:
        """The picture of a photo's view."""
        return self.root / self.place / f"{view.place}.png"


def draw(render: RenderFn, views: Iterable[View], pictures: Pictures) -> None:
    """Renders the views into the pictures' folder, and notes the seconds of each."""
    with drawing(render, pictures) as draw_one:
        for view in views:
            draw_one(view)


@contextmanager
def drawing(
    render: RenderFn, pictures: Pictures, compare: Path | None = None
) -> Iterator[Callable[[View], UInt8[Tensor, "H W 3"]]]:
    """Within, what is yielded renders a view, notes its seconds and returns its picture, on the render's device, while
    threads write the last ones into the pictures' folder. All are there afterwards.

    Args:
        compare: if given, photo, render and difference beside each other are written there, too.
    """

    def write(view: View, image: Tensor, photo: Tensor | None) -> None:
        write_image(pictures.path(view), image)
        if compare is not None and photo is not None:
            write_image(compare / f"{view.place}.png", torch.cat([photo, image, difference(image, photo)], dim=1))

    with ThreadPoolExecutor(thread_name_prefix="write") as pool:
        writing: deque[Future[None]] = deque()

        def draw_one(view: View) -> Tensor:
            image, pictures.seconds[view.name] = shoot(render, view, pictures.name)
            if len(writing) >= AHEAD:
                writing.popleft().result()
            # copied in this thread: a GPU refuses others while a fixer records a graph
            photo = None if compare is None else target(view, "cpu")[0]
            writing.append(pool.submit(write, view, image.cpu(), photo))
            return image

        yield draw_one
        for done in writing:
            done.result()


def adopt(folder: Path, views: Iterable[View], pictures: Pictures, *, white: bool = False) -> None:
    """Copies another program's pictures, which are called like the photos (any suffix) or lie in their order.

    Args:
        white: put those with alpha over white; else over black.

    Raises:
        UserError: there are too few or too many, or one is not of its photo's size.
    """
    expected = list(views)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)
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
        write_image(pictures.path(view), read_image(path, white=white))


@torch.no_grad()
def shoot(render: RenderFn, view: View, who: str = "the model") -> tuple[UInt8[Tensor, "H W 3"], float]:
    """The picture of a view's camera, on the render's device, and the seconds that it took.

    Raises:
        UserError: it has NaN or infinite pixels, or is not of the photo's size; names ``who`` made it.
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
            f"{wrong:,} of {rgb[..., 0].numel():,} pixels that {who} rendered of {view.name} are NaN or infinite",
            "A metric of them would mean nothing",
            "The model or the fixer is damaged: choose an earlier checkpoint or other weights, or train again",
        )
    return to_bytes(rgb), seconds


def check_size(width: int, height: int, view: View, what: str) -> None:
    """Refuses a picture that is not of its photo's size; nothing is resized silently."""
    expected = view.image.shape[1], view.image.shape[0]
    if (width, height) != expected:
        raise UserError(
            f"{what} is {width} x {height} pixels, its photo {expected[0]} x {expected[1]}",
            "Pixels are compared one by one",
            "Make the pictures at the size that the run was trained at (its --resolution)",
        )


def target(view: View, device: torch.device | str) -> tuple[UInt8[Tensor, "H W 3"], Bool[Tensor, "H W"] | None]:
    """The photo of a view as pictures are compared with it on a device, and which of its pixels count (``None``:
    all)."""
    return there(to_bytes(view.image), device), None if view.mask is None else there(view.mask, device)


def there(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device; the host does not wait for a GPU that gets it, only for one that gives it."""
    return tensor.to(device, non_blocking=torch.device(device).type == "cuda")


def difference(image: Tensor, photo: Tensor) -> Tensor:
    """The mean absolute difference over the channels as a grey image, three times as bright so that small ones show."""
    grey = (image.int() - photo.int()).abs().float().mean(-1, keepdim=True) * 3
    return grey.clamp(0, 255).to(torch.uint8).expand(-1, -1, 3)
