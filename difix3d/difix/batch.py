"""Many images at once: which is fixed, beside which reference, and where the result goes."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np

from difix3d.errors import UserError
from difix3d.formats import IMAGES
from difix3d.images import read_image, resize, strip
from difix3d.video import WRITTEN


@dataclass(frozen=True)
class Job:
    """One image to fix."""

    source: Path
    target: Path
    reference: Path | None


def plan(
    source: Path, output: Path, ref: Path | None = None, *, nearest: bool = False, skip_bad: bool = False
) -> tuple[list[Job], list[str]]:
    """One job for each image, and why some images have none.

    Args:
        source: an image, or a folder with its subfolders.
        output: the image to write, or the folder.
        ref: one reference for all images, or a folder of references.
        nearest: where no reference has an image's name, take the nearest one.
        skip_bad: leave out images without a reference, unless that is all.

    Raises:
        UserError: there is no image, an image would be written over itself, or has no reference.
    """
    if source.is_dir():
        found = (path for path in source.rglob("*") if path.suffix.lower() in IMAGES)
        sources = sorted(path for path in found if output == source or output not in path.parents)
        targets = [output / path.relative_to(source) for path in sources]
    else:
        sources = [source]
        targets = [output if output.suffix.lower() in IMAGES else output / source.name]
    if not sources or sources[0].suffix.lower() not in IMAGES:
        raise UserError(
            f"There is no image in {source}",
            f"Images end in {', '.join(sorted(IMAGES | WRITTEN))}",
            "Check the path",
        )
    if sources[0].resolve() == targets[0].resolve():
        raise UserError(f"{output} is the input itself", "", "Choose another --output")
    if ref is None:
        return [Job(image, target, None) for image, target in zip(sources, targets, strict=True)], []
    references = list_references(ref)
    chosen = {image: choose(image, references, nearest or ref.is_file()) for image in sources}
    missing = [image for image in sources if chosen[image] is None]
    if missing and (len(missing) == len(sources) or not skip_bad):
        raise UserError(
            f"{len(missing)} of {len(sources)} images have no reference, first {missing[0]}",
            f"{ref} holds {len(references)} images, but none of that name",
            "Add it, pass --nearest to take the one of the nearest name, or --skip-bad",
        )
    pairs = zip(sources, targets, strict=True)
    jobs = [Job(image, target, chosen[image]) for image, target in pairs if chosen[image] is not None]
    return jobs, [f"{image}: no reference of its name in {ref}" for image in missing]


def list_references(ref: Path) -> list[Path]:
    """The image, or the folder's images in order."""
    if ref.is_file():
        return [ref]
    found = sorted(path for path in ref.rglob("*") if path.suffix.lower() in IMAGES)
    if not found:
        raise UserError(f"There is no reference image in {ref}", "", "Pass --ref IMAGE or --ref FOLDER")
    return found


def choose(source: Path, references: Sequence[Path], nearest: bool) -> Path | None:
    """The reference with the source's name, whatever the suffix; or the nearest: first by number, then by letters."""
    same = [reference for reference in references if reference.stem == source.stem]
    if same:
        return max(same, key=lambda reference: reference.parent.name == source.parent.name)
    if not nearest:
        return None

    def distance(reference: Path) -> tuple[float, float]:
        numbers = [re.findall(r"\d+", path.stem) for path in (source, reference)]
        apart = float(abs(int(numbers[0][-1]) - int(numbers[1][-1]))) if all(numbers) else float("inf")
        return apart, -SequenceMatcher(None, source.stem, reference.stem).ratio()

    return min(references, key=distance)


def readable(jobs: Sequence[Job]) -> tuple[list[Job], list[str]]:
    """Decodes all images before any work is done: the jobs that can be done, and what is wrong with the others."""

    def fault(path: Path) -> str | None:
        try:
            read_image(path)
        except UserError as error:
            return error.fact
        return None

    paths = {path for job in jobs for path in (job.source, job.reference) if path is not None}
    with ThreadPoolExecutor() as pool:
        faults = dict(zip(paths, pool.map(fault, paths), strict=True))
    bad = {job.source: faults[job.source] or (job.reference and faults[job.reference]) for job in jobs}
    return [job for job in jobs if not bad[job.source]], [fault for fault in bad.values() if fault]


def open_video(path: Path) -> tuple[Any, int, float]:
    """A reader of the video's frames, how many there are, and frames per second.

    Raises:
        UserError: it cannot be read.
    """
    import imageio.v2 as imageio

    try:
        reader: Any = imageio.get_reader(path, "ffmpeg")
        return reader, reader.count_frames(), reader.get_meta_data()["fps"]
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else "no video in it"
        raise UserError(f"The video {path} cannot be read ({reason})") from None


def side_by_side(image: np.ndarray, reference: np.ndarray | None, fixed: np.ndarray) -> np.ndarray:
    """Input, reference (if any) and result from left to right, at the input's height."""
    height = image.shape[0]
    pictures = [image, fixed]
    if reference is not None:
        pictures.insert(1, resize(reference, round(reference.shape[1] * height / reference.shape[0]), height))
    return strip(pictures)


def beside(target: Path, output: Path) -> Path:
    """Where the comparison goes: ``clean_compare/0001.png`` for ``clean/0001.png``, ``a_compare.png`` for ``a.png``."""
    if target == output:
        return target.with_name(f"{target.stem}_compare{target.suffix}")
    return output.with_name(f"{output.name}_compare") / target.relative_to(output)
