"""The table of what is finished."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from difix3d.benchmark.config import Benchmark
from difix3d.benchmark.jobs import Job
from difix3d.evaluate import ABLATION, RunEvaluation, Table, read_evaluation, table
from difix3d.evaluate.ablation import TITLES
from difix3d.files import write_text


def collect(jobs: Iterable[Job]) -> list[RunEvaluation]:
    """The evaluations of finished jobs, under the benchmark's names of scenes and methods.

    A variant keeps its name where the method is called the same (Difix3D+ of the method difix3d); of other methods it
    has the method's name behind it (Difix3D+ [once]).
    """
    found = []
    for job in jobs:
        if job.done and job.evaluate is not None:
            evaluation = read_evaluation(job.folder)
            variants = tuple(replace(item, name=label(item.name, job.method)) for item in evaluation.variants)
            found.append(replace(evaluation, scene=job.scene, variants=variants))
    rows = {(evaluation.scene, variant.name) for evaluation in found for variant in evaluation.variants}
    return [replace(item, left_out=_still_out(item, rows)) for item in found]


def _still_out(evaluation: RunEvaluation, rows: set[tuple[str, str]]) -> dict[str, str]:
    """What one run lacks another may have: plain 3DGS."""
    return {what: why for what, why in evaluation.left_out.items() if (evaluation.scene, what) not in rows}


def label(variant: str, method: str) -> str:
    """The name of a row: a method that is called like one of the ablation's models needs no second name."""
    own = variant in TITLES and ABLATION[TITLES[variant]].model == method.lower()
    return variant if own else f"{variant} [{method}]"


def summarize(benchmark: Benchmark, jobs: Iterable[Job], output_dir: Path) -> Table | None:
    """Writes ``table.csv``, ``table.md`` and ``table.tex`` of what is finished; ``None`` if nothing is."""
    evaluations = collect(jobs)
    if not evaluations:
        return None
    result = table(evaluations)
    if benchmark.published:
        result = replace(result, notes=(*result.notes, f"Published: {benchmark.published.strip()}"))
    for kind, text in (("csv", result.csv()), ("md", result.markdown()), ("tex", result.latex())):
        write_text(output_dir / f"table.{kind}", text)
    return result
