"""What a benchmark consists of, and its YAML file."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from difix3d.errors import UserError
from difix3d.training.configfile import merge, read_yaml


@dataclass(frozen=True)
class Benchmark:
    """Scenes, methods and seeds, and how each of them is trained and measured.

    Attributes:
        name: of the data set, for titles.
        scenes: by name, what is different for the scene (keys of ``TrainConfig``).
        methods: by name, what makes the method: differences that nothing else overrides.
        train: differences from the preset ``standard`` for all runs.
        split: as ``TrainConfig.split``; or ``cluster``; or lists ``train`` and ``eval`` of patterns of photo names
            (:mod:`difix3d.benchmark.scenes`).
        folder: a scene's folder below the data folder (or what else ``TrainConfig.scene`` takes), by its name.
        obtain: how to get scenes that are missing.
        seeds: of the runs.
        evaluate: options of ``difix3d evaluate``, by name (``metrics``, ``masked``).
        surface: if given, what makes one more run for each scene, trained first, that all others of the scene take as
            ``difix3d evaluate --surface``.
        published: what others report, printed under the table.
    """

    name: str
    scenes: dict
    methods: dict
    train: dict = field(default_factory=dict)
    split: str | dict = "auto"
    folder: str = "{scene}"
    obtain: str = ""
    seeds: tuple[int, ...] = (0,)
    evaluate: dict = field(default_factory=dict)
    surface: dict = field(default_factory=dict)
    published: str = ""

    def choose(self, scenes: Sequence[str] = (), methods: Sequence[str] = (), seeds: Sequence[int] = ()) -> "Benchmark":
        """The part with these scenes, methods and seeds; where none are named, all.

        Raises:
            UserError: a name that is not in it, with the nearest that is.
        """
        return replace(
            self,
            scenes=_pick(self.scenes, scenes, f"{self.name} has no scene"),
            methods=_pick(self.methods, methods, f"{self.name} has no method"),
            seeds=tuple(dict.fromkeys(seeds)) or self.seeds,
        )


def _pick(known: dict[str, Any], wanted: Iterable[str], fact: str) -> dict[str, Any]:
    wanted = list(wanted) or list(known)
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UserError(
                f"{fact} {name!r}",
                "" if near else f"It has {', '.join(known) or 'none'}",
                f"Did you mean {near[0]}?" if near else "",
            )
    return {name: known[name] for name in wanted}


def find_benchmark(name: str) -> Path:
    """A YAML file, or the name of one in ``configs/benchmarks``, here or among those that come with the program."""
    package = Path(__file__).parents[1]
    folders = [folder / "benchmarks" for folder in (Path("configs"), package / "configs", package.parent / "configs")]
    paths = [Path(name), *(folder / f"{name}.yaml" for folder in folders)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
        raise UserError(f"There is no benchmark {name!r}", "", f"Give a YAML file or one of {', '.join(known)}")
    return path


def read_benchmark(path: Path, data_dir: Path) -> Benchmark:
    """Reads a benchmark's file.

    ``scenes`` may be a list of names, a mapping of names to differences, or ``all``: every folder in the data folder.

    Raises:
        UserError: it cannot be read, a key is unknown, or something is missing.
    """
    values = read_yaml(path)
    missing = [key for key in ("name", "scenes", "methods") if not values.get(key)]
    if missing:
        raise UserError(f"{path} has no {' and no '.join(missing)}", "A benchmark has a name, scenes and methods")
    scenes, split = values["scenes"], values.pop("split", "auto")
    if scenes == "all":
        scenes = _folders(data_dir)
    if isinstance(scenes, list):
        scenes = dict.fromkeys(map(str, scenes))
    for key, group in (("scenes", scenes), ("methods", values["methods"])):
        if not isinstance(group, dict) or not all(isinstance(item, dict | None) for item in group.values()):
            raise UserError(f"{path} sets {key} to {group!r}", "It maps names to differences (a mapping, or nothing)")
        values[key] = {str(name): item or {} for name, item in group.items()}
    if not (isinstance(split, str) or (isinstance(split, dict) and {"train", "eval"} == split.keys())):
        raise UserError(f"{path} sets split to {split!r}", "It is a name, or has the lists train and eval")
    empty = Benchmark("", {}, {}, split=split)
    return merge(empty, values, source=str(path))


def _folders(data_dir: Path) -> list[str]:
    found = sorted(path.name for path in data_dir.iterdir() if path.is_dir()) if data_dir.is_dir() else []
    scenes = [name for name in found if not name.startswith(".") and not name.endswith(".partial")]
    if not scenes:
        raise UserError(f"There are no scenes in {data_dir}", "Each folder in it is one", "Choose another --data-dir")
    return scenes
