"""SIGTERM and SIGHUP end every command as Ctrl-C does: what is half done is put away."""

import signal
import subprocess
import sys
import time

import pytest
from small_run import write_run

from difix3d import cli
from difix3d.interrupt import SIGNALS

ASKED = [number for number in SIGNALS if number != signal.SIGINT]


@pytest.mark.parametrize("number", ASKED)
@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_unwinds(command, number, monkeypatch):
    done = []

    def work(_args):
        try:
            if signal.getsignal(number) != signal.SIG_DFL:  # else it would end the tests
                signal.raise_signal(number)
        finally:
            done.append(command)

    monkeypatch.setattr(cli, "import_module", lambda name: type("M", (), {command.replace("-", "_"): work}))
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as end:
        cli.dispatch(command, [])
    assert end.value.code == 128 + number
    assert done == [command]
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", ASKED)
def test_a_render_leaves_no_half_video(tmp_path, toy_scene, number):
    run = write_run(tmp_path, toy_scene)
    words = [sys.executable, "-m", "difix3d.cli", "render", run, "--frames", "50000", "--no-images", "--device", "cpu"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not list(run.glob("renders/*/.*.mp4")) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    (folder,) = run.glob("renders/*")
    assert [path.name for path in folder.iterdir()] == [f"{folder.name}.json"]


def test_a_viewer_that_is_terminated_ends(tmp_path, toy_scene):
    pytest.importorskip("viser")
    run = write_run(tmp_path, toy_scene)
    words = [sys.executable, "-m", "difix3d.cli", "view", run, "--port", "0", "--device", "cpu", "--fixer", "none"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    next(line for line in process.stderr if line.startswith("viewer: "))
    process.terminate()
    said = process.stderr.read()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert "Traceback" not in said
