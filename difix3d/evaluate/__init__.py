"""How good a model is: its pictures beside photos, metrics, and tables of them.

:func:`evaluate` is what training calls for a quick look. ``difix3d evaluate`` draws all variants of a run
(:func:`draw`), measures their pictures (:func:`measure`) and keeps the result (:class:`RunEvaluation`) in the run's
folder, where :func:`read_evaluation` finds it; :func:`table` puts those of many runs together.
"""

from difix3d.evaluate.measures import Pictures, adopt, consistency, draw, measure
from difix3d.evaluate.results import (
    METRICS,
    Metric,
    RunEvaluation,
    SetScore,
    Variant,
    read_evaluation,
    write_evaluation,
)
from difix3d.evaluate.scores import Evaluation, ImageScore, difference, evaluate
from difix3d.evaluate.tables import Cell, Row, Table, table

__all__ = [
    "METRICS",
    "Cell",
    "Evaluation",
    "ImageScore",
    "Metric",
    "Pictures",
    "Row",
    "RunEvaluation",
    "SetScore",
    "Table",
    "Variant",
    "adopt",
    "consistency",
    "difference",
    "draw",
    "evaluate",
    "measure",
    "read_evaluation",
    "table",
    "write_evaluation",
]
