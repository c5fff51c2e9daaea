"""``difix3d fix``: files in, files out, clear errors, nothing half-written."""

import re

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

from difix3d import difix
from difix3d.cli.fix import fix
from difix3d.difix.architecture import random_difix
from difix3d.difix.batch import choose
from difix3d.difix.pipeline import load_difix as load_mini
from difix3d.errors import UserError
from difix3d.images import read_image


@pytest.fixture(autouse=True)
def model(monkeypatch, tiny):
    """The tiny model in place of any weights; ``loaded`` holds what was asked for."""
    loaded = []

    class Pipe:
        unet, device = tiny.unet, tiny.device

        def optimize(self, *args):
            loaded.append(args)

        def __call__(self, *args, **options):
            return tiny(*args, **options)

    def load_difix(*args):
        loaded.append(args)
        return Pipe()

    monkeypatch.setattr(difix, "load_difix", load_difix)
    return loaded


@pytest.fixture
def folders(tmp_path, pictures):
    """Three renders, one of them in a subfolder and of another size, and a photo for each."""
    for folder, seed in (("in", 0), ("ref", 10)):
        for i, (name, size) in enumerate({"a_001.png": (48, 40), "a_004.jpg": (48, 40), "sub/b.png": (50, 37)}.items()):
            path = (tmp_path / folder / name).with_suffix(".png" if folder == "ref" else name[-4:])
            path.parent.mkdir(parents=True, exist_ok=True)
            pictures.photo(*size, seed=seed + i).save(path)
    return tmp_path


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def run(*args):
    fix([str(arg) for arg in args])


def test_folder_with_references_of_the_same_names(folders, tiny, capsys):
    run(folders / "in", "--ref", folders / "ref", "--output", folders / "out", "--compare")
    assert files(folders / "out") == files(folders / "in") == files(folders / "out_compare")
    assert "fixed 3 images" in capsys.readouterr().err
    image, ref = read_image(folders / "in" / "sub" / "b.png"), read_image(folders / "ref" / "sub" / "b.png")
    expected = np.asarray(tiny(image=image, ref_image=ref).images[0])
    result = read_image(folders / "out" / "sub" / "b.png")
    np.testing.assert_allclose(result.astype(int), expected, atol=1)  # a rounding may fall on either side
    compared = read_image(folders / "out_compare" / "sub" / "b.png")
    assert compared.shape == (37, 3 * 50 + 2 * 4, 3)
    assert np.array_equal(compared[:, :50], image)
    assert np.array_equal(compared[:, 54:104], ref)
    assert np.array_equal(compared[:, 108:], result)


def test_one_image_and_the_default_places(folders, model):
    run(folders / "in" / "a_001.png", "--compare")
    assert read_image(folders / "in" / "a_001_fixed.png").shape == (40, 48, 3)
    assert read_image(folders / "in" / "a_001_fixed_compare.png").shape == (40, 2 * 48 + 4, 3)
    assert model[0][0] == "nvidia/difix"
    run(folders / "in" / "a_001.png", "--ref", folders / "ref" / "a_001.png", "--output", folders / "new" / "x.png")
    assert files(folders / "new") == ["x.png"]
    assert model[2][0] == "nvidia/difix_ref"


def test_options_reach_the_model(folders, model):
    run(folders / "in" / "a_001.png", "--fixer", "w.pkl", "--base", "turbo", "--dtype", "bf16", "--device", "cpu")
    assert model == [
        ("w.pkl", torch.device("cpu"), torch.bfloat16, "turbo"),
        (torch.float32, False, "remove degradation", False),
    ]


def test_the_name_that_the_fixer_had(folders, model, capsys):
    run(folders / "in" / "a_001.png", "--weights=w.pkl")
    assert model[0][0] == "w.pkl"
    assert "--weights is called --fixer now" in capsys.readouterr().err


def test_a_device_that_is_not_there(folders, model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        run(folders / "in" / "a_001.png", "--device", "cuda")
    assert model == []


def test_colours_are_anchored_unless_told_otherwise(folders, tiny, monkeypatch):
    monkeypatch.setattr(tiny, "fix", lambda images, *_, **__: 0.8 * images + 0.1)
    source = folders / "in" / "a_001.png"
    before = read_image(source).astype(float)
    run(source, "--output", folders / "anchored.png")
    run(source, "--output", folders / "raw.png", "--no-anchor-colors")
    assert np.abs(read_image(folders / "anchored.png") - before).max() <= 1
    assert np.abs(read_image(folders / "raw.png") - (0.8 * before + 25.5)).max() <= 1


def test_nearest_name(folders):
    refs = [folders / f"{name}.png" for name in ("a_001", "a_006", "b_100", "door")]
    assert choose(folders / "a_004.png", refs, nearest=False) is None
    assert choose(folders / "a_004.png", refs, nearest=True) == refs[1]
    assert choose(folders / "a_0001.png", refs, nearest=True) == refs[0]
    assert choose(folders / "b_006.jpg", refs, nearest=True) == refs[1]
    assert choose(folders / "doors.png", refs, nearest=True) == refs[3]


def test_missing_reference(folders):
    (folders / "ref" / "a_004.png").unlink()
    with pytest.raises(UserError, match=r"1 of 3 images have no reference, first .*a_004\.jpg.*--nearest"):
        run(folders / "in", "--ref", folders / "ref", "--output", folders / "out")
    assert not (folders / "out").exists()
    run(folders / "in", "--ref", folders / "ref", "--output", folders / "out", "--nearest")
    assert len(files(folders / "out")) == 3


def test_bad_image_is_named_before_anything_is_written(folders, model, capsys):
    bad = folders / "in" / "a_004.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    with pytest.raises(UserError, match=r"a_004\.jpg is unreadable.*1 of 3.*--skip-bad"):
        run(folders / "in", "--output", folders / "out")
    assert not (folders / "out").exists()
    assert not model  # and before the model is loaded
    run(folders / "in", "--output", folders / "out", "--skip-bad")
    assert files(folders / "out") == ["a_001.png", "sub/b.png"]
    assert "skipped 1" in (text := capsys.readouterr().err)
    assert "a_004.jpg" in text.replace("\n", "")


def test_bad_and_missing_references_are_skipped(folders, capsys):
    (folders / "ref" / "a_001.png").write_text("no image")
    (folders / "ref" / "a_004.png").unlink()
    run(folders / "in", "--ref", folders / "ref", "--output", folders / "out", "--skip-bad")
    assert files(folders / "out") == ["sub/b.png"]
    assert "skipped 2" in capsys.readouterr().err


def test_wrong_paths(folders):
    (folders / "empty").mkdir()
    image = folders / "in" / "a_001.png"
    for args, words in (
        ((folders / "none",), "none does not exist"),
        ((folders / "empty",), "There is no image in .*empty"),
        ((folders / "in", "--output", folders / "in"), "is the input itself"),
        ((image, "--output", image), "is the input itself"),
        ((image, "--ref", folders / "empty"), "There is no reference image in .*empty"),
        ((image, "--ref", folders / "none.png"), "There is no reference image in .*none"),
    ):
        with pytest.raises(UserError, match=words):
            run(*args)


def test_nothing_is_left_of_a_result_that_fails(folders, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(UserError, match="disk full"):
        run(folders / "in", "--output", folders / "out")
    assert files(folders / "out") == []


@pytest.fixture
def video(folders):
    path = folders / "flight.mp4"
    with imageio.get_writer(path, "ffmpeg", fps=10, macro_block_size=1, pixelformat="yuv444p") as writer:
        for i in range(3):
            writer.append_data(np.full((37, 50, 3), 60 * i, np.uint8))
    return path


def test_video(folders, video):
    run(video, "--ref", folders / "ref" / "a_001.png", "--compare")
    for name, width in (("flight_fixed", 50), ("flight_fixed_compare", 50 + 48 * 37 // 40 + 50 + 2 * 4)):
        with imageio.get_reader(folders / f"{name}.mp4") as reader:
            assert reader.count_frames() == 3
            assert reader.get_meta_data()["fps"] == 10
            assert reader.get_data(0).shape == (38, width, 3)  # 37 is odd


def test_video_errors(folders, video, tiny, monkeypatch):
    (folders / "ref" / "sub" / "b.png").unlink()
    with pytest.raises(UserError, match=r"holds 2 references for 3 frames of .*flight\.mp4"):
        run(video, "--ref", folders / "ref")
    broken = folders / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(UserError, match=r"broken\.mp4 cannot be read"):
        run(broken)
    calls = iter([0, 0])
    monkeypatch.setattr(difix, "load_difix", lambda *_: FailsAtThirdFrame(tiny, calls))
    with pytest.raises(UserError, match="third"):
        run(video)
    assert not [name for name in files(folders) if "fixed" in name or "partial" in name]


class FailsAtThirdFrame:
    def __init__(self, tiny, calls):
        self.tiny, self.calls = tiny, calls
        self.unet, self.device = tiny.unet, tiny.device

    def optimize(self, *_):
        pass

    def __call__(self, *args, **options):
        if next(self.calls, None) is None:
            raise UserError("the third frame fails")
        return self.tiny(*args, **options)


def test_check_frozen_says_what_is_lost_and_writes_nothing(folders, monkeypatch, capsys):
    monkeypatch.setattr(difix, "load_difix", lambda *_: random_difix())
    before = files(folders)
    run(folders / "in", "--ref", folders / "ref", "--check-frozen")
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("the reference changes") == 3
    assert re.search(r"--frozen loses \d+% of what references do", said)
    assert files(folders) == before
    with pytest.raises(UserError, match="--check-frozen is about images beside their references"):
        run(folders / "in", "--check-frozen")


def test_frozen_references(folders, monkeypatch):
    made = random_difix()
    monkeypatch.setattr(difix, "load_difix", lambda *_: made)
    run(folders / "in", "--ref", folders / "ref", "--frozen")
    assert made.frozen_references
    monkeypatch.setattr(difix, "load_difix", lambda *_: load_mini("mini", "cpu"))
    with pytest.raises(UserError, match="Nothing of those can be frozen"):
        run(folders / "in", "--ref", folders / "ref", "--frozen")
