"""The rows of the paper's ablation, made from a run: plain renders, Difix on them, Difix3D, Difix3D+."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from difix3d.difix.load import load_fixer
from difix3d.errors import UserError
from difix3d.evaluate import ABLATION, Name
from difix3d.postrender import PostRender
from difix3d.scene import Views
from difix3d.training.load import TrainedRun
from difix3d.training.run import RunFolder
from difix3d.training.splatfile import as_it_came
from difix3d.types import Fixer, RenderFn


def load_models(
    path: Path, load: Callable[[Path, int | None], TrainedRun], step: int | None = None
) -> tuple[dict[Name, TrainedRun], dict[str, str]]:
    """The models of a run's folder by ``given``, ``3dgs`` and ``difix3d``, in this order, and why one is left out.

    A run without novel views (yet) is plain 3DGS; the one that ``--compare`` trains lies beside the
    other, in ``plain/``. What a run began with is ``given`` if that was a splat file.

    Args:
        path: the run's folder, or a splat file.
        load: loads a run from its folder, at a step.
        step: of the checkpoints; the newest by default.

    Raises:
        UserError: what ``load`` raises.
    """
    run = load(path, step)
    folder, plain = RunFolder(path, run.scene), path / "plain"
    models: dict[Name, TrainedRun] = {}
    left_out: dict[str, str] = {}
    try:
        given = as_it_came(run, folder)
        models |= {} if given is None else {"given": given}
    except UserError as error:
        left_out[ABLATION["given"].title] = str(error)
    own = folder.model_at(run.step)
    if own == "difix3d" and plain.is_dir():
        try:
            models["3dgs"] = load(plain, run.step)  # only equal steps can be compared
        except UserError as error:
            left_out[ABLATION["3dgs"].title] = str(error)
    elif own == "difix3d":
        why = f"{path} has no plain run beside it; train with --compare, or give a run of plain 3DGS as well"
        left_out[ABLATION["3dgs"].title] = why
    return models | {own: run}, left_out


def choose_fixer(asked: str | None, run: TrainedRun) -> tuple[Fixer | None, str]:
    """The fixer that was asked for, or by default the run's own, and why there is none.

    Raises:
        UserError: the weights that were asked for cannot be had.
    """
    try:
        config, device = run.config, run.gaussians.device
        references, anchor_colors = config.distill.references, config.anchor_colors
        fixer: Any = load_fixer(asked or config.fixer, device, references, anchor_colors=anchor_colors)
    except UserError as error:
        if asked is not None:
            raise
        return None, str(error)
    if fixer is not None:
        fixer.offload = False  # nothing trains beside it, and moving it for each frame would be timed
    return fixer, ""


def choose_rows(
    models: dict[Name, TrainedRun], fixer: Fixer | None, asked: Sequence[Name] | None, why: str
) -> tuple[dict[Name, RenderFn], dict[str, str]]:
    """How the rows that models and fixer allow are rendered, in the table's order, and why others are not.

    Args:
        models: by ``given``, ``3dgs`` and ``difix3d``.
        asked: the rows that are wanted; by default all.
        why: the reason if there is no fixer though there should be one.
    """
    first = next(iter(models.values()))
    photo = Views(first.scene, first.gaussians.device).__getitem__  # decoded once for all
    renders: dict[Name, RenderFn] = {}
    for name, method in ABLATION.items():
        model = models.get(method.model)
        if model is not None and method.trust is None:
            renders[name] = model.render
        elif model is not None and fixer is not None:
            options: dict[str, Any] = {"trust": method.trust, "confidence": model.config.distill.confidence}
            device = model.gaussians.device
            renders[name] = PostRender(model.render, fixer, model.scene, photo, device=device, **options)
    if asked is None:
        return renders, {"rows with the fixer": why} if why else {}
    no_fixer = why or "there is no fixer: name one by --fixer"
    wanted = [method for name, method in ABLATION.items() if name in asked]
    return {method.name: renders[method.name] for method in wanted if method.name in renders}, {
        method.title: "the run has none" if method.trust is None or fixer is not None else no_fixer
        for method in wanted
        if method.name not in renders
    }
