"""What an evaluation found, and its file: ``evaluation.json`` in the run's folder.

::

    {"format": "difix3d evaluation", "version": 1, "scene", "split", "step", "seed", "device", "fixer", "mask",
     "variants": [{"name": "Difix3D+", "pictures": folder below the run's, "gaussians", "against": name or null,
                   "images": [{"name", "psnr", "ssim", "lpips_vgg", ..., "cc_psnr", ..., "seconds",
                               "seen": share of the pixels that training photos show, "seen_psnr", ..., "unseen_psnr"}],
                   "sets": {"fid": {"value", "count", "std", "warning"}, ...},
                   "means": {"psnr", ...}}],
     "left_out": {"fid": "why it is not there, and how to provide it", ...}, "background",
     "given": the splat file that the run began with,
     "steadiness": [{"row", "way": "render" | "fixed" | "carried" | "mixed", "short", "long", "errors"}],
     "fixed_photos": {"psnr", "ssim", "lpips_vgg", ..., "contrast", "count"}}

A number that is not defined (no pixel counts; the PSNR of equal pictures) is ``null``. ``means`` is for readers of the
file: it follows from the rest.
"""

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from difix3d.errors import UserError
from difix3d.evaluate.steadiness import Steadiness, read_steadiness
from difix3d.files import or_nan, read_json, write_json

FORMAT = "difix3d evaluation"
VERSION = 1
FILE = "evaluation.json"


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        title: of its column.
        digits: behind the point.
        better: +1 if more is better, -1 if less is, 0 if neither.
        factor: what it is multiplied by to be shown.
    """

    title: str
    digits: int
    better: int
    factor: float = 1.0


CORRECTED, ALIGNED = "cc_", "aligned_"
"""Before the names of metrics of pictures in their photos' colours (``cc_psnr``), and from aligned poses
(``aligned_psnr``)."""

SEEN, UNSEEN = "seen_", "unseen_"
"""The same, before those of pixels that some training photo shows (``seen_psnr``), and of the others: rows of their own
in tables."""
PARTS = {"": "all", SEEN: "seen", UNSEEN: "unseen"}

SINGLE = {
    "psnr": Metric("PSNR", 2, 1),
    "ssim": Metric("SSIM", 3, 1),
    "lpips_vgg": Metric("LPIPS (VGG)", 3, -1),
    "lpips_alex": Metric("LPIPS (Alex)", 3, -1),
}
"""Of single pictures."""

METRICS = {
    **{
        f"{align}{correct}{name}": replace(metric, title=f"{align}{correct}".replace("_", "-") + metric.title)
        for align in ("", ALIGNED)
        for correct in ("", CORRECTED)
        for name, metric in SINGLE.items()
    },
    "psnr_ply": Metric("PSNR (.ply)", 2, 1),
    "fid": Metric("FID", 1, -1),
    "kid": Metric("KID", 4, -1),
    "tsed": Metric("TSED", 3, 1),
    "warp": Metric("warp error", 4, -1),
    "right": Metric("change where right (dB)", 2, 1),
    "wrong": Metric("change where wrong (dB)", 2, 1),
    "seconds": Metric("ms per frame", 1, -1, 1e3),
}
"""All there is, in the order of columns. ``psnr_ply``: of the exported model as other viewers show it. ``right`` and
``wrong``: change of PSNR against the picture before the fix, on the half of its pixels that had been nearer to the
photo, and on the other half."""


@dataclass(frozen=True)
class SetScore:
    """A metric of a whole set of pictures.

    Attributes:
        value: the metric; NaN if it is not defined.
        count: pictures, or pairs of them, that it comes from.
        std: its spread, where known.
        warning: a sentence to print beside it.
    """

    value: float
    count: int
    std: float | None = None
    warning: str | None = None


@dataclass(frozen=True)
class Variant:
    """One row of the table: a way to get pictures, and how good they are.

    Attributes:
        name: of the row, "Difix3D+".
        pictures: folder of them, each at its photo's place, from the run's folder on.
        images: for each picture its ``name``, and the metrics (keys of :data:`METRICS`); NaN where not defined.
        sets: metrics of the whole set.
        gaussians: in the model, if known.
        against: name of the variant whose pictures were fixed to get these.
    """

    name: str
    pictures: str
    images: tuple[dict[str, Any], ...]
    sets: dict[str, SetScore]
    gaussians: int | None = None
    against: str | None = None

    def values(self, metric: str) -> dict[str, float]:
        """The metric by picture, where it is defined; of a set metric the one value, under an empty name."""
        if metric in self.sets:
            values = {"": self.sets[metric].value}
        else:
            values = {image["name"]: image[metric] for image in self.images if metric in image}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def mean(self, metric: str) -> float:
        """Over the pictures where it is defined; NaN if there are none."""
        values = list(self.values(metric).values())
        return sum(values) / len(values) if values else math.nan

    @property
    def metrics(self) -> list[str]:
        """Those there are, in the order of :data:`METRICS`."""
        found = {key for image in self.images for key in image} | self.sets.keys()
        return [key for key in METRICS if key in found]

    @property
    def seen(self) -> float:
        """Share of the pictures' pixels that some training photo shows; NaN if it was not measured."""
        return self.mean("seen")

    def means(self) -> dict[str, float]:
        """Of each metric, of those of seen and unseen pixels as well."""
        apart = [f"{part}{metric}" for part in (SEEN, UNSEEN) for metric in SINGLE]
        found = {key for image in self.images for key in image}
        return {metric: self.mean(metric) for metric in [*self.metrics, *(key for key in apart if key in found)]}


@dataclass(frozen=True)
class RunEvaluation:
    """All variants of a run.

    Attributes:
        scene: its name.
        split: "test" or "train": which photos.
        step, seed: of the run.
        device: "cpu" or "cuda".
        fixer: what the fixer was called; "none" without.
        mask: "photo" (the photos' own masks) or "visible" (only what training cameras see).
        left_out: rows and metrics that were asked for and could not be had, and why.
        background: "white" or "black": what is behind photos with alpha and their pictures; empty for other photos.
        fixed_photos: what the fixer does to photos that need nothing (:func:`~difix3d.evaluate.fix_photos`).
        given: the splat file that the run began with; empty if there was none.
        steadiness: of the rows with a fixer behind the renderer, if the warp error was asked for.
    """

    scene: str
    split: str
    step: int
    seed: int
    device: str
    fixer: str
    mask: str
    variants: tuple[Variant, ...]
    left_out: dict[str, str]
    fixed_photos: dict[str, float] = field(default_factory=dict)
    background: str = ""
    given: str = ""
    steadiness: tuple[Steadiness, ...] = ()

    @property
    def harm(self) -> str:
        """A sentence on what the fixer does to photos; empty if it was not measured, or there is no fixer."""
        if not self.fixed_photos:
            return ""
        shown = {
            key: METRICS[key] for key, value in self.fixed_photos.items() if key in METRICS and math.isfinite(value)
        }
        scores = [f"{metric.title} {self.fixed_photos[key]:.{metric.digits}f}" for key, metric in shown.items()]
        scores.append(f"contrast x {self.fixed_photos['contrast']:.3f}")
        return f"the fixer, given {self.fixed_photos['count']:.0f} photos that need nothing: {', '.join(scores)}"


def write_evaluation(run: Path, evaluation: RunEvaluation) -> Path:
    """Writes ``evaluation.json`` into a run's folder."""
    variants = [asdict(variant) | {"means": variant.means()} for variant in evaluation.variants]
    content = {"format": FORMAT, "version": VERSION, **asdict(evaluation), "variants": variants}
    write_json(run / FILE, content)
    return run / FILE


def read_evaluation(run: Path) -> RunEvaluation:
    """What ``difix3d evaluate`` left in a run's folder.

    Raises:
        UserError: nothing, or something else.
    """
    path = run / FILE
    if not path.is_file():
        raise UserError(f"{run} has not been evaluated", f"There is no {FILE}", f"Run: difix3d evaluate {run}")
    content = read_json(path)
    if (content.pop("format", None), content.pop("version", None)) != (FORMAT, VERSION):
        raise UserError(
            f"{path} is not of this version", f"{FORMAT!r}, version {VERSION}", f"Run: difix3d evaluate {run}"
        )
    try:
        content["fixed_photos"] = {key: or_nan(value) for key, value in content.get("fixed_photos", {}).items()}
        content["steadiness"] = read_steadiness(content.get("steadiness", []))
        return RunEvaluation(**content | {"variants": tuple(_variant(**variant) for variant in content["variants"])})
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error})", "", f"Run: difix3d evaluate {run}") from error


def _variant(images: list[dict[str, Any]], sets: dict[str, dict[str, Any]], means: Any, **rest: Any) -> Variant:
    del means
    rows = tuple({key: or_nan(value) for key, value in image.items()} for image in images)
    scores = {key: SetScore(**score | {"value": or_nan(score["value"])}) for key, score in sets.items()}
    numbers = [value for row in rows for key, value in row.items() if key != "name"]
    numbers += [score.value for score in scores.values()]
    if not all(isinstance(value, int | float) for value in numbers) or not all(
        isinstance(text, str) for text in (rest["name"], rest["pictures"], *(row["name"] for row in rows))
    ):
        raise ValueError("a metric that is no number, or a name that is no text")
    return Variant(images=rows, sets=scores, **rest)
