"""Whole data sets: scene x method x seed, each a run in a folder of its own, and one table of them all.

A job is two commands that could be typed by hand (``difix3d train``, ``difix3d evaluate``). What has been done is read
off the runs' folders, so a benchmark can be broken off and started again at any time, by any engine.
"""

from difix3d.benchmark.config import Benchmark, read_benchmark
from difix3d.benchmark.engines import ENGINES, finished
from difix3d.benchmark.jobs import Job, finished_jobs, make_jobs, run_job
from difix3d.benchmark.scenes import prepare
from difix3d.benchmark.summary import collect, summarize

__all__ = [
    "ENGINES",
    "Benchmark",
    "Job",
    "collect",
    "finished",
    "finished_jobs",
    "make_jobs",
    "prepare",
    "read_benchmark",
    "run_job",
    "summarize",
]
