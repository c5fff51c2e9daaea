"""``difix3d render``: a run and a path in, frames and a video out."""

import json
from dataclasses import replace
from itertools import count

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from small_run import write_run

from difix3d.cli.render import RenderConfig, render, sized, write
from difix3d.difix import DifixFixer
from difix3d.errors import UserError
from difix3d.files import OWN
from difix3d.images import read_image, to_uint8
from difix3d.scene.pathfile import CameraPath, write_path
from difix3d.scene.paths import path_cameras
from difix3d.training.load import load_run


@pytest.fixture
def run(tmp_path, toy_scene):
    return write_run(tmp_path, toy_scene)


def call(*args):
    render([str(arg) for arg in args])


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != OWN)


def test_frames_and_video(run, capsys):
    call(run, "--path", "interp", "--frames", 6, "--fps", 12)
    folder = run / "renders" / "interp"
    assert files(folder) == [*(f"frames/{i:05d}.png" for i in range(6)), "interp.json", "interp.mp4"]
    loaded = load_run(run)
    cameras = path_cameras("interp", loaded.scene, 6).cameras
    for i in range(6):
        expected = to_uint8(loaded.render(cameras[i]).rgb[0])
        np.testing.assert_array_equal(read_image(folder / "frames" / f"{i:05d}.png"), expected)
    with imageio.get_reader(folder / "interp.mp4") as reader:
        assert reader.get_meta_data()["fps"] == 12
        assert reader.count_frames() == 6
        for i, frame in enumerate(reader):  # in order
            picture = read_image(folder / "frames" / f"{i:05d}.png")
            assert np.abs(np.asarray(frame).astype(int) - picture).mean() < 8
    report = capsys.readouterr().err
    assert "rendered 6 frames of 48 x 40 at step 10" in report
    assert "ms per frame" in report
    assert str(folder / "frames") in report.replace("\n", "")


def test_the_written_path_renders_the_same_frames(run):
    call(run, "--frames", 3, "--no-video", "--resolution", 64)  # the default fits this capture from one side
    call(run, "--path", run / "renders" / "spiral" / "spiral.json", "--output", run / "again")
    assert files(run / "again") == ["frames/00000.png", "frames/00001.png", "frames/00002.png", "spiral.mp4"]
    for i in range(3):
        first, again = (
            read_image(folder / "frames" / f"{i:05d}.png") for folder in (run / "renders/spiral", run / "again")
        )
        assert first.shape == (53, 64, 3)
        assert np.abs(first.astype(int) - again).max() <= 1


def test_frames_of_others_are_left_alone(run, tmp_path):
    mine = tmp_path / "trip" / "frames" / "00007.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(UserError, match="frames holds files that difix3d did not write"):
        call(run, "--path", "spiral", "--frames", 2, "--no-video", "--output", tmp_path / "trip")
    assert files(tmp_path / "trip") == ["frames/00007.png"]
    assert mine.read_bytes() == b"mine"
    for frames in (3, 2):
        call(run, "--path", "spiral", "--frames", frames, "--no-video", "--output", tmp_path / "other")
    assert files(tmp_path / "other") == ["frames/00000.png", "frames/00001.png", "spiral.json"]


def test_a_shorter_path_leaves_no_older_frames(run):
    call(run, "--path", "spiral", "--frames", 5, "--no-video")
    (run / "renders" / "spiral" / "frames" / "mine.png").write_bytes(b"")
    call(run, "--path", "spiral", "--frames", 2, "--no-video")
    assert files(run / "renders" / "spiral" / "frames") == ["00000.png", "00001.png", "mine.png"]


def test_an_earlier_step_and_no_images(run, capsys):
    call(run, "--path", "ellipse", "--frames", 2, "--step", 5, "--no-images", "-o", run / "half")
    assert files(run / "half") == ["ellipse.json", "ellipse.mp4"]
    assert "at step 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (48, 40)),
        ({"width": 96}, (96, 80)),
        ({"height": 20}, (24, 20)),
        ({"width": 30, "height": 80}, (30, 80)),
        ({"resolution": 24}, (24, 20)),
    ],
    ids=str,
)
def test_sizes(toy_scene, run, options, size):
    cameras = sized(toy_scene.cameras, RenderConfig(run, **options))
    assert cameras.size == size
    torch.testing.assert_close(cameras.K[:, 0, 0], cameras.K[:, 1, 1])  # pixels stay square


def test_a_path_of_several_sizes(run, tmp_path, capsys):
    scene = load_run(run).scene
    path = path_cameras("interp", scene, 2)
    path = replace(path, cameras=replace(path.cameras, width=torch.tensor([48, 50])))
    write_path(path, tmp_path / "mixed.json", scene)
    with pytest.raises(UserError, match=r"mixed\.json have 2 sizes.*--resolution, or --no-video"):
        call(run, "--path", tmp_path / "mixed.json")
    call(run, "--path", tmp_path / "mixed.json", "--no-video", "--output", tmp_path / "out")
    assert [read_image(tmp_path / "out" / "frames" / f"0000{i}.png").shape[1] for i in (0, 1)] == [48, 50]
    assert "rendered 2 frames of 2 sizes" in capsys.readouterr().err
    call(run, "--path", tmp_path / "mixed.json", "--height", 40, "--output", tmp_path / "out")
    assert "mixed.mp4" in files(tmp_path / "out")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--no-images", "--no-video"), "nothing to write"),
        (("--path", "x.json", "--frames", 3), r"--frames is 3, but x\.json has its own number"),
        (("--path", "x.json"), r"no camera path 'x\.json'"),
        (("--frames", 0), "--frames is 0.*1 to 100,000"),
        (("--frames", 10**14), "--frames is 100000000000000.*1 to 100,000"),
        (("--fps", 1e-300), "--fps is 1e-300. It must be 0.1 to 1,000"),
        (("--resolution", 64, "--width", 64), "--resolution is given with --width"),
        (("--width", 0), "--width is 0. It must be 1 to 16,384"),
        (("--height", 99999), "--height is 99999. It must be 1 to 16,384"),
        (("--step", 3), "no checkpoint of step 3"),
    ],
)
def test_wrong_options_write_nothing(run, args, words):
    before = files(run)
    with pytest.raises(UserError, match=words):
        call(run, *args)
    assert files(run) == before


def test_an_output_that_is_a_file(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot make the folder .*file.*Choose another --output"):
        call(run, "--output", tmp_path / "file")


def test_an_error_in_the_midst_leaves_no_video(tmp_path):
    def fails():
        yield torch.zeros(40, 48, 3)
        raise UserError("the second frame fails")

    with pytest.raises(UserError, match="second"):
        write(fails(), tmp_path / "frames", tmp_path / "a.mp4", 24.0)
    assert files(tmp_path) == ["frames/00000.png"]


def test_few_frames_wait_in_memory_and_a_full_disk_stops_the_rendering(tmp_path, monkeypatch):
    from difix3d.cli import render as command

    def full(*_, **__):
        raise UserError("Cannot write: disk full")

    made = count()
    monkeypatch.setattr(command, "write_image", full)
    with pytest.raises(UserError, match="disk full"):
        write((torch.full((8, 8, 3), next(made) / 1000) for _ in range(1000)), tmp_path / "frames", None, 24.0)
    assert next(made) <= 2 * command.WORKERS + 2


def test_a_file_of_nerfstudio(run, tmp_path):
    scene = load_run(run).scene
    pose = np.linalg.inv(scene.from_input) @ scene.cameras.c2w[0].double().numpy() @ np.diag([1.0, -1, -1, 1])
    pose[:3, :3] /= np.cbrt(np.linalg.det(pose[:3, :3]))
    fov = 2 * np.degrees(np.arctan(20 / float(scene.cameras.K[0, 1, 1])))
    frame = {"camera_to_world": pose.flatten().tolist(), "fov": fov, "aspect": 1.2}
    content = {"render_height": 40, "render_width": 48, "fps": 10, "camera_path": [frame]}
    (tmp_path / "camera_path.json").write_text(json.dumps(content))
    call(run, "--path", tmp_path / "camera_path.json", "--output", tmp_path / "out")
    picture = read_image(tmp_path / "out" / "frames" / "00000.png")
    expected = to_uint8(load_run(run).render(scene.cameras[0]).rgb[0])
    assert np.abs(picture.astype(int) - expected).max() <= 1


def test_plus_renders_through_difix(run, shared):
    options = ["--path", "interp", "--frames", 3, "--no-video"]
    plus = [*options, "--plus", "--fixer", shared / "golden" / "tiny_difix_ref"]
    call(run, *options)
    call(run, *plus)
    call(run, *plus, "--no-trust", "-o", run / "all")
    plain = read_image(run / "renders" / "interp" / "frames" / "00001.png")
    trusting = read_image(run / "renders" / "interp_plus" / "frames" / "00001.png")
    paper = read_image(run / "all" / "frames" / "00001.png")
    np.testing.assert_array_equal(trusting, plain)  # random weights earn no trust
    assert np.abs(paper.astype(int) - plain).mean() > 10


def test_plus_fixes_frames_together_where_they_fit(run, monkeypatch):
    asked = []
    monkeypatch.setattr("difix3d.cli.render.fix_together", lambda _, *given: asked.append(given))
    call(
        run,
        "--path",
        "interp",
        "--frames",
        2,
        "--resolution",
        32,
        "--no-video",
        "--plus",
        "--fixer",
        "mini",
        "--device",
        "cpu",
    )
    frame = read_image(run / "renders" / "interp_plus" / "frames" / "00000.png")
    assert asked == [(frame[..., 0].size, torch.device("cpu"))]


def test_plus_of_each_fourth_frame(run, shared):
    options = ["--path", "interp", "--frames", 5, "--no-video", "--plus", "--no-trust"]
    options += ["--fixer", shared / "golden" / "tiny_difix_ref"]
    call(run, *options, "-o", run / "each")
    call(run, *options, "--every", 4, "-o", run / "fourth")
    each, fourth = (
        [read_image(run / name / "frames" / f"0000{i}.png") for i in range(5)] for name in ("each", "fourth")
    )
    np.testing.assert_array_equal(each[0], fourth[0])
    assert len(fourth) == 5
    for option in (["--every", 4], ["--mix", 0.5], ["--frozen"]):
        with pytest.raises(UserError, match="Pass --plus"):
            call(run, *option)
    with pytest.raises(UserError, match=r"every.*0"):
        call(run, "--plus", "--every", 0)


def test_plus_with_frozen_references(run, shared):
    options = ["--path", "interp", "--frames", 2, "--no-video", "--plus", "--no-trust"]
    weights = ["--fixer", shared / "golden" / "tiny_difix_ref"]
    call(run, *options, *weights, "-o", run / "usual")
    call(run, *options, *weights, "--frozen", "-o", run / "frozen")
    usual, frozen = (read_image(run / name / "frames" / "00001.png") for name in ("usual", "frozen"))
    assert 0 < np.abs(usual.astype(int) - frozen).mean() < 10
    with pytest.raises(UserError, match="Nothing of those can be frozen"):
        call(run, *options, "--fixer", "mini", "--frozen")


@pytest.mark.parametrize("every", [1, 3])
def test_plus_of_a_path_with_cuts_outside_views_and_sizes_by_a_fixer_that_fails(run, monkeypatch, caplog, every):
    """Each frame comes, in its size; one that failed, or shows nothing, as rendered. The failure is said once."""
    scene = load_run(run).scene
    cameras = path_cameras("interp", scene, 60).cameras[[0, 1, 2, 40, 41, 41, 5, 6, 7]]
    c2w, width = cameras.c2w.clone(), cameras.width.clone()
    c2w[5, :3, 3] += 1000
    width[6:] += 8
    write_path(CameraPath(replace(cameras, c2w=c2w, width=width), 24.0), run / "rough.json", scene)
    fix, calls = DifixFixer._fix, count()
    monkeypatch.setattr(DifixFixer, "_fix", lambda self, group: fix(self, group) if next(calls) != 1 else 1 / 0)
    options = ["--path", run / "rough.json", "--no-video", "--device", "cpu"]  # where each frame is fixed by itself
    call(run, *options, "-o", run / "plain")
    call(run, *options, "--plus", "--no-trust", "--fixer", "mini", "--every", every, "--mix", 0.5, "-o", run / "plus")
    plain, plus = ([read_image(run / n / "frames" / f"0000{i}.png") for i in range(9)] for n in ("plain", "plus"))
    assert [picture.shape[1] for picture in plus] == [48] * 6 + [56] * 3
    changed = [i for i in range(9) if np.abs(plus[i].astype(int) - plain[i]).max() > 0]
    assert changed == ([0, 2, 3, 4, 6, 7, 8] if every == 1 else [0, 1, 2, 4, 6, 7, 8])
    assert caplog.text.count("failed at a frame (ZeroDivisionError") == 1


def test_plus_needs_a_fixer(tmp_path, toy_scene):
    run = write_run(tmp_path, toy_scene, fixer="none")
    with pytest.raises(UserError, match=r"--plus needs Difix.*--fixer none.*Pass --fixer"):
        call(run, "--plus")
