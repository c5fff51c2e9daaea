"""Pairs of a bad render and the true photo, with reference photos: their JSON file, and batches of crops of them."""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from difix3d.difix.pipeline import PROMPT
from difix3d.difix_training.batch import Augmentation, Batch
from difix3d.errors import UserError
from difix3d.files import load_json
from difix3d.images import image_size, read_channels, read_image

SPLITS = ("train", "test")
AHEAD = 2
"""Batches that are read while the ones before are used."""


@dataclass(frozen=True)
class Pair:
    """Files of one pair; render, photo and guide (alpha, layers of warped references) have one size, references any."""

    id: str
    image: Path
    target: Path
    references: tuple[Path, ...]
    prompt: str
    alpha: Path | None = None
    layers: tuple[Path, ...] = ()


def read_pairs(file: Path) -> dict[str, list[Pair]]:
    """The pairs of both splits, "train" and "test", of a JSON file in the published format.

    ``{"train": {id: {"image", "target_image", "ref_image", "prompt"}}, "test": {...}}``; paths are absolute or relative
    to the file's folder. ``ref_image`` is a path, a list or missing; ``prompt`` may be missing. Our own curation adds
    a guide if asked: ``alpha_image``, grey, and ``warp_image``, a list of RGBA files.

    Raises:
        UserError: the file cannot be read, or lacks a key: which, and of which pair.
    """
    try:
        content = load_json(file)
    except UserError as error:
        raise UserError(
            f"The pairs cannot be read: {error.fact}", "They are a JSON file", "Make one with difix3d curate"
        ) from error
    for split in SPLITS[: 1 + ("test" in content)]:
        if not isinstance(content, dict) or not isinstance(content.get(split), dict):
            raise UserError(f'{file} lacks the key "{split}"', 'It holds {"train": {ID: PAIR}, "test": {ID: PAIR}}')
    return {
        split: [_pair(file, split, name, entry) for name, entry in content.get(split, {}).items()] for split in SPLITS
    }


def _pair(file: Path, split: str, name: str, entry: Any) -> Pair:
    for key in ("image", "target_image"):
        if not isinstance(entry, dict) or not isinstance(entry.get(key), str):
            raise UserError(
                f'In {file} the {split} pair {name} lacks the key "{key}"',
                'A pair holds "image", "target_image", and perhaps "ref_image" and "prompt"',
            )
    references = entry.get("ref_image") or []
    references = [references] if isinstance(references, str) else references
    texts = [entry.get("prompt") or "", entry.get("alpha_image") or ""]
    lists = [references, entry.get("warp_image") or []]
    if not all(isinstance(part, list) for part in lists) or not all(
        isinstance(text, str) for part in (texts, *lists) for text in part
    ):
        raise UserError(
            f"In {file} the {split} pair {name} has a path or a prompt that is no text",
            "References and layers of warped ones are lists of paths",
        )
    folder = file.parent
    return Pair(
        id=name,
        image=folder / entry["image"],
        target=folder / entry["target_image"],
        references=tuple(folder / path for path in references),
        prompt=entry.get("prompt") or PROMPT,
        alpha=folder / entry["alpha_image"] if entry.get("alpha_image") else None,
        layers=tuple(folder / path for path in entry.get("warp_image") or ()),
    )


def usable(pairs: list[Pair], references: int, skip_bad: bool = False, layers: int = 0) -> tuple[list[Pair], list[str]]:
    """The pairs that can be trained on, and what is wrong with each of the others.

    Args:
        references: whether a pair needs any.
        layers: how many layers of warped references a pair needs.
        skip_bad: leave bad pairs out, and decode all images to find them; else only the files' headers are read.

    Raises:
        UserError: there is a bad pair, and ``skip_bad`` is off; or no good one is left.
    """
    with ThreadPoolExecutor(max(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(lambda pair: fault(pair, references, decode=skip_bad, layers=layers), pairs))
    faults = [text for text in found if text is not None]
    good = [pair for pair, text in zip(pairs, found, strict=True) if text is None]
    if faults and (not skip_bad or not good):
        raise UserError(
            faults[0], f"{len(faults)} of {len(pairs)} pairs are bad", "Put them right, or leave them out: --skip-bad"
        )
    return good, faults


def fault(pair: Pair, references: int, decode: bool = False, layers: int = 0) -> str | None:
    """What is wrong with a pair, if anything."""
    if layers and (pair.alpha is None or len(pair.layers) < layers):
        found = f"{'no' if pair.alpha is None else 'an'} alpha_image, and {len(pair.layers)} files in warp_image"
        return f"Pair {pair.id} has {found}; the network needs alpha and {layers} layers"
    same = [pair.image, pair.target, *guide_files(pair, layers)]
    used = pair.references if references else ()
    try:
        sizes = [image_size(path) for path in (*same, *used)]
        if decode:
            for path in (*same, *used):
                read_image(path)
    except UserError as error:
        return f"Pair {pair.id}: {error.fact}"
    for path, size in zip(same, sizes, strict=False):
        if size != sizes[0]:
            shapes = [f"{width} x {height}" for width, height in (sizes[0], size)]
            return f"Pair {pair.id}: {pair.image} has {shapes[0]} pixels, {path} has {shapes[1]}"
    if references and not used:
        return f"Pair {pair.id} has no ref_image, and --references is {references}"
    return None


def guide_files(pair: Pair, layers: int) -> list[Path]:
    """The alpha and the layers that a network takes; none if it takes no guide."""
    return [pair.alpha, *pair.layers[:layers]] if layers and pair.alpha is not None else []


class Crops:
    """Random crops of pairs: an endless sequence of samples, in which all follows from the seed and the number.

    Each pass over the pairs has an order of its own. Render, photo and references stay in register: all are scaled to
    one size (references of another shape cover it and lose their margins), then get the same window and the same
    mirroring, so that to each other they look as if taken by smaller cameras.
    """

    def __init__(
        self,
        pairs: list[Pair],
        resolution: tuple[int, int],
        *,
        references: int = 1,
        max_scale: float = 1.0,
        flip: bool = True,
        augment: Augmentation | None = None,
        layers: int = 0,
        seed: int = 0,
    ):
        self.pairs = pairs
        self.resolution = resolution
        self.references = references
        self.layers = layers
        self.max_scale = max_scale
        self.flip = flip
        self.seed = seed
        self.augment = augment or Augmentation()

    def __getitem__(self, number: int) -> Batch:
        """A batch of one pair."""
        turn, place = divmod(number, len(self.pairs))
        pair = self.pairs[_order(len(self.pairs), self.seed, turn)[place]]
        rng = np.random.default_rng((self.seed, number))
        scale = rng.uniform(1, self.max_scale)
        top = rng.random()
        left = rng.random()
        mirror = rng.random() < 0.5
        shown = [pair.references[i] for i in rng.permutation(len(pair.references))] if self.references else []
        window = _window(pair, self.resolution, scale, top, left)
        batch = _read(pair, shown, self.references, window, self.resolution, mirror and self.flip, self.layers)
        return self.augment(batch, rng)


def centre(pair: Pair, resolution: tuple[int, int], references: int = 1, layers: int = 0) -> Batch:
    """The central crop of a pair and of its first references, not mirrored: what validation looks at."""
    window = _window(pair, resolution, 1.0, 0.5, 0.5)
    return _read(pair, list(pair.references), references, window, resolution, mirror=False, layers=layers)


@lru_cache(maxsize=4)
def _order(count: int, seed: int, turn: int) -> np.ndarray:
    return np.random.default_rng((seed, turn, 1)).permutation(count)


def _window(
    pair: Pair, resolution: tuple[int, int], scale: float, top: float, left: float
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) that the pair is scaled to, and the first (row, column) of the crop in it.

    Args:
        top, left: place of the crop, 0..1 of the room there is.
    """
    size = _cover(image_size(pair.image), resolution, scale)
    height, width = resolution
    return size, (round(top * (size[1] - height)), round(left * (size[0] - width)))


def _cover(size: tuple[int, int], resolution: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
    """(width, height) of an image scaled until it covers ``scale`` times the (height, width) of a crop."""
    factor = scale * max(resolution[1] / size[0], resolution[0] / size[1])
    return max(ceil(size[0] * factor - 1e-6), resolution[1]), max(ceil(size[1] * factor - 1e-6), resolution[0])


def _read(
    pair: Pair,
    shown: list[Path],
    count: int,
    window: tuple[tuple[int, int], tuple[int, int]],
    resolution: tuple[int, int],
    mirror: bool,
    layers: int,
) -> Batch:
    """The crops of a pair; ``shown`` references are repeated where there are fewer than ``count``."""
    (width, height), (top, left) = window
    box = (slice(top, top + resolution[0]), slice(left, left + resolution[1]))
    try:
        views = [read_image(path, (width, height)) for path in (pair.image, pair.target)]
        views += [_fitted(shown[i % len(shown)], width, height) for i in range(count)]
        guide = [read_channels(path, (width, height)) for path in guide_files(pair, layers)]
    except UserError as error:
        raise UserError(f"Pair {pair.id}: {error.fact}", error.limit, "Leave bad pairs out by --skip-bad") from error
    tensors = []
    for view in [np.concatenate([views[0], *guide], 2), *views[1:]]:
        crop = view[box][:, ::-1] if mirror else view[box]
        tensors.append(torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 255)
    references = torch.stack(tensors[2:], 1) if count else tensors[1].new_zeros(1, 0, *tensors[1].shape[1:])
    return Batch(tensors[0], tensors[1], references, [pair.prompt])


def _fitted(path: Path, width: int, height: int) -> UInt8[np.ndarray, "H W 3"]:
    """An image scaled to cover the size, and its centre, as references are fitted when Difix runs."""
    wide, high = _cover(image_size(path), (height, width))
    wide, high = (
        (width if wide <= width + 1 else wide),
        (height if high <= height + 1 else high),
    )  # no more than rounding
    top, left = (high - height) // 2, (wide - width) // 2
    return read_image(path, (wide, high))[top : top + height, left : left + width]


def numbers(first: int, last: int, batch: int, rank: int = 0, processes: int = 1) -> Iterator[list[int]]:
    """The samples of each batch ``first`` to ``last`` of one process: together, processes see what one alone would."""
    for index in range(first, last):
        start = (index * processes + rank) * batch
        yield list(range(start, start + batch))


def stream(crops: Crops, groups: Iterable[list[int]], workers: int) -> Generator[Batch, None, None]:
    """Batches of samples, read by threads while the ones before are used."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[list[Any]] = deque()
        for group in groups:
            waiting.append([pool.submit(crops.__getitem__, number) for number in group])
            if len(waiting) > AHEAD:
                yield join([future.result() for future in waiting.popleft()])
        while waiting:
            yield join([future.result() for future in waiting.popleft()])


def join(batches: list[Batch]) -> Batch:
    """Batches as one."""
    return Batch(
        images=torch.cat([batch.images for batch in batches]),
        photos=torch.cat([batch.photos for batch in batches]),
        references=torch.cat([batch.references for batch in batches]),
        prompts=[prompt for batch in batches for prompt in batch.prompts],
    )
