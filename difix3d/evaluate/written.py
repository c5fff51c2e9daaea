"""Evaluations as files for papers and spreadsheets; the one for programs is ``evaluation.json``."""

from collections.abc import Callable
from pathlib import Path

from difix3d.evaluate.cells import to_csv
from difix3d.evaluate.results import RunEvaluation
from difix3d.evaluate.tables import Table
from difix3d.files import write_text


def write_table(total: Table, folder: Path) -> None:
    """Writes ``evaluation.csv``, ``.md`` and ``.tex``."""
    texts: dict[str, Callable[[], str]] = {"csv": total.csv, "md": total.markdown, "tex": total.latex}
    for suffix, text in texts.items():
        write_text(folder / f"evaluation.{suffix}", text())


def write_images(evaluation: RunEvaluation, path: Path) -> None:
    """One line for each variant and picture."""
    keys = list(dict.fromkeys(key for variant in evaluation.variants for image in variant.images for key in image))
    lines = [(v.name, *(image.get(key, "") for key in keys)) for v in evaluation.variants for image in v.images]
    write_text(path, to_csv([("variant", *keys), *lines]))
