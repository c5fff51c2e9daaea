"""A benchmark's scenes on this machine: found or downloaded, and split as it says.

Splits that ``TrainConfig.split`` has no name for are written as lists of photos into the benchmark's folder, so that
anybody can see, keep and use them (``--split file:PATH``):

- patterns: ``{train: [frame_?????.*], eval: [frame_1_*]}``, by file name;
- ``cluster``: the cameras' positions in two clusters (k-means, started from the two cameras that are farthest apart);
  the larger one is trained on, the other held out. So the held-out cameras stand somewhere else.
"""

import os
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

from difix3d.benchmark.config import Benchmark
from difix3d.download import SCENES
from difix3d.errors import UserError
from difix3d.files import write_json
from difix3d.scene.load import find_source, read_capture
from difix3d.synthetic import parse


def source(benchmark: Benchmark, scene: str) -> str:
    """What ``TrainConfig.scene`` is for one of its scenes."""
    return benchmark.folder.format(scene=scene)


def split_file(benchmark: Benchmark, scene: str, output_dir: Path) -> Path | None:
    """Where the lists of a scene's split are written; ``None`` if its split has a name."""
    named = isinstance(benchmark.split, str) and benchmark.split != "cluster"
    return None if named else output_dir.resolve() / "splits" / f"{scene}.json"


def prepare(benchmark: Benchmark, data_dir: Path, output_dir: Path) -> None:
    """Makes sure that all scenes are there, downloads those that can be, and writes their splits.

    Raises:
        UserError: scenes are missing and cannot be downloaded, or a split leaves nothing to train on or to evaluate.
    """
    sources = {scene: source(benchmark, scene) for scene in benchmark.scenes}
    missing = [scene for scene, place in sources.items() if not _obtainable(place, data_dir)]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(sources)} scenes of {benchmark.name} are missing, first {missing[0]}",
            f"It belongs at {data_dir / sources[missing[0]]}",
            f"{benchmark.obtain.strip()} Or choose from those that are there by --scenes".strip(),
        )
    for scene, place in sources.items():
        path, file = find_source(place, data_dir), split_file(benchmark, scene, output_dir)
        if file is not None and not file.exists():
            model = {**benchmark.train, **(benchmark.scenes[scene] or {})}.get("model")
            _write_split(benchmark.split, path, data_dir, file, Path(model) if model else None)


def _obtainable(place: str, data_dir: Path) -> bool:
    found = Path(os.path.expanduser(place)).exists() or (data_dir / place).exists()
    return found or place in SCENES or parse(place) is not None


def _write_split(split: str | dict[str, list[str]], path: Path, data_dir: Path, file: Path, model: Path | None) -> None:
    capture = read_capture(path, data_dir, model=model)
    if isinstance(split, str):
        train = larger_cluster(capture.c2w[:, :3, 3])
        lists = {
            "train": [name for name, inside in zip(capture.names, train, strict=True) if inside],
            "eval": [name for name, inside in zip(capture.names, train, strict=True) if not inside],
        }
    else:
        lists = {key: [name for name in capture.names if _fits(name, split[key])] for key in ("train", "eval")}
    for key, names in lists.items():
        if not names:
            raise UserError(
                f"No photo of {path} is in {key!r} of the split {split}",
                f"Its {len(capture.names)} photos have names like {capture.names[0]!r}",
                "Check that the scene is complete, or change the benchmark's split",
            )
    write_json(file, lists)


def _fits(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name.rsplit("/", 1)[-1], pattern) for pattern in patterns)


def larger_cluster(positions: Float[np.ndarray, "N 3"]) -> Bool[np.ndarray, "N"]:
    """Which of N >= 2 points are in the larger of two k-means clusters; on a tie, the one with the first point."""
    distance = cdist(positions, positions)
    ends = np.unravel_index(int(distance.argmax()), distance.shape)
    _, label = kmeans2(positions, positions[list(ends)], minit="matrix")
    same = label == label[0]
    return same if 2 * same.sum() >= len(same) else ~same
