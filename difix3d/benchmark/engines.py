"""Where jobs run: in processes of this machine, or on a Ray cluster."""

import os
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any

import torch

from difix3d.benchmark.jobs import Job, run_job, stop_jobs
from difix3d.errors import UserError
from difix3d.interrupt import unwinding

Submit = Callable[[Job], Future[str | None]]
"""Starts a job as soon as there is room for it; the result is what :func:`run_job` returns."""


@contextmanager
def local(workers: int | None) -> Iterator[Submit]:
    """Jobs on this machine: on GPUs one for each, else one after the other, or as many at once as ``workers``.

    When they are not all waited for (Ctrl-C, SIGTERM), those that run are told to end.
    """
    gpus = _devices()
    count = workers or max(1, len(gpus))
    places: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    for number in range(count):
        places.put(_environment(gpus[number % len(gpus)] if gpus else None, count))

    def work(job: Job) -> str | None:
        place = places.get()
        try:
            return run_job(job, place)
        finally:
            places.put(place)

    pool = ThreadPoolExecutor(count)  # of threads that wait for processes
    try:
        with unwinding():  # a signal reaches this process only
            yield lambda job: pool.submit(work, job)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        stop_jobs()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(index) for index in range(count)]


def _environment(gpu: str | None, workers: int) -> dict[str, str]:
    if gpu is not None:
        return {"CUDA_VISIBLE_DEVICES": gpu}
    if workers == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers))}


@contextmanager
def on_ray(workers: int | None) -> Iterator[Submit]:
    """Jobs on a Ray cluster (``RAY_ADDRESS``), or on one that is started on this machine, ``workers`` at once.

    Each job takes a GPU, or a CPU where the cluster has no GPUs; Ray decides where and when it runs. difix3d is
    installed on every machine, and the data and output folders are on a file system that they share.

    Raises:
        UserError: Ray is not installed.
    """
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise UserError("Ray is not installed", "", 'Run: pip install "difix3d[ray]", or use --engine local') from error
    begun = not ray.is_initialized()
    if begun:
        own: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
        ray.init(log_to_driver=False, **own)
    needs = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}
    remote = ray.remote(**needs, max_retries=0)(run_job)
    try:
        yield lambda job: remote.remote(job).future()
    finally:
        if begun:
            ray.shutdown()


ENGINES: dict[str, Callable[[int | None], AbstractContextManager[Submit]]] = {"local": local, "ray": on_ray}


def finished(jobs: Sequence[Job], submit: Submit, tick: float = 1.0) -> Iterator[tuple[Job, str | None] | None]:
    """Runs jobs and yields each as it ends, with what went wrong if something did; and ``None`` every ``tick`` seconds.

    An error of one job does not stop the others.
    """
    futures = {submit(job): job for job in jobs}
    pending = set(futures)
    while pending:
        ended, pending = wait(pending, timeout=tick, return_when=FIRST_COMPLETED)
        for future in ended:
            error = future.exception()
            yield futures[future], future.result() if error is None else f"{type(error).__name__}: {error}"
        yield None
