"""How good a model is: its pictures beside photos, metrics, and tables of them.

Training and ``difix3d evaluate`` go one way: :func:`draw` the pictures of each row of :data:`ABLATION`, then
:func:`measure` them (training: each as soon as it is drawn, :func:`drawing`). ``difix3d evaluate`` keeps the result
(:class:`RunEvaluation`) in the run's folder, where :func:`read_evaluation` finds it; :func:`table` puts those of many
runs together.
"""

from difix3d.evaluate.ablation import ABLATION, Method, Name
from difix3d.evaluate.cells import Cell
from difix3d.evaluate.measures import consistency, fix_photos, measure, psnrs
from difix3d.evaluate.pictures import Pictures, adopt, draw, drawing
from difix3d.evaluate.results import (
    METRICS,
    Metric,
    RunEvaluation,
    SetScore,
    Variant,
    read_evaluation,
    write_evaluation,
)
from difix3d.evaluate.seen import Seen, only_visible, seen_pixels
from difix3d.evaluate.steadiness import Steadiness, steadiness
from difix3d.evaluate.tables import Row, Table, table

__all__ = [
    "ABLATION",
    "METRICS",
    "Cell",
    "Method",
    "Metric",
    "Name",
    "Pictures",
    "Row",
    "RunEvaluation",
    "Seen",
    "SetScore",
    "Steadiness",
    "Table",
    "Variant",
    "adopt",
    "consistency",
    "draw",
    "drawing",
    "fix_photos",
    "measure",
    "only_visible",
    "psnrs",
    "read_evaluation",
    "seen_pixels",
    "steadiness",
    "table",
    "write_evaluation",
]
