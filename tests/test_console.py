"""What is printed is what was said, and where it cannot be printed nothing else stops."""

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console
from rich.table import Table

from difix3d.console import Bar, RunningMean, console, print_table, results, track


class Broken(io.StringIO):
    """A closed pipe."""

    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise BrokenPipeError


@pytest.mark.parametrize("text", ["scan[v2]", "a[/b]", "[bold]x[/bold]", "x:smiley:y", "3DGS [default]", "x" * 300])
def test_text_is_printed_as_it_is(capsys, text):
    console.print(text)
    results.print(text)
    table = Table("name")
    table.add_row(text[:100])
    print_table(table)
    with Bar(text, 10) as bar:
        bar.print(text)
        bar.step(5, text)
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == text
    assert text[:100] in out.split("\n", 1)[1]
    assert err.splitlines()[:2] == [text, text]
    assert f"step 5 of 10  {text}" in err


def test_titles_and_states_of_a_live_line_are_text():
    text = io.StringIO()
    with Bar("scan[v2]", 10, to=Console(file=text, force_terminal=True, width=100)) as bar:
        bar.step(5, "a[/b]")
    assert "scan[v2]" in text.getvalue()
    assert "a[/b]" in text.getvalue()


@pytest.mark.parametrize("broken", [Broken, lambda: open("/dev/full", "w", buffering=1)])  # noqa: SIM115
def test_what_cannot_be_printed_is_lost(monkeypatch, broken):
    if broken is not Broken and not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    for name in ("stderr", "stdout"):
        monkeypatch.setattr(sys, name, broken())
    console.print("x" * 100_000)
    results.print("x" * 100_000)
    with Bar("train", 10) as bar:
        bar.step(10, "done")
    assert list(track(range(3), 3, "count")) == [0, 1, 2]


def test_a_closed_stream_and_one_with_few_letters(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    console.print("x")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, "ascii"))
    console.print("Größe: 3 m²")
    assert raw.getvalue() == b"Gr??e: 3 m?\n"


def test_a_reader_that_leaves_ends_nothing(tmp_path):
    code = """
import sys, time
from pathlib import Path
from difix3d.console import Bar, console, results
with Bar("train", 100) as bar:
    for step in range(1, 101):
        bar.step(step, "x" * 1000)
        results.print("x" * 1000)
Path(sys.argv[1]).touch()
"""
    command = f'"{sys.executable}" -c \'{code}\' "{tmp_path / "end"}" 2>&1 | head -1'
    subprocess.run(command, shell=True, check=True, capture_output=True, timeout=120)
    assert (tmp_path / "end").exists()


def test_bars_within_bars():
    text = io.StringIO()
    terminal = Console(file=text, force_terminal=True, width=80)
    with Bar("outer", 2, to=terminal) as outer, Bar("inner", 3, to=terminal) as inner:
        inner.update(3)
        outer.update(1)
    assert "outer" in text.getvalue()


def test_only_one_of_several_processes_shows_anything(capsys):
    with Bar("train", 10, shown=False) as bar:
        bar.step(10, "")
        bar.print("line")
    assert capsys.readouterr() == ("", "")


def test_a_resumed_count_has_lines_for_tenths_of_what_is_left(capsys):
    with Bar("train", 1100, first=1000) as bar:
        for step in range(1001, 1101):
            bar.step(step, "")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("step 1,100 of 1,100")
    assert lines[-1].endswith("0.0 min left")


def test_the_running_mean_begins_with_the_first_value():
    mean = RunningMean(0.9)
    assert mean(10.0) == 10.0
    assert mean(20.0) == pytest.approx(11.0)
