"""Curates pairs from scenes: every scene by every strategy, each a part that appears whole or not at all."""

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from difix3d.console import Bar, console
from difix3d.curation.collect import BAD, FORMERLY, PART, WORK, clear, finished, part_folder, write_part
from difix3d.curation.pairs import make_pairs
from difix3d.curation.recipe import Recipe
from difix3d.curation.strategies import FEWEST, STRATEGIES, NotForThisScene, chosen_strategies
from difix3d.curation.trainings import SceneTrainings
from difix3d.devices import Device
from difix3d.errors import UserError
from difix3d.files import write_text
from difix3d.limits import check_limits
from difix3d.scene import load_scene


def curate(
    scenes: Sequence[str],
    folder: Path,
    recipe: Recipe,
    *,
    strategies: Sequence[str] = tuple(STRATEGIES),
    data_dir: Path = Path("data"),
    device: Device = "auto",
    rank: int = 0,
    ranks: int = 1,
    skip_bad: bool = False,
) -> None:
    """Makes the parts that are not there yet; started again, it goes on.

    Args:
        scenes: as ``load_scene`` takes them.
        folder: of the data set.
        recipe: settings of all parts.
        strategies: names in :data:`STRATEGIES`.
        data_dir: where downloaded and generated scenes lie.
        device: ``auto``, ``cuda`` or ``cpu``.
        rank, ranks: of this process, and how many there are: it does every ``ranks``-th scene from the ``rank``-th on.
        skip_bad: leave out scenes that cannot be used, instead of stopping there.

    Raises:
        UserError: what is wrong with an option or, without ``skip_bad``, a scene; a finished part had another recipe.
    """
    check_limits(recipe)
    names = name_scenes(scenes)
    chosen = chosen_strategies(strategies)
    with Bar("curate", shown=rank == 0) as bar:
        for name, source in list(names.items())[rank::ranks]:
            todo = [strategy for strategy in chosen if not finished(folder, recipe, name, source, strategy)]
            if not todo:
                console.print(f"{name}: finished already")
                continue
            try:
                clear(folder, name)
                _curate_scene(source, name, folder, recipe, todo, data_dir, device, bar)
            except BadScene as bad:
                if not skip_bad:
                    raise UserError(
                        f"The scene {source} cannot be curated: {bad.error.fact}",
                        bad.error.limit,
                        f"{bad.error.cure or 'Correct it'}, or leave such scenes out by --skip-bad",
                    ) from bad.error
                write_text(folder / name / BAD, str(bad.error))
                console.print(f"{name}: left out: {bad.error}")
            except OSError as error:
                raise UserError(
                    f"Curating {source} into {folder} failed ({error})",
                    "",
                    "Free some space, or choose another --output-dir; what is finished is kept",
                ) from error


class BadScene(Exception):
    """A scene that cannot be loaded; other errors, like a full disk, are not its fault."""

    def __init__(self, error: UserError):
        self.error = error


def _curate_scene(
    source: str, name: str, folder: Path, recipe: Recipe, todo: list[str], data_dir: Path, device: Device, bar: Bar
) -> None:
    try:
        resolution = recipe.training(device).resolution
        scene = load_scene(
            source,
            data_dir=data_dir,
            split=recipe.split,
            resolution=resolution,
            seed=recipe.seed,
            model=recipe.model,
        )
        if len(scene.train) < FEWEST:
            raise UserError(f"It has {len(scene.train)} photos", f"{FEWEST} are needed")
    except UserError as error:
        raise BadScene(error) from error
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=WORK, dir=home) as work:

        def on_progress(what: str, done: int, total: int) -> None:
            bar.update(done, title=f"{name} {strategy}: {what}", total=total)

        trainings = SceneTrainings(scene, recipe, device, Path(work), on_progress)
        for strategy in todo:
            partial, filtered = Path(work) / strategy, Counter[str]()
            partial.mkdir()
            key = f"{name}/{FORMERLY.get(strategy, strategy)}"
            rng = np.random.default_rng([recipe.seed, zlib.crc32(key.encode())])
            pairs, why = [], ""
            try:
                models = STRATEGIES[strategy](trainings, rng)
                pairs = list(make_pairs(trainings, models, home, partial, strategy, filtered))
            except NotForThisScene as error:
                why = str(error)
            facts = {"source": source, "recipe": asdict(recipe), "filtered": filtered, "left_out": why}
            write_part(partial, home / strategy, {**facts, "pairs": [pair.to_dict() for pair in pairs]})
            console.print(f"{name} {strategy}: {why or summary(len(pairs), filtered)}")


def summary(pairs: int, filtered: Counter[str]) -> str:
    """``12 pairs, 3 too good left out``."""
    left_out = [f"{count} {kind.replace('_', ' ')} left out" for kind, count in sorted(filtered.items())]
    return ", ".join([f"{pairs} pairs", *left_out])


def name_scenes(sources: Sequence[str]) -> dict[str, str]:
    """What each source's folder in the data set is called: the last part of its name.

    Raises:
        UserError: two sources have one name.
    """
    names: dict[str, str] = {}
    for source in sources:
        path = Path(source)
        name = (path.stem if path.suffix else path.resolve().name).replace(":", "-").replace(" ", "_")
        if names.setdefault(name, str(path)) != str(path):
            raise UserError(
                f"{names[name]} and {path} have the same name",
                "Scenes are told apart by the last part of their paths",
                "Rename one of them, or curate it into another --output-dir",
            )
    return names


def missing_parts(scenes: Sequence[str], folder: Path, strategies: Sequence[str]) -> list[str]:
    """What is not finished yet, as SCENE/STRATEGY: other processes may be at it."""
    return [
        f"{name}/{strategy}"
        for name in name_scenes(scenes)
        for strategy in chosen_strategies(strategies)
        if not (folder / name / BAD).is_file() and not (part_folder(folder, name, strategy) / PART).is_file()
    ]
