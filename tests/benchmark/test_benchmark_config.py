from pathlib import Path

import pytest
from toy_benchmark import YAML, write_benchmark

from difix3d.benchmark import make_jobs, read_benchmark
from difix3d.benchmark.config import find_benchmark
from difix3d.errors import UserError
from difix3d.training.config import TrainConfig
from difix3d.training.configfile import merge, read_yaml

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "configs" / "benchmarks").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_benchmarks_make_valid_runs(path, tmp_path):
    (tmp_path / "data" / "mine").mkdir(parents=True)
    benchmark = read_benchmark(path, tmp_path / "data")
    jobs = make_jobs(benchmark, tmp_path / "data", tmp_path / "out", {})
    per_scene = len(benchmark.methods) * len(benchmark.seeds) + bool(benchmark.surface)
    assert len(jobs) == len(benchmark.scenes) * per_scene
    by_method = {job.method: merge(TrainConfig(), job.settings, source="job") for job in jobs}
    assert by_method["3dgs"].fixer == "none"
    assert by_method["difix3d"].distill.gate == "on"
    assert "difix3d-paper" not in by_method or by_method["difix3d-paper"].distill.gate == "off"
    assert "once" not in by_method or by_method["once"].distill.mode == "once"


def test_the_shipped_benchmarks_have_the_scenes_of_the_papers():
    count = {path.stem: len(read_yaml(path)["scenes"]) for path in SHIPPED if path.stem not in ("folders", "laptop")}
    assert count == {"mipnerf360": 9, "nerfbusters": 12, "dl3dv": 28}
    hashes = read_yaml(find_benchmark("dl3dv"))["scenes"]
    assert hashes == sorted(set(hashes))
    assert all(len(name) == 64 and int(name, 16) >= 0 for name in hashes)


def test_all_options_of_evaluate_exist():
    from difix3d.cli.evaluate import EvaluateConfig

    for path in SHIPPED:
        assert set(read_yaml(path).get("evaluate", {})) <= set(EvaluateConfig.__dataclass_fields__)


def test_a_name_or_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_benchmark("mipnerf360").name == "mipnerf360.yaml"
    assert find_benchmark(str(write_benchmark(tmp_path))) == tmp_path / "toys.yaml"
    with pytest.raises(UserError, match="no benchmark 'mipnerf'.*dl3dv, folders, laptop, mipnerf360"):
        find_benchmark("mipnerf")


def test_scenes_are_all_folders(tmp_path):
    for name in ("b", "a", ".hidden", "c.partial"):
        (tmp_path / name).mkdir()
    path = write_benchmark(tmp_path, "name: x\nscenes: all\nmethods: {3dgs: }\n")
    assert list(read_benchmark(path, tmp_path).scenes) == ["a", "b"]
    with pytest.raises(UserError, match="no scenes in .*none. Each folder"):
        read_benchmark(path, tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scenes: [a]\n", "has no name and no methods"),
        (YAML + "sede: 3\n", "sets sede, which does not exist. Did you mean seeds"),
        (YAML.replace("{left: {resolution: 32}, right: }", "7"), "sets scenes to 7. It maps names to differences"),
        (YAML.replace("split: every:4", "split: {train: [a]}"), "sets split to .*. It is a name, or has the lists"),
    ],
)
def test_broken_files(text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_benchmark(write_benchmark(tmp_path, text), tmp_path)


def test_choosing_parts(tmp_path):
    benchmark = read_benchmark(write_benchmark(tmp_path), tmp_path)
    part = benchmark.choose(["right"], ["other"], [7])
    assert (list(part.scenes), list(part.methods), part.seeds) == (["right"], ["other"], (7,))
    assert benchmark.choose() == benchmark
    with pytest.raises(UserError, match="toys has no scene 'lft'. Did you mean left"):
        benchmark.choose(["lft"])
    with pytest.raises(UserError, match="toys has no method 'x'. It has 3dgs, other"):
        benchmark.choose(methods=["x"])
