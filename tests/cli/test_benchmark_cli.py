import pytest
from toy_benchmark import YAML, commands, write_benchmark  # noqa: F401

from difix3d.cli.benchmark import benchmark, parse_changes
from difix3d.errors import UserError


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs the command on the toy benchmark, whose scenes are all there; returns the output."""
    path = write_benchmark(tmp_path)
    for scene in ("left", "right"):
        (tmp_path / "data" / scene).mkdir(parents=True)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*args):
        benchmark([str(path), "--data-dir", str(tmp_path / "data"), "--output-dir", str(tmp_path / "out"), *args])
        return capsys.readouterr().out

    return run


def test_runs_all_fills_the_table_and_skips_what_is_finished(call, commands, tmp_path):  # noqa: F811
    output = call("--methods", "3dgs", "--seeds", "0")
    assert "left / 3dgs / seed 0: done" in output
    assert "2 of 2 runs finished" in output
    assert "all scenes" in output
    assert len(commands) == 4
    assert (tmp_path / "out" / "table.csv").exists()
    output = call("--seeds", "0")
    assert "2 of 4 runs are finished already" in output
    assert len(commands) == 8


def test_the_table_has_what_was_finished_before(call, commands, tmp_path):  # noqa: F811
    call("--methods", "3dgs", "--seeds", "1")
    assert "2 of 2 runs finished" in call("--methods", "other", "--scenes", "left")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| right | 3DGS |" in text
    assert "| left | 3DGS [other] |" in text
    call("--methods", "other", "--scenes", "left", "--set", "max_steps=10", "--output-dir", str(tmp_path / "out2"))
    assert "| 3DGS |" not in (tmp_path / "out2" / "table.md").read_text()


def test_failures_are_listed_and_the_status_is_1(call, commands, capsys):  # noqa: F811
    commands.fail = {"right/other/seed_1": "no memory"}
    with pytest.raises(SystemExit) as error:
        call()
    assert error.value.code == 1
    output = capsys.readouterr().out
    assert "7 of 8 runs finished" in output
    assert "1 of 8 runs failed" in output
    assert "right / other / seed 1: no memory" in output
    assert "right/other/seed_1/log.txt" in output
    commands.fail = {}
    assert "8 of 8 runs finished" in call()


def test_a_dry_run_does_nothing(call, commands, tmp_path):  # noqa: F811
    output = call("--dry-run", "--scenes", "left", "--set", "max_steps=7")
    assert output.count("difix3d train --config") == 4
    assert "left / other / seed 1: new" in output
    assert not commands
    assert not (tmp_path / "out").exists()


def test_only_the_table(call, commands):  # noqa: F811
    assert "0 of 8 runs finished" in call("--table-only")
    call("--seeds", "1")
    before = len(commands)
    assert "4 of 8 runs finished" in call("--table-only")
    assert len(commands) == before


def test_changes():
    assert parse_changes(["a.b=1e-3", "a.c=[1, 2]", "split=every:4", "d=none"]) == {
        "a": {"b": "1e-3", "c": [1, 2]},
        "split": "every:4",
        "d": "none",
    }
    with pytest.raises(UserError, match="--set max_steps is no setting. It takes KEY=VALUE"):
        parse_changes(["max_steps"])
    with pytest.raises(UserError, match="--set seed=7 would change nothing.*--seeds 7"):
        parse_changes(["seed=7"])
    with pytest.raises(UserError, match="cannot be read"):
        parse_changes(["a=[1"])


def test_impossible_options(call, commands):  # noqa: F811
    with pytest.raises(UserError, match="--workers is 0"):
        call("--workers", "0")
    with pytest.raises(UserError, match="no scene 'lft'"):
        call("--scenes", "lft")
