"""The measurements on a GPU run to their end on a pretended one, and keep nothing of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from shared_data import SHARED, require

ROOT = Path(__file__).resolve().parents[2]


def suite(*options: object) -> subprocess.CompletedProcess[str]:
    pretend = require(SHARED / "pretend_cuda") / "pretend_cuda.py"
    command = [sys.executable, pretend, ROOT / "benchmarks" / "gpu_suite.py", *options]
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_part_runs_to_its_end(tmp_path):
    done = suite("--output", tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gpu_pretended_gpu.json").read_text())
    assert (result["pretended"], result["sizes"]) == (True, "tiny")
    assert {name: row["error"] for name, row in result["parts"].items() if "error" in row} == {}
    parts = result["parts"]
    assert [row["gaussians"] for row in parts["training"]["by_gaussians"]] == [100, 200]
    assert {row["path"] for row in parts["fixing"]["runs"]} == {"fast float32", "plain float32", "published float32"}
    assert "skipped" in parts["compiled"]
    assert parts["plus"]["frames_per_second"] > 0
    assert {"loading", "densification", "round: fix", "whole"} <= parts["run"]["seconds"].keys()
    assert parts["tests"]["passed"] + len(parts["tests"]["failed"]) > 0
    assert "PRETENDED" in done.stdout


def test_nothing_pretended_is_kept_as_a_result():
    done = suite("--parts", "kernels")
    assert done.returncode != 0
    assert "pretended device has no results" in done.stderr
    assert not list((ROOT / "benchmarks" / "results").glob("gpu_pretended*"))


def test_a_part_that_does_not_fit_the_time_is_left_out_and_said(tmp_path):
    done = suite("--output", tmp_path, "--sizes", "full", "--minutes", 0.1, "--parts", "training", "tests")
    assert done.returncode == 0, done.stderr
    parts = json.loads((tmp_path / "gpu_pretended_gpu.json").read_text())["parts"]
    assert all("s expected" in row["skipped"] for row in parts.values())
