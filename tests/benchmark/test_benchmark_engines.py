import importlib.util
import threading

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
