import importlib.util
import signal
import subprocess
import sys
import threading
import time

import pytest
from toy_benchmark import write_benchmark

from difix3d.benchmark import ENGINES, engines, finished, make_jobs, read_benchmark
from difix3d.errors import UserError


@pytest.fixture
def jobs(tmp_path):
    return make_jobs(read_benchmark(write_benchmark(tmp_path), tmp_path), tmp_path / "data", tmp_path / "out", {})


def run(name, jobs, workers=None):
    with ENGINES[name](workers) as submit:
        return dict(event for event in finished(jobs, submit, tick=0.2) if event is not None)


def test_all_jobs_are_done_and_one_that_fails_stops_no_other(jobs, commands):
    commands.fail = {str(jobs[2].folder): "no memory"}
    results = run("local", jobs)
    assert set(results) == set(jobs)
    assert {job for job, error in results.items() if error} == {jobs[2]}
    assert all(job.done for job in jobs if job != jobs[2])


def test_an_error_of_the_engine_is_one_of_the_job(jobs, monkeypatch):
    def work(job, environment):
        if job is jobs[0]:
            raise OSError("disk full")

    monkeypatch.setattr(engines, "run_job", work)
    assert [error for error in run("local", jobs).values() if error] == ["OSError: disk full"]


def test_as_many_at_once_as_workers(jobs, monkeypatch):
    meet = threading.Barrier(2, timeout=20)

    def work(job, environment):
        meet.wait()

    monkeypatch.setattr(engines, "run_job", work)
    assert not any(run("local", jobs, workers=2).values())


JOB = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path(sys.argv[1] + ".saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1] + ".began").touch()
time.sleep(60)
"""
BENCHMARK = """
import os, sys
from difix3d.benchmark import ENGINES, engines, finished, jobs
def work(job, environment):
    with open(job + ".log", "w") as log:
        jobs._status([sys.executable, "-c", sys.argv[1], job], log, dict(os.environ))
engines.run_job = work
with ENGINES["local"](2) as submit:
    list(finished(sys.argv[2:], submit))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_is_passed_on_to_the_jobs(tmp_path):
    """A time limit of a cluster ends the benchmark; its trainings save what they have, and no further one begins."""
    names = [str(tmp_path / name) for name in "abc"]
    with subprocess.Popen([sys.executable, "-c", BENCHMARK, JOB, *names]) as benchmark:
        end = time.monotonic() + 60
        while len(list(tmp_path.glob("*.began"))) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        benchmark.send_signal(signal.SIGTERM)
        assert benchmark.wait(30) == 128 + signal.SIGTERM
    assert sorted(path.name for path in tmp_path.glob("*.saved")) == ["a.saved", "b.saved"]
    assert not (tmp_path / "c.began").exists()


def test_each_gpu_has_one_job(jobs, monkeypatch):
    seen = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(engines, "run_job", lambda job, environment: seen.append(environment["CUDA_VISIBLE_DEVICES"]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    run("local", jobs)
    assert set(seen) == {"3", "5"}
    assert engines._devices() == ["3", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert engines._devices() == ["0", "1"]


def test_cores_are_shared(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert engines._environment(None, 1) == {}
    assert engines._environment(None, 4) == {"OMP_NUM_THREADS": "2"}


def test_without_ray(jobs, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(engines, "import_module", missing)
    with pytest.raises(UserError, match=r"Ray is not installed.*difix3d\[ray\].*--engine local"):
        run("ray", jobs)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (the extra `ray`)")
def test_ray_does_the_same_jobs(jobs, commands):
    """A real cluster of one core on this machine: a job that is finished, and one whose scene is nowhere."""
    run("local", jobs[:1])
    results = run("ray", jobs[:2], workers=1)
    assert results[jobs[0]] is None
    assert results[jobs[1]].startswith("difix3d train: There is no scene 'left'")
