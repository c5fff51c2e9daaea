"""Files appear whole or not at all, JSON is JSON, and names out of other files lead nowhere else."""

import errno
import json
import math
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from difix3d.errors import UserError
from difix3d.files import (
    claim,
    or_nan,
    read_json,
    sweep,
    whole_file,
    write_bytes,
    write_json,
    write_text,
)
from difix3d.images import write_image
from difix3d.places import cache_folder, safe_names
from difix3d.runfiles import append_row, read_rows
from difix3d.types import Gaussians

FULL = OSError(errno.ENOSPC, "No space left on device")


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "old\n")
    write_text(path, "Größe\n")
    assert path.read_bytes() == "Größe\n".encode()
    write_bytes(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert entries(path.parent) == ["a.txt"]


def test_an_error_on_the_way_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError), whole_file(path) as partial:  # noqa: PT012 (the context is what is tested)
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert entries(tmp_path) == ["a.txt"]


def _model() -> Gaussians:
    import torch

    return Gaussians(*(torch.zeros(2, *shape) for shape in ((3,), (4,), (3,), (), (1, 3), (0, 3))))


def _ply(path: Path) -> None:
    from difix3d.gaussians import write_ply

    write_ply(_model(), path)


def _yaml(path: Path) -> None:
    from difix3d.training import TrainConfig
    from difix3d.training.configfile import write_yaml

    write_yaml(TrainConfig(), path)


def test_what_killed_processes_left_is_swept(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    (tmp_path / "eval").mkdir()
    left = tmp_path / "eval" / f".{killed.pid}-3.partial.png"
    recent, running = tmp_path / f".{killed.pid}-4.partial", tmp_path / f".{os.getpid()}-0.partial.json"
    mine = [tmp_path / name for name in (".1.partial.png", f".{killed.pid}-x.partial.png", "a.partial")]
    for path in (left, recent, running, *mine):
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    os.utime(recent)
    sweep(tmp_path)
    assert not left.exists()
    assert all(path.exists() for path in (recent, running, *mine))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "new"),
        lambda path: write_json(path, {"new": 1}),
        lambda path: append_row(path, {"step": 1}, bool),
        lambda path: write_image(path.with_suffix(".png"), np.zeros((2, 2, 3), np.uint8)),
        _ply,
        _yaml,
    ],
)
def test_a_full_disk_is_one_error_with_its_cure(tmp_path, monkeypatch, write):
    def full(*_: object) -> None:
        raise FULL

    path = tmp_path / "a.json"
    path.write_text("[]")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(
        UserError, match=r"Cannot write .*(a|checksums)\.(json|png) \(No space left on device\)\. Free some space"
    ):
        write(path)
    assert path.read_text() == "[]"
    assert entries(tmp_path) == ["a.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_full_half_way(tmp_path):
    with (  # noqa: PT012 (the context is what is tested)
        pytest.raises(UserError, match=r"a\.txt \(No space left on device\)"),
        whole_file(tmp_path / "a.txt") as file,
    ):
        file.symlink_to("/dev/full")
        file.write_bytes(bytes(10_000))
    assert entries(tmp_path) == []


def test_only_a_folder_of_its_own_is_claimed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").touch()
    for _ in range(2):
        claim(tmp_path / "new" / "frames")
        (tmp_path / "new" / "frames" / "0.png").touch()
        with pytest.raises(UserError, match="mine holds files that difix3d did not write"):
            claim(tmp_path / "mine")
    assert entries(tmp_path / "mine") == ["a.png"]
    with pytest.raises(UserError, match="Cannot write"):
        claim(tmp_path / "mine" / "a.png")


def test_json_has_no_nan_and_no_infinity(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"psnr": [math.inf, 30.0, -math.inf], "means": {"fid": math.nan}, "count": (1, 2)})

    def constant(name: str) -> float:
        raise AssertionError(f"{name} is no JSON")

    content = json.loads(path.read_text(), parse_constant=constant)
    assert content == read_json(path) == {"psnr": [None, 30.0, None], "means": {"fid": None}, "count": [1, 2]}
    assert math.isnan(or_nan(content["psnr"][0]))
    assert or_nan(30.0) == 30.0


def test_rows_are_added_and_replaced(tmp_path):
    path = tmp_path / "rows.json"
    assert read_rows(path) == []
    for step in (10, 20, 30, 20):
        append_row(path, {"step": step, "loss": math.inf}, lambda row, step=step: row["step"] < step)
    assert read_rows(path) == [{"step": 10, "loss": None}, {"step": 20, "loss": None}]


@pytest.mark.parametrize("content", ["", "{", "{}", "[1]", "[{}]", '[{"step": "1"}]', '[{"step": 1'])
def test_damaged_rows_are_named(tmp_path, content):
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"rows\.json"):
        read_rows(path)
    with pytest.raises(UserError, match=r"rows\.json"):
        append_row(path, {"step": 1}, bool)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b'{"a": 1,}', "broken at line 1, column"),
        (b"\xff{}", "is not text"),
        (b"[]", "holds a list"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "cannot be read as JSON"),
    ],
)
def test_what_is_wrong_with_a_json_file_is_said(tmp_path, content, words):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match="does not exist"):
        read_json(tmp_path / "b.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path)


def test_the_cache_folder_is_asked_for_when_it_is_used(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert cache_folder() == tmp_path / "other" / "difix3d"
    for nothing in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", nothing)
        assert cache_folder() == tmp_path / ".cache" / "difix3d"

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(UserError, match="no home folder.*Set HOME or XDG_CACHE_HOME"):
        cache_folder()


def test_ordinary_names_lose_their_suffix_only():
    assert safe_names(["left/0001.jpg", "right/0001.jpg", "IMG 2.JPG"]) == ["left/0001", "right/0001", "IMG 2"]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("/home/me/a.jpg", "home/me/a"),
        ("../b.png", "_/b"),
        ("a/../../b.png", "a/_/_/b"),
        ("./a//b.png", "a/b"),
        ("..\\..\\b.png", "_/_/b"),
        ("C:\\photos\\a.jpg", "C_/photos/a"),
        ("", "_"),
        ("/", "_"),
        ("..", "_"),
        ("a\0b\n.jpg", "a_b_"),
        ("what?.jpg", "what_"),
        ("dots. . .", "dots"),
        ("con.png", "_con"),
        ("left/AUX", "left/_AUX"),
        ("x.png/y.jpg", "x_png/y"),
        ("scan 1.2/y.jpg", "scan 1.2/y"),
    ],
)
def test_a_place_stays_inside(name, place):
    assert safe_names([name]) == [place]


def test_places_are_apart(tmp_path):
    names = ["a.jpg", "a.png", "A.PNG", "a.jpg.png", "/a.jpg", "../a.jpg", "_/a.jpg", "b.0001", "b.0002", "c\0", "c\1"]
    names += ["x" * 300 + ".jpg", "x" * 300 + ".png", "x" * 301 + ".jpg", "ä" * 200 + "/y.jpg"]
    names += ["漢" * 83 + ".png", "漢" * 83 + ".jpg", "é.png", "e\u0301.png", "d.jpg", "d.png/e.jpg", "D.PNG/E.jpg"]
    names += [f"{safe_names(['a.jpg', 'A.jpg'])[0]}.png", f"{safe_names(['b/a', 'b/A'])[1]}/a.png"]
    places = safe_names(names)
    assert len({unicodedata.normalize("NFC", place).casefold() for place in places}) == len(names)
    assert dict(zip(names, places, strict=True))["b.0001"] == "b.0001"
    assert safe_names(names[::-1]) == places[::-1]
    for place in places:
        file = tmp_path / f"{place}.png"
        write_bytes(file, b"")
        assert file.resolve().is_relative_to(tmp_path)
    assert len(list(tmp_path.rglob("*.png"))) == len(names)
