"""What training evaluates on its way: the same pictures and metrics as ``difix3d evaluate``, of the model as it is."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from difix3d.background import COLORS, over
from difix3d.devices import choose_device
from difix3d.distill.confidence import ConfidenceConfig
from difix3d.errors import UserError
from difix3d.evaluate import ABLATION, Name, Pictures, RunEvaluation, Seen, Variant, drawing, measure
from difix3d.evaluate.results import CORRECTED, SINGLE
from difix3d.evaluate.seen import as_noted, noted
from difix3d.postrender import PostRender
from difix3d.scene import Views
from difix3d.training.config import TrainConfig
from difix3d.training.configfile import merge, read_own
from difix3d.training.refine import RefineConfig
from difix3d.training.run import RunFolder
from difix3d.types import Fixer, Render, RenderFn, Scene, View

METRICS = ("psnr", "ssim")


def shown(scene: Scene) -> str:
    """The photos that are evaluated: the held-out ones, or the training photos where none are held out."""
    return "test" if len(scene.test) else "train"


def with_corrected(metrics: Sequence[str], refine: RefineConfig) -> list[str]:
    """The metrics, and those of pictures in their photos' colours where a run learnt exposures: held-out photos have
    exposures as well, which nobody knows."""
    corrected = [CORRECTED + metric for metric in metrics if metric in SINGLE] if refine.exposure else []
    return list(dict.fromkeys([*metrics, *corrected]))


def fixed(model: Name) -> Name:
    """The row that a model becomes with a fixer behind it."""
    return [name for name, method in ABLATION.items() if method.model == model][-1]


def as_row(
    row: Name, model: Callable[..., Render], fixer: Fixer | None, views: Views, confidence: ConfidenceConfig
) -> RenderFn:
    """A model as a row of the ablation shows it: as it is, or with the fixer behind it, which looks at the photos."""
    trust = ABLATION[row].trust
    if fixer is None or trust is None:
        return partial(model, depth=False)
    options: dict[str, Any] = {"trust": trust, "confidence": confidence, "device": views.device}
    return PostRender(partial(model, depth=True), fixer, views.scene, views.__getitem__, **options)


def evaluate(
    run: RunFolder,
    photo: Callable[[int], View],
    row: Name,
    render: RenderFn,
    step: int,
    gaussians: int,
    refine: RefineConfig,
    seen: Seen,
    device: torch.device,
) -> Variant:
    """Draws the evaluated photos' cameras into ``eval/`` and measures the pictures into ``metrics.json``. A view is
    drawn and measured while pictures of the last ones are written.

    Args:
        photo: gives a captured view by its index, over the colour that ``render`` is over.
        row: of the ablation, that ``render`` makes.
        step, gaussians: of the model.
        refine: the run's.
        seen: finds what training photos show of held-out views; kept beside the pictures.
        device: where the model renders and the pictures are measured.
    """
    split = shown(run.scene)
    indices = getattr(run.scene, split).tolist()
    plus = ABLATION[row].trust is not None
    folder = run.path / _place(step, plus)
    pictures = Pictures(ABLATION[row].title, run.path, f"{_place(step, plus)}/renders", gaussians=gaussians)
    apart = noted(seen, run.path / _seen(step)) if split == "test" else None
    metrics = with_corrected(METRICS, refine)
    fixer: Any = render.fixer if isinstance(render, PostRender) else None
    with staying(fixer), drawing(render, pictures, folder / "compare") as draw_one:
        views = map(photo, indices)
        (variant,), _ = measure(metrics, [pictures], views, device, apart, lambda _, view: draw_one(view))
    facts = {"step": step, "gaussians": gaussians, "plus": plus, "split": split}
    run.record("metrics.json", facts | variant.means() | {"images": list(variant.images)})
    return variant


@contextmanager
def staying(fixer: Any) -> Iterator[None]:
    """Within, a fixer that puts its model away after each stream, and a single picture is one, keeps it in place."""
    offload = getattr(fixer, "offload", False)
    if offload is False:
        yield
        return
    fixer.offload = False
    try:
        yield
    finally:
        fixer.offload = offload
        list(fixer([]))  # after which it puts it away


def evaluated(run: RunFolder, step: int) -> list[bool]:
    """What there is of a step, recorded and with its pictures: ``False`` for the model, ``True`` for the "+"."""
    rows = [row["plus"] for row in run.rows("metrics.json") if row["step"] == step]
    return [plus for plus in rows if (run.path / _place(step, plus) / "renders").is_dir()]


def last_evaluation(run: RunFolder, plain: RunFolder | None) -> RunEvaluation:
    """What training evaluated last, as ``difix3d evaluate`` would have: its pictures, measured beside each other.

    All of them after the same number of steps: what trained longer is better for that alone. A splat file that the run
    began with stands before them, as it came.

    Args:
        run: the folder.
        plain: that of plain 3DGS beside it, if there is one.

    Raises:
        UserError: nothing was evaluated yet.
    """
    rows = run.rows("metrics.json")
    if not rows:
        raise UserError(
            f"Nothing of {run.path} is evaluated yet",
            "Training evaluates after --eval-steps and after the last step",
            f"Go on with it: --resume --output-dir {run.path}; or measure it as it is: difix3d evaluate {run.path}",
        )
    step, split, images = (rows[-1][key] for key in ("step", "split", "images"))
    model = run.model_at(step)
    sources: dict[Name, tuple[RunFolder, int, bool]] = {"given": (run, 0, False)}
    if plain is not None:
        sources["3dgs"] = plain, step, False
    sources |= {model: (run, step, False), fixed(model): (run, step, True)}
    found = {name: _row(*source) for name, source in sources.items()}
    present = {name: row for name, row in found.items() if row is not None}
    left_out = {}
    if plain is not None and model == "3dgs":
        why = f"at step {step:,} no round was done yet: the run is plain 3DGS so far"
        left_out[ABLATION["difix3d"].title] = why
    elif plain is not None and "3dgs" not in present and step > 0:
        left_out[ABLATION["3dgs"].title] = f"it was not evaluated at step {step:,}: there is nothing to compare with"
    variants = [
        Pictures(
            ABLATION[name].title,
            run.path,
            Path(
                os.path.relpath(sources[name][0].path / _place(row["step"], row["plus"]) / "renders", run.path)
            ).as_posix(),
            {image["name"]: image["seconds"] for image in row["images"] if "seconds" in image},
            gaussians=row["gaussians"],
            against=ABLATION[name].compared_with(present),
        )
        for name, row in present.items()
    ]
    index = {photo.name: i for i, photo in enumerate(run.scene.photos)}
    path = run.path / "config.yaml"
    config = merge(TrainConfig(), read_own(run.path), source=str(path))
    views = Views(run.scene).stream(index[image["name"]] for image in images)
    background = config.shown_over(run.scene)
    photos = (over(view, COLORS[background]) for view in views)
    masks = run.path / _seen(step)
    seen = as_noted(masks) if split == "test" and masks.is_dir() else None  # runs of older versions have none
    measured, _ = measure(with_corrected(METRICS, config.refine), variants, photos, seen=seen)
    return RunEvaluation(
        scene=run.scene.name,
        split=split,
        step=step,
        seed=config.seed,
        device=choose_device(config.device).type,
        fixer=config.fixer,
        mask="photo",
        variants=measured,
        left_out=left_out,
        background=background if run.scene.alpha else "",
        given=str(config.init.ply or ""),
    )


def _row(run: RunFolder, step: int, plus: bool) -> dict[str, Any] | None:
    rows = run.rows("metrics.json")
    return next((row for row in rows if (row["step"], row["plus"]) == (step, plus)), None)


def _seen(step: int) -> str:
    return f"{_place(step, False)}/seen"


def _place(step: int, plus: bool) -> str:
    return f"eval/step_{step:06d}" + ("_plus" if plus else "")
