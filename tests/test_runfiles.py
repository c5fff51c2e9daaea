"""State files of a run: what was cut short or changed is noticed, and there is one writer."""

import json
import logging
import subprocess
import sys

import pytest

from difix3d.errors import UserError
from difix3d.files import write_text
from difix3d.runfiles import CHECKSUMS, append_row, changed, lock, mend_rows, read_rows, write_state


def test_a_changed_file_is_noticed(tmp_path):
    path = tmp_path / "a.json"
    for text in ("one", "two", "three"):
        write_state(path, text)
        assert not changed(path)
    path.write_text("thrae")
    assert changed(path)
    path.write_text("")
    assert changed(path)


def test_killed_between_checksum_and_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_state(path, "one")

    def killed(file, text):
        if file == path:
            raise KeyboardInterrupt
        write_text(file, text)

    monkeypatch.setattr("difix3d.runfiles.write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        write_state(path, "two")
    assert not changed(path)
    monkeypatch.undo()
    write_state(path, "three")
    assert not changed(path)


@pytest.mark.parametrize("checksums", [None, "", "[]", '{"a.json": "x"}'])
def test_without_checksums_nothing_is_known(tmp_path, checksums):
    path = tmp_path / "a.json"
    path.write_text("as an older version wrote it")
    if checksums is not None:
        (tmp_path / CHECKSUMS).write_text(checksums)
    assert not changed(path)
    write_state(path, "now")
    path.write_text("other")
    assert changed(path)


@pytest.mark.parametrize("content", [b"", b"[{", b"{}", b"\xff", b"[1]"])
def test_damaged_rows_are_kept_aside(tmp_path, caplog, content):
    path = tmp_path / "metrics.json"
    for _ in range(2):
        path.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            mend_rows(path)
    assert [(tmp_path / name).read_bytes() for name in ("metrics.damaged.json", "metrics.damaged1.json")] == [
        content
    ] * 2
    assert "It is kept as metrics.damaged.json" in caplog.text
    append_row(path, {"step": 1}, bool)
    assert read_rows(path) == [{"step": 1}]


def test_changed_rows_are_said(tmp_path, caplog):
    path = tmp_path / "metrics.json"
    append_row(path, {"step": 1, "psnr": 21.5}, bool)
    mend_rows(path)
    assert not caplog.records
    path.write_text(path.read_text().replace("21.5", "91.5"))
    mend_rows(path)
    assert "was changed after it was written" in caplog.text
    assert json.loads(path.read_text())[0]["psnr"] == 91.5


def test_rows_that_are_missing_are_said(tmp_path, caplog):
    path = tmp_path / "rounds.json"
    mend_rows(path)
    assert not caplog.records
    append_row(path, {"step": 1}, bool)
    path.unlink()
    mend_rows(path)
    assert f"{path} is missing; the run goes on without its rows" in caplog.text
    assert read_rows(path) == []


def test_a_folder_in_place_of_the_lock(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UserError, match=r"\.lock: a folder is in its place\. Move it away"):
        lock(tmp_path)


def test_one_writer(tmp_path):
    taken = lock(tmp_path)
    with pytest.raises(UserError, match="is being written by another training"):
        lock(tmp_path)
    taken.release()
    code = (
        "import os; from pathlib import Path; from difix3d.runfiles import lock\n"
        f"taken = lock(Path({str(tmp_path)!r})); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    lock(tmp_path).release()  # the killed process's
