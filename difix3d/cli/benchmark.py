"""``difix3d benchmark``: methods on a whole data set, and the table of it."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Group
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from difix3d.benchmark import (
    ENGINES,
    Benchmark,
    Job,
    finished,
    finished_jobs,
    make_jobs,
    prepare,
    read_benchmark,
    summarize,
)
from difix3d.benchmark.config import find_benchmark
from difix3d.benchmark.jobs import joined, last_line
from difix3d.cli.arguments import from_command_line
from difix3d.console import print_table, results
from difix3d.errors import UserError
from difix3d.limits import SEEDS, Limits
from difix3d.training.configfile import parse_yaml


@dataclass(frozen=True)
class Options:
    """Trains and evaluates scene x method x seed of a data set, each in a folder of its own, and fills a table.

    Started again, it goes on where it was: what is finished is skipped, what was broken off is resumed. A run that
    fails does not stop the others; it is listed at the end, and tried again at the next start.

    Examples:
      difix3d benchmark mipnerf360 --scenes garden bicycle --methods 3dgs difix3d
      difix3d benchmark mipnerf360 --set max_steps=2000 resolution=480 --seeds 0 1 2
      difix3d benchmark configs/benchmarks/folders.yaml --data-dir path/to/scenes --dry-run
      difix3d benchmark dl3dv --engine ray
      difix3d benchmark dl3dv --table-only
    """

    config: Annotated[str, tyro.conf.Positional]
    """A benchmark's YAML file, or the name of one in configs/benchmarks."""
    output_dir: Path | None = None
    """Folder of all runs, OUTPUT_DIR/SCENE/METHOD/seed_N, and of table.csv, table.md and table.tex; by default
    outputs/benchmarks/NAME."""
    data_dir: Path = Path("data")
    """Where scenes lie, and where those that can be downloaded go."""
    scenes: tuple[str, ...] = ()
    """Only these scenes."""
    methods: tuple[str, ...] = ()
    """Only these methods."""
    seeds: Annotated[tuple[int, ...], SEEDS] = ()
    """Other seeds than the benchmark's."""
    set: tuple[str, ...] = ()
    """Other settings for all runs, as KEY=VALUE with the options of `difix3d train`, such as densify.cap_max=500000.
    What makes a method goes before them."""
    engine: Literal["local", "ray"] = "local"
    """`local`: processes of this machine. `ray`: a Ray cluster (RAY_ADDRESS), or Ray on this machine."""
    workers: Annotated[int | None, Limits(min=1)] = None
    """Runs at once on this machine; by default one for each GPU, or one without."""
    dry_run: bool = False
    """Only show what would be done."""
    table_only: bool = False
    """Only fill the table with what is finished."""


def benchmark(args: Sequence[str] | None = None) -> None:
    """Runs the benchmark that the arguments name; the exit status is 1 if runs have failed."""
    options = from_command_line(Options, "benchmark", args)
    path = find_benchmark(options.config)
    whole = read_benchmark(path, options.data_dir)
    chosen = whole.choose(options.scenes, options.methods, options.seeds)
    output_dir = options.output_dir or Path("outputs") / "benchmarks" / path.stem
    place = (options.data_dir, output_dir, parse_changes(options.set))
    jobs = make_jobs(chosen, *place)
    if options.dry_run:
        show_plan(jobs)
        return
    failures: dict[Job, str] = {}
    if not options.table_only:
        prepare(chosen, options.data_dir, output_dir)
        failures = run_all(jobs, options)
    results.print(f"\n{chosen.name}: {sum(job.done for job in jobs)} of {len(jobs)} runs finished")
    show_table(whole, finished_jobs(whole, *place), output_dir)
    if failures:
        results.print(f"\n{len(failures)} of {len(jobs)} runs failed; started again, they go on:")
        for job, error in failures.items():
            results.print(f"  {job}: {error}\n    {job.log}")
        raise SystemExit(1)


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """``["densify.cap_max=5", "split=none"]`` as a nested mapping; values as YAML reads them."""
    result: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not (key and equals):
            raise UserError(f"--set {change} is no setting", "It takes KEY=VALUE, as in --set max_steps=2000")
        if key == "seed":
            raise UserError(
                f"--set {change} would change nothing", "Each run has a seed of --seeds", f"Give --seeds {text}"
            )
        value = parse_yaml(text, f"The value of --set {change}")
        for part in reversed(key.split(".")):
            value = {part: value}
        result = joined(result, value)
    return result


def show_plan(jobs: Sequence[Job]) -> None:
    """What is left to do for each job, as commands."""
    for job in jobs:
        results.print(f"{job}: {job.state}")
        for command in job.commands:
            results.print(f"  difix3d {' '.join(command)}")


def run_all(jobs: Sequence[Job], options: Options) -> dict[Job, str]:
    """Runs what is not finished and shows how it goes; returns the failures."""
    todo = [job for job in jobs if not job.done]
    if len(todo) < len(jobs):
        results.print(f"{len(jobs) - len(todo)} of {len(jobs)} runs are finished already")
    if not todo:
        return {}
    overview = Overview(todo)
    live = Live(console=results, get_renderable=lambda: overview, auto_refresh=False, transient=True)
    with ENGINES[options.engine](options.workers) as submit, live if results.is_terminal else nullcontext():
        for stage in (False, True):  # what is only trained is needed by the others
            for event in finished([job for job in todo if (job.evaluate is not None) == stage], submit):
                if event is not None:
                    results.print(overview.end(*event))
                elif results.is_terminal:
                    live.refresh()
    return overview.failures


def show_table(whole: Benchmark, jobs: Sequence[Job], output_dir: Path) -> None:
    """Writes and prints the table of all runs that are finished, chosen this time or not."""
    table = summarize(whole, jobs, output_dir)
    if table is not None:
        print_table(table.rich())
        for note in table.notes:
            results.print(f"- {note}")
        results.print(f"{output_dir / 'table.csv'}, .md, .tex")


class Overview:
    """How far the jobs are: a line of counts, and what each running one said last."""

    def __init__(self, jobs: Sequence[Job]):
        self.failures: dict[Job, str] = {}
        self._jobs = jobs
        self._ended: set[Job] = set()
        self._start = time.time()

    def end(self, job: Job, error: str | None) -> str:
        """Takes note of a job that has ended; returns a line about it."""
        self._ended.add(job)
        if error:
            self.failures[job] = error
        minutes = (time.time() - self._start) / 60
        return f"[{len(self._ended)}/{len(self._jobs)}, {minutes:.1f} min] {job}: {error or 'done'}"

    def __rich__(self) -> Group:
        rows = RichTable.grid(padding=(0, 2))
        for job in self._jobs:
            if job not in self._ended and job.log.exists() and job.log.stat().st_mtime >= self._start:
                rows.add_row(Text(str(job)), Text(last_line(job.log), overflow="ellipsis", no_wrap=True, style="dim"))
        waiting = len(self._jobs) - len(self._ended) - rows.row_count
        return Group(
            Text(
                f"{len(self._ended) - len(self.failures)} done, {len(self.failures)} failed, "
                f"{rows.row_count} running, {waiting} waiting, {(time.time() - self._start) / 60:.1f} min",
                style="bold",
            ),
            rows,
        )
