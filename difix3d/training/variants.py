"""The rows of the paper's ablation, made from a run: plain renders, Difix on them, Difix3D, Difix3D+."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from difix3d.difix.load import load_fixer
from difix3d.errors import UserError
from difix3d.evaluate.measures import RenderFn
from difix3d.postrender import PostRender
from difix3d.scene import Views
from difix3d.training.load import Run
from difix3d.training.run import RunFolder
from difix3d.types import Fixer, View

Name = Literal["3dgs", "3dgs+difix", "difix3d", "difix3d+", "difix3d+paper"]
TITLES: dict[Name, str] = {
    "3dgs": "3DGS",
    "3dgs+difix": "3DGS + Difix",
    "difix3d": "Difix3D",
    "difix3d+": "Difix3D+",
    "difix3d+paper": "Difix3D+ (paper)",
}
BEFORE: dict[Name, Name] = {
    "3dgs+difix": "3dgs",
    "difix3d": "3dgs",
    "difix3d+": "difix3d",
    "difix3d+paper": "difix3d",
}
"""What each row set out from."""


@dataclass(frozen=True)
class AblationRow:
    """One way to render a run.

    Attributes:
        name, title: its key, and what the table calls it.
        render: a camera in, a picture out.
        gaussians: in the model.
        against: title of the row that it set out from, if that is there.
    """

    name: Name
    title: str
    render: RenderFn
    gaussians: int
    against: str | None


def load_models(
    path: Path, load: Callable[[Path, int | None], Run], step: int | None = None
) -> tuple[dict[Name, Run], dict[str, str]]:
    """The models of a run's folder by ``3dgs`` and ``difix3d``, and why one is left out.

    A run that no novel views were painted for (yet) is plain 3DGS; the one that ``--compare`` trains lies beside the
    other, in ``plain/``.

    Args:
        path: the run's folder.
        load: loads a run from its folder, at a step.
        step: of the checkpoints; the newest by default.

    Raises:
        UserError: what ``load`` raises, or a model is damaged.
    """
    run = _sound(load(path, step), path)
    if not any(row["step"] < run.step for row in RunFolder(path, run.scene).rows("rounds.json")):
        return {"3dgs": run}, {}
    plain = path / "plain"
    if not plain.is_dir():
        why = f"{path} has no plain run beside it; train with --compare, or give a run of plain 3DGS as well"
        return {"difix3d": run}, {TITLES["3dgs"]: why}
    try:
        return {"3dgs": _sound(load(plain, run.step), plain), "difix3d": run}, {}  # only equal steps can be compared
    except UserError as error:
        return {"difix3d": run}, {TITLES["3dgs"]: str(error)}


def _sound(run: Run, path: Path) -> Run:
    """The run, if its model is one: rasterisers would draw black, or nothing, where there are no numbers."""
    finite = [
        value.flatten(1).isfinite().all(1) if value.ndim > 1 else value.isfinite()
        for value in run.gaussians.as_dict().values()
    ]
    count = int((~torch.stack(finite).all(0)).sum())
    if count:
        raise UserError(
            f"{count:,} of {len(run.gaussians):,} Gaussians of {path} at step {run.step:,} hold no numbers (NaN)",
            "A metric of their pictures would mean nothing",
            "Choose an earlier checkpoint by --step, or train again",
        )
    return run


def choose_fixer(asked: str | None, run: Run) -> tuple[Fixer | None, str]:
    """The fixer that was asked for, or by default the run's own, and why there is none.

    Raises:
        UserError: the weights that were asked for cannot be had.
    """
    try:
        fixer: Any = load_fixer(asked or run.config.fixer, run.gaussians.device, run.config.distill.references)
    except UserError as error:
        if asked is not None:
            raise
        return None, str(error)
    if fixer is not None:
        fixer.offload = False  # nothing trains beside it, and moving it for each frame would be timed
    return fixer, ""


def choose_rows(
    models: dict[Name, Run], fixer: Fixer | None, asked: Sequence[Name] | None, why: str
) -> tuple[list[AblationRow], dict[str, str]]:
    """The rows that models and fixer allow, in the table's order, and reasons for those that they do not.

    Args:
        models: by ``3dgs`` and ``difix3d``.
        asked: the rows that are wanted; by default all.
        why: the reason if there is no fixer though there should be one.
    """
    renders: dict[Name, RenderFn] = {}
    first = next(iter(models.values()))
    photo = Views(first.scene, first.gaussians.device).__getitem__  # decoded once for all
    for name, model in models.items():
        renders[name] = model.render
        if fixer is not None and name == "3dgs":
            renders["3dgs+difix"] = plus(model, fixer, photo, trust=False)
        elif fixer is not None:
            renders["difix3d+"] = plus(model, fixer, photo, trust=True)
            renders["difix3d+paper"] = plus(model, fixer, photo, trust=False)
    wanted = [name for name in TITLES if name in (renders if asked is None else asked)]
    rows = []
    for name in wanted:
        if name in renders:
            model = models["3dgs" if name.startswith("3dgs") else "difix3d"]
            before = BEFORE.get(name)
            against = TITLES[before] if before in wanted and before in renders else None
            rows.append(AblationRow(name, TITLES[name], renders[name], len(model.gaussians), against))
    if asked is None:
        return rows, {"rows with the fixer": why} if why else {}
    no_fixer = why or "there is no fixer: name one by --fixer"
    lost = [name for name in wanted if name not in renders]
    return rows, {TITLES[name]: no_fixer if "+" in name and fixer is None else "the run has none" for name in lost}


def plus(run: Run, fixer: Fixer, photo: Callable[[int], View], *, trust: bool) -> RenderFn:
    """A model with the fixer behind it."""
    return PostRender(run.render, fixer, run.scene, photo, trust=trust, device=run.gaussians.device)
