import json
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from small_run import write_run
from toy_benchmark import write_benchmark, write_evaluation_of

from difix3d.benchmark import collect, make_jobs, read_benchmark, run_job, summarize
from difix3d.benchmark.jobs import flags, joined, last_line
from difix3d.benchmark.summary import label
from difix3d.errors import UserError
from difix3d.training.configfile import read_yaml


def toys(tmp_path, changes=None, text=None):
    path = write_benchmark(tmp_path) if text is None else write_benchmark(tmp_path, text)
    benchmark = read_benchmark(path, tmp_path)
    return benchmark, make_jobs(benchmark, tmp_path / "data", tmp_path / "out", changes or {})


def test_one_job_for_each_scene_method_and_seed(tmp_path):
    _, jobs = toys(tmp_path)
    assert [str(job) for job in jobs[:3]] == ["left / 3dgs / seed 0", "left / 3dgs / seed 1", "left / other / seed 0"]
    assert len({job.folder for job in jobs}) == len(jobs) == 8
    assert {(job.seed, job.settings["seed"]) for job in jobs} == {(0, 0), (1, 1)}
    assert all(job.max_steps == 20 and job.state == "new" for job in jobs)


def test_methods_win_over_changes_and_changes_over_scenes(tmp_path):
    _, jobs = toys(tmp_path, {"resolution": 64, "fixer": "x", "distill": {"gate": "on", "step": 0.1}})
    assert {job.settings["resolution"] for job in jobs} == {64}
    assert {job.settings["fixer"] for job in jobs} == {"none"}
    assert jobs[2].settings["distill"] == {"gate": False, "step": 0.1}
    assert joined({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"d": 4}) == {"a": {"b": 3, "c": 2}, "d": 4}


def test_wrong_settings_are_found_before_anything_runs(tmp_path):
    with pytest.raises(UserError, match=r"toys \(left, 3dgs\) sets max_step, .* Did you mean max_steps"):
        toys(tmp_path, {"max_step": 5})
    with pytest.raises(UserError, match="sets preset to 'auto'. it must be one of standard, quick, mcmc"):
        toys(tmp_path, {"preset": "auto"})


def test_a_job_is_two_commands_and_is_done_once(tmp_path, commands):
    _, (job, *_) = toys(tmp_path)
    assert run_job(job) is None
    assert [command[0] for command in commands] == ["train", "evaluate"]
    assert "--resume" not in commands[0]
    assert commands[1] == ["evaluate", str(job.folder), "--metrics", "psnr", "ssim"]
    assert read_yaml(job.folder / "job.yaml") == job.settings
    assert job.done
    assert job.state == "done"
    assert run_job(job) is None
    assert len(commands) == 2


def test_broken_off_jobs_go_on(tmp_path, commands):
    _, (begun, trained, *_) = toys(tmp_path)
    for job, step in ((begun, 7), (trained, 20)):
        (job.folder / "checkpoints").mkdir(parents=True)
        (job.folder / "checkpoints" / f"step_{step:07d}.safetensors").touch()
    assert begun.state == "at step 7 of 20"
    assert run_job(begun) is None
    assert commands[0][-1] == "--resume"
    assert trained.state == "trained"
    assert run_job(trained) is None
    assert [command[0] for command in commands] == ["train", "evaluate", "evaluate"]


def test_what_went_wrong(tmp_path, commands):
    _, (job, other, *_) = toys(tmp_path)
    commands.fail = {str(job.folder): "no memory"}
    assert run_job(job) == "no memory"
    assert len(commands) == 1
    commands.fail = {"train": None}  # a training that ends well without having got to its end
    assert run_job(other) == "interrupted new"


def test_a_training_that_a_signal_ended_in_order(tmp_path, monkeypatch):
    """Its exit status is 128 and the signal's number; what it said last is about itself, not about the benchmark."""
    _, (job, *_) = toys(tmp_path)
    monkeypatch.setattr("difix3d.benchmark.jobs._status", lambda *_: 128 + signal.SIGTERM)
    assert run_job(job) == "interrupted new"


def test_the_last_line_of_a_failed_process(tmp_path):
    _, (job, *_) = toys(tmp_path)
    job.folder.mkdir(parents=True)
    error = run_job(job)  # the scene is nowhere
    assert error.startswith("difix3d train: There is no scene 'left'")
    assert "== 20" in job.log.read_text()
    assert last_line(job.log) == error
    assert last_line(tmp_path / "none") == ""


def test_two_processes_do_not_work_on_one_job(tmp_path, commands):
    _, (job, *_) = toys(tmp_path)
    job.folder.mkdir(parents=True)
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, job.log], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        assert "another process is at work" in run_job(job)
        other.kill()
    assert run_job(job) is None


def test_runs_begun_with_other_settings_are_refused(tmp_path, commands):
    _, (job, *_) = toys(tmp_path)
    run_job(job)
    toys(tmp_path)
    with pytest.raises(UserError, match=r"begun with other settings: max_steps was 20, now it is 30.*--output-dir"):
        toys(tmp_path, {"max_steps": 30})


def test_surfaces_are_trained_first_and_taken_by_the_others(tmp_path, commands):
    from toy_benchmark import YAML

    benchmark, jobs = toys(tmp_path, text=YAML + "surface: {split: none}\n")
    assert [job.method for job in jobs[:3]] == ["surface", "surface", "3dgs"]
    assert jobs[0].settings["split"] == "none"
    assert run_job(jobs[0]) is None
    assert [command[0] for command in commands] == ["train"]
    assert jobs[0].done
    assert jobs[2].commands[1][-2:] == ["--surface", str(jobs[0].folder)]
    assert summarize(benchmark, jobs, tmp_path) is None


def test_the_table_of_what_is_finished(tmp_path):
    benchmark, jobs = toys(tmp_path)
    assert summarize(benchmark, jobs, tmp_path) is None
    for job, psnr in zip(jobs[:6], (20.0, 22.0, 25.0, 27.0, 10.0, 12.0), strict=True):
        job.folder.mkdir(parents=True)
        write_evaluation_of(job.folder, psnr)
    table = summarize(benchmark, jobs, tmp_path)
    rows = {(row.scene, row.variant): row for row in table.rows}
    assert rows["left", "3DGS"].runs == 2
    assert rows["left", "3DGS"].cells["psnr"].mean == pytest.approx(21 + 1.5)
    assert rows["left", "3DGS [other]"].cells["psnr"].gain == pytest.approx(5)
    assert rows["right", "3DGS"].cells["psnr"].mean == pytest.approx(11 + 1.5)
    assert ("right", "3DGS [other]") not in rows
    assert "3DGS [other]" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "table.csv").exists()
    assert (tmp_path / "table.tex").exists()


def test_a_row_that_another_run_has_is_not_left_out(tmp_path):
    from difix3d.evaluate import read_evaluation, write_evaluation

    _, jobs = toys(tmp_path)
    for job in (jobs[0], jobs[2]):
        job.folder.mkdir(parents=True)
        write_evaluation_of(job.folder)
    reasons = {"3DGS": "no plain run beside it", "fid": "no weights"}
    write_evaluation(jobs[2].folder, replace(read_evaluation(jobs[2].folder), left_out=reasons))
    assert [evaluation.left_out for evaluation in collect(jobs)] == [{}, {"fid": "no weights"}]


def test_names_of_rows():
    assert label("Difix3D+", "difix3d") == "Difix3D+"
    assert label("3DGS + Difix", "3dgs") == "3DGS + Difix"
    assert label("Difix3D+", "once") == "Difix3D+ [once]"
    assert flags({"metrics": ["a", "b"], "data_dir": 1, "crop": True}) == [
        "--metrics",
        "a",
        "b",
        "--data-dir",
        "1",
        "--crop",
    ]


@pytest.mark.slow
def test_real_jobs_to_their_end(tmp_path, toy_scene):
    write_run(tmp_path / "data", toy_scene)
    text = """
name: toy
scenes: [scene]
split: cluster
train: {max_steps: 5, device: cpu, init: {seen_by: 0, points: 200}}
methods: {3dgs: {fixer: none}}
evaluate: {metrics: [psnr], masked: visible}
surface: {fixer: none, split: none}
"""
    from difix3d.benchmark import prepare

    benchmark = read_benchmark(write_benchmark(tmp_path, text), tmp_path / "data")
    surface, job = make_jobs(benchmark, tmp_path / "data", tmp_path / "out", {})
    prepare(benchmark, tmp_path / "data", tmp_path / "out")
    assert run_job(surface) is None, surface.log.read_text()
    assert run_job(job) is None, job.log.read_text()
    (row,) = summarize(benchmark, [surface, job], tmp_path / "out").rows
    assert (row.scene, row.variant) == ("scene", "3DGS")
    lists = json.loads((tmp_path / "out" / "splits" / "scene.json").read_text())
    assert json.loads((job.folder / "scene.json").read_text())["test"] == lists["eval"]
