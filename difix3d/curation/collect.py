"""The folder of a data set: parts (scene x strategy) that appear whole, and the files that list them all.

::

    dataset.json               {"train": {id: {image, target_image, ref_image, prompt}}, "test": {...}}
    split.json                 which scenes (or photos of the only scene) are in which
    card.json, card.csv        what is known about each pair
    SCENE/photos/00012.png     true photos, as targets and references
    SCENE/STRATEGY/00003.png   renders, with part.json
"""

import csv
import io
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from difix3d.curation.recipe import Recipe
from difix3d.errors import UserError
from difix3d.files import claim, read_json, write_json, write_text

PART = "part.json"
WORK = ".work-"
"""What the names of folders begin with that parts are made in."""
BAD = "bad.txt"
"""In the folder of a scene that was left out: why."""
BEFORE = {"plain": True}
"""What options were in effect before they existed."""
COLUMNS = (
    "id",
    "split",
    "scene",
    "strategy",
    "step",
    "psnr",
    "lpips",
    "distance",
    "detail",
    "photo",
    "image",
    "target_image",
    "ref_image",
    "alpha_image",
    "warp_image",
)
FORMERLY = {"cluster": "apart", "too_bad": "hopeless", "too_good": "perfect"}
"""What strategies and counts were called before; folders from then have the old names, and seeds keep them."""
LISTS = ("ref_image", "warp_image")
"""Columns that hold several files."""


@dataclass(frozen=True)
class Curated:
    """A data set as it lies on disk.

    Attributes:
        folder: its own.
        card: the data card's pairs: ids, and all that :data:`COLUMNS` name.
        counts: for each strategy its ``pairs``, and how many were ``too_bad`` or ``too_good`` to be pairs.
        left_out: why there is nothing of a scene, or of a strategy in it.
    """

    folder: Path
    card: dict[str, dict[str, Any]]
    counts: dict[str, dict[str, int]]
    left_out: dict[str, str]


def finished(folder: Path, recipe: Recipe, scene: str, source: str, strategy: str) -> bool:
    """Whether a part is there.

    Raises:
        UserError: it is, but was made of something else, or by another recipe.
    """
    path = part_folder(folder, scene, strategy) / PART
    if not path.is_file():
        return False
    part, asked = read_json(path), json.loads(json.dumps(asdict(recipe)))
    if part.get("source") != source:
        raise UserError(
            f"{path.parent} was made of {part.get('source')}, not of {source}",
            "Scenes are told apart by the names of their folders",
            "Rename one of them, or choose another --output-dir",
        )
    given = BEFORE | part.get("recipe", {})
    other = {key: given.get(key) for key in asked if given.get(key) != asked[key]}
    if other:
        old = ", ".join(f"--{key.replace('_', '-')} {value}" for key, value in other.items())
        raise UserError(
            f"{path.parent} was curated with {old}",
            "A folder of pairs has one recipe",
            "Give the same options again, delete the folder, or choose another --output-dir",
        )
    return True


def part_folder(folder: Path, scene: str, strategy: str) -> Path:
    """Where a part lies or shall lie; a finished one may have its strategy's former name."""
    former = folder / scene / FORMERLY.get(strategy, strategy)
    return former if (former / PART).is_file() else folder / scene / strategy


def name_today(name: str) -> str:
    """What a strategy or a count of an older folder is called now."""
    return next((now for now, former in FORMERLY.items() if former == name), name)


def write_part(partial: Path, target: Path, part: dict[str, Any]) -> None:
    """Completes a part, and gives it its name."""
    write_json(partial / PART, part)
    os.replace(partial, target)


def assemble(folder: Path, *, test_share: float = 0.1, test_scenes: Sequence[str] = (), seed: int = 0) -> Curated:
    """Lists all parts in ``dataset.json``, ``split.json``, ``card.json`` and ``card.csv``.

    With several scenes, whole scenes are held out; those of an earlier ``split.json`` stay where they are. With one,
    its last photos are.

    Args:
        folder: of the data set; all its parts are finished.
        test_share: of the scenes or photos, at least one unless it is 0.
        test_scenes: names of scenes, instead.
        seed: of the drawing of scenes.

    Raises:
        UserError: there is not one pair, ``test_scenes`` names no scene of the data set, or files cannot be written.
    """
    parts = {tuple(path.parts[-3:-1]): read_json(path) for path in sorted(folder.glob(f"*/*/{PART}"))}
    counts: dict[str, dict[str, int]] = {}
    left_out = {path.parent.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob(f"*/{BAD}"))}
    for (scene, strategy), part in parts.items():
        strategy = name_today(strategy)
        count = counts.setdefault(strategy, {"pairs": 0, "too_bad": 0, "too_good": 0})
        found = {name_today(key): number for key, number in part["filtered"].items()} | {"pairs": len(part["pairs"])}
        for key in count:
            count[key] += found.get(key, 0)
        if part["left_out"]:
            left_out[f"{scene}/{strategy}"] = part["left_out"]
    scenes = sorted({scene for (scene, _), part in parts.items() if part["pairs"]})
    if not scenes:
        too_bad, too_good = (sum(count[key] for count in counts.values()) for key in ("too_bad", "too_good"))
        raise UserError(
            f"There is no pair in {folder}: {too_bad} renders were too bad, {too_good} too good",
            "; ".join(f"{name}: {why}" for name, why in left_out.items()),
            "Change --psnr-min and --psnr-max, the strategies, or the scenes; and choose another --output-dir",
        )
    held_out = choose_test(folder / "split.json", scenes, parts, test_share, test_scenes, seed)
    card = _card(parts, held_out)
    data: dict[str, dict[str, Any]] = {"train": {}, "test": {}}
    prompts = {scene: part["recipe"]["prompt"] for (scene, _), part in parts.items()}
    for name, row in card.items():
        references = row["ref_image"]
        data[row["split"]][name] = {
            "image": row["image"],
            "target_image": row["target_image"],
            "ref_image": references[0] if len(references) == 1 else references,
            **{key: row[key] for key in ("alpha_image", "warp_image") if row.get(key)},
            "prompt": prompts[row["scene"]],
        }
    names = {split: sorted({row[held_out[0]] for row in card.values() if row["split"] == split}) for split in data}
    facts = {"recipe": next(iter(parts.values()))["recipe"], "strategies": counts, "left_out": left_out, "pairs": card}
    write_json(folder / "split.json", {"by": held_out[0], **names})
    write_json(folder / "card.json", facts)
    write_text(folder / "card.csv", _csv(card))
    write_json(folder / "dataset.json", data)  # last: with it, all is there
    return Curated(folder, card, counts, left_out)


def read_curated(folder: Path) -> Curated:
    """What :func:`assemble` wrote.

    Raises:
        UserError: there is no data set, or it is broken.
    """
    if not (folder / "dataset.json").is_file():
        raise UserError(f"There is no dataset.json in {folder}", "It is written when all is curated", "Curate it first")
    facts = read_json(folder / "card.json")
    lost = sorted({"pairs", "strategies", "left_out"} - facts.keys())
    if lost:
        raise UserError(f"{folder / 'card.json'} has no {', '.join(lost)}", "", "Curate again, which writes it anew")
    for row in facts["pairs"].values():
        row["strategy"] = name_today(row["strategy"])
    counts = {
        name_today(strategy): {name_today(key): value for key, value in count.items()}
        for strategy, count in facts["strategies"].items()
    }
    return Curated(folder, facts["pairs"], counts, facts["left_out"])


def choose_test(
    path: Path, scenes: list[str], parts: dict[Any, Any], share: float, asked: Sequence[str], seed: int
) -> tuple[str, set[str]]:
    """What is held out: ``scene`` and names of scenes, or ``photo`` and names of photos."""
    unknown = sorted(set(asked) - set(scenes))
    if unknown:
        raise UserError(
            f"--test-scenes names {', '.join(unknown)}", f"The scenes with pairs are {', '.join(scenes)}", "Correct it"
        )
    if asked:
        return "scene", set(asked)
    if len(scenes) == 1:
        photos = sorted({pair["photo"] for part in parts.values() for pair in part["pairs"]})
        count = max(1, round(share * len(photos))) if share > 0 else 0
        return "photo", set(photos[len(photos) - count :])
    before = read_json(path) if path.is_file() else {}
    known = before if before.get("by") == "scene" else {"train": [], "test": []}
    test = set(known["test"]) & set(scenes)
    fresh = np.random.default_rng(seed).permutation(sorted(set(scenes) - set(known["train"]) - test)).tolist()
    count = max(1, round(share * len(scenes))) if share > 0 else 0
    return "scene", test | set(fresh[: max(0, count - len(test))])


def _card(parts: dict[Any, Any], held_out: tuple[str, set[str]]) -> dict[str, dict[str, Any]]:
    """All pairs by their ids, paths relative to the data set."""
    by, names = held_out
    card = {}
    for (scene, strategy), part in parts.items():
        for pair in part["pairs"]:
            row = {"scene": scene, "strategy": name_today(strategy), **pair}
            row["split"] = "test" if row[by] in names else "train"
            for key in ("image", "target_image", "alpha_image"):
                row[key] = f"{scene}/{row[key]}" if row.get(key) else ""
            for key in LISTS:
                row[key] = [f"{scene}/{path}" for path in row.get(key, [])]
            card[f"{scene}_{strategy}_{Path(pair['image']).stem}"] = row
    return card


def _csv(card: dict[str, dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for name, row in card.items():
        writer.writerow({"id": name, **row, **{key: " ".join(row[key]) for key in LISTS}})
    return text.getvalue()


def clear(folder: Path, scene: str) -> None:
    """Makes a scene's folder, or removes what a broken-off run left in it; finished parts stay, with their photos.

    Raises:
        UserError: the folder is somebody else's, perhaps the scene's own.
    """
    home = folder / scene
    if not any(home.glob(f"*/{PART}")):
        claim(home)
        shutil.rmtree(home / "photos", ignore_errors=True)
    for left in home.glob(f"{WORK}*"):
        shutil.rmtree(left, ignore_errors=True)
    for left in (home / BAD, *home.glob("photos/.*")):
        left.unlink(missing_ok=True)
