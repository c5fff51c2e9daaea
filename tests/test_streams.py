"""Nobody takes what is printed: no work ends for that, and no command in a traceback."""

import os
import subprocess
import sys

import pytest
import torch

from difix3d.errors import UserError
from difix3d.logs import PERIOD, ProgressLog, TensorBoardLog
from difix3d.streams import LenientStream, lenient_output
from difix3d.training.events import Finished, Started, Stepped

ONE = torch.ones(())


@pytest.fixture
def closed_pipe():
    """The end of a pipe that nobody reads from any more."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


def difix3d(*words, **streams):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run([sys.executable, "-m", "difix3d.cli", *words], **options, text=True, check=False)


def test_a_reader_that_has_enough(closed_pipe):
    """``difix3d download --list | head -0``"""
    result = difix3d("download", "--list", stdout=closed_pipe)
    assert (result.returncode, result.stderr) == (0, "")


def test_output_that_finds_no_room():
    with open("/dev/full", "w") as full:
        result = difix3d("download", "--list", stdout=full)
        assert result.returncode == 2
        assert "difix3d download: What was found could not be printed ([Errno 28]" in result.stderr
        assert "Traceback" not in result.stderr
        assert difix3d("download", "nowhere", stderr=full).returncode == 2


def test_output_that_is_closed():
    shell = 'exec "$0" -m difix3d.cli download nowhere >&- 2>&-'
    assert subprocess.run(["sh", "-c", shell, sys.executable], check=False).returncode == 2


@pytest.mark.parametrize("stream", ["closed", "full", "pipe"])
def test_progress_is_never_a_reason_to_die(stream, monkeypatch, closed_pipe, tmp_path):
    places = {"closed": os.devnull, "full": "/dev/full", "pipe": closed_pipe}
    broken = open(places[stream], "w", buffering=1, closefd=stream != "pipe")  # noqa: SIM115
    if stream == "closed":
        broken.close()
    monkeypatch.setattr(sys, "stderr", broken)
    log = ProgressLog()
    for event in (Started(0, 10, tmp_path, "cpu", 5), *(Stepped(i, {"l1": ONE}, ONE, 5) for i in range(1, 11))):
        log(event)
    log(Finished(10, 1.0, False))
    assert log.console.file.error is not None


def test_what_is_printed_arrives_while_it_can(capsys, monkeypatch):
    with lenient_output():
        print("found")
        print("said", file=sys.stderr)
    assert capsys.readouterr() == ("found\n", "said\n")
    assert not isinstance(sys.stdout, LenientStream)
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)
        with lenient_output() as out:
            print("found")
            with pytest.raises(UserError, match="could not be printed"):
                out.check()


def test_a_log_that_cannot_be_written_ends_no_training(tmp_path, caplog):
    log = TensorBoardLog()
    log(Started(0, 10, tmp_path, "cpu", 5))

    def full(*_):
        raise OSError(28, "No space left on device")

    log._writer.add_scalar = full
    for step in (PERIOD, 2 * PERIOD):
        log(Stepped(step, {"l1": ONE}, ONE, 5))
    log(Finished(2 * PERIOD, 1.0, False))
    assert [record.message for record in caplog.records] == [
        "TensorBoard's log cannot be written any more ([Errno 28] No space left on device)"
    ]
