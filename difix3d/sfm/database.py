"""COLMAP's database for one set of photos: features, matches, and the models made of these, by pycolmap."""

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import UInt8

from difix3d.console import Bar, console
from difix3d.formats import turned
from difix3d.geometry.panorama import EQUIRECTANGULAR
from difix3d.sfm.listing import Header, read_header
from difix3d.sfm.pairs import Pairs


class Colmap:
    """A database of features and matches, and what is made of it. The photos' names there are their numbers."""

    def __init__(self, database: Path, photos: Path, names: list[str], seed: int):
        import pycolmap

        self._pycolmap = pycolmap
        self._database = database
        self._photos = photos
        self._names = names
        self._seed, self._matched = seed, set[tuple[int, int]]()

    def extract(self, groups: list[list[int]], panoramas: list[list[int]], *, sensitive: bool) -> None:
        """Finds features; photos of one group share a camera, those that are alone have one each.

        Args:
            groups: of photos, which get OPENCV cameras.
            panoramas: groups of 360 photos.
            sensitive: find more.
        """
        pycolmap = self._pycolmap
        options = pycolmap.FeatureExtractionOptions()
        if sensitive:
            options.sift.peak_threshold /= 4
            options.sift.max_num_features *= 2
        alone = [group[0] for group in groups if len(group) == 1]
        batches = [(batch, -1, "OPENCV") for batch in _batches(alone)]
        batches += [(batch, group[0], "OPENCV") for group in groups if len(group) > 1 for batch in _batches(group)]
        batches += [(batch, group[0], EQUIRECTANGULAR) for group in panoramas for batch in _batches(group)]
        done = 0
        with progress(f"finding {'more ' * sensitive}features in {len(self._names)} photos", len(self._names)) as bar:
            for batch, first, model in batches:
                names = [self._names[number] for number in batch]
                reader = pycolmap.ImageReaderOptions(camera_model=model, existing_camera_id=self._camera(first))
                pycolmap.extract_features(
                    self._database,
                    self._photos,
                    image_names=names,
                    camera_mode=_camera_mode(pycolmap, self._photos, names),
                    reader_options=reader,
                    extraction_options=options,
                )
                done += len(batch)
                bar.update(done)

    def _camera(self, photo: int) -> int:
        """The id of a photo's camera, -1 if there is none yet."""
        if photo < 0 or not self._database.exists():
            return -1
        with self._pycolmap.Database.open(self._database) as database:
            image = database.read_image_with_name(self._names[photo])
            return -1 if image is None else image.camera_id

    def descriptors(self) -> list[UInt8[np.ndarray, "_ D"]]:
        """Of each photo's features, 128 bytes each; none for a photo that could not be read."""
        with self._pycolmap.Database.open(self._database) as database:
            images = {image.name: image.image_id for image in database.read_all_images()}
            none = np.zeros((0, 128), np.uint8)
            return [database.read_descriptors(images[n]).data if n in images else none for n in self._names]

    def match(self, pairs: Pairs) -> int:
        """Matches the pairs that were not matched before; returns how many these are.

        It is done bit by bit: COLMAP says nothing while it matches, and cannot be interrupted.
        """
        new = sorted(pairs - self._matched)
        self._matched |= pairs
        lists = self._database.with_suffix(".txt")
        at, size = 0, 64
        verification = self._pycolmap.TwoViewGeometryOptions()
        verification.ransac.random_seed = self._seed
        with progress(f"matching {len(new)} pairs of photos", len(new)) as bar:
            while at < len(new):
                begin = time.perf_counter()
                lines = [f"{self._names[i]} {self._names[j]}\n" for i, j in new[at : at + size]]
                lists.write_text("".join(lines), encoding="utf-8")
                self._pycolmap.match_image_pairs(
                    self._database,
                    pairing_options=self._pycolmap.ImportedPairingOptions(match_list_path=lists),
                    verification_options=verification,
                )
                at += len(lines)
                bar.update(at)
                size = 2 * size if time.perf_counter() - begin < 2 else size
        return len(new)

    def incremental(self) -> list[Any]:
        """Models, one photo after the other."""
        with progress("finding the cameras", len(self._names)) as bar, self._output() as out:
            placed = iter(range(3, len(self._names) + 1))
            options = self._pycolmap.IncrementalPipelineOptions(random_seed=self._seed)
            with suppress(RuntimeError, ValueError):  # nothing was found; another way may do
                return list(
                    self._pycolmap.incremental_mapping(
                        self._database, self._photos, out, options=options,
                        next_image_callback=lambda: bar.update(next(placed, len(self._names))),
                    ).values()
                )  # fmt: skip
        return []

    def globally(self) -> list[Any]:
        """Models, all photos at once (Pan et al., "Global Structure-from-Motion Revisited", ECCV 2024)."""
        with progress("finding the cameras globally"), self._output() as out, suppress(RuntimeError, ValueError):
            copy = out / "database.db"  # focal lengths are changed in it
            shutil.copy(self._database, copy)
            self._pycolmap.calibrate_view_graph(copy)
            options = self._pycolmap.GlobalPipelineOptions(random_seed=self._seed)
            return list(self._pycolmap.global_mapping(copy, self._photos, out, options=options).values())
        return []

    @contextmanager
    def _output(self) -> Iterator[Path]:
        with TemporaryDirectory(dir=self._database.parent) as out:
            yield Path(out)


def _batches(numbers: Sequence[int]) -> list[Sequence[int]]:
    """Enough for all processors, and few enough to see them pass."""
    size = max(16, 4 * (os.cpu_count() or 1))
    return [numbers[at : at + size] for at in range(0, len(numbers), size)]


def by_camera(names: list[str], headers: list[Header]) -> list[list[int]]:
    """The photos' numbers by the camera that took them: its folder, upright size, and focal length if EXIF has it."""
    groups = defaultdict(list)
    for number, (name, header) in enumerate(zip(names, headers, strict=True)):
        groups[os.path.dirname(name), turned(header.size, header.turn), header.focal].append(number)
    return list(groups.values())


def _camera_mode(pycolmap: Any, root: Path, names: list[str]) -> Any:
    """One camera for all photos if they are of one kind, else one each."""
    groups = by_camera(names, [read_header(root / name) for name in names])
    return pycolmap.CameraMode.SINGLE if len(groups) == 1 else pycolmap.CameraMode.PER_IMAGE


@contextmanager
def progress(text: str, total: int | None = None) -> Iterator[Bar]:
    """A bar on a terminal, one line at the start elsewhere."""
    if not console.is_terminal:
        console.print(text)
    with Bar(text, total) as bar:
        yield bar
