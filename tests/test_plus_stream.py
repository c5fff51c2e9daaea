"""The "+" along a path: changes carried from key frames, the running mix, and paths and fixers as they come."""

import threading
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch

from difix3d.difix.fixer import batches
from difix3d.errors import UserError
from difix3d.postrender import PostRender
from difix3d.render import rasterize
from difix3d.scene import Views
from difix3d.scene.paths import path_cameras


class Brighten:
    """Adds a tenth, or for each frame another one; knows what it was given, and fails when told: with an error, or with
    what ``fault`` makes of the image."""

    def __init__(self, *, flicker=0.0, fails=(), batch=1, fault=None):
        self.flicker, self.fails, self.batch, self.fault = flicker, set(fails), batch, fault
        self.count, self.given = 0, []

    def __call__(self, degraded):
        for group in batches(degraded, self.batch):
            self.given += [item.camera for item in group]
            failed = [float(item.camera.c2w[0, 0, 3]) in self.fails for item in group]
            if any(failed) and self.fault is None:
                raise RuntimeError("out of luck")
            for item, wrong in zip(group, failed, strict=True):
                self.count += 1
                image = item.rgb + 0.1 + self.flicker * (-1) ** self.count
                yield self.fault(image) if wrong else image


def one_nan(image):
    image[3, 4, 1] = float("nan")
    return image


FAULTS = [
    (None, "RuntimeError: out of luck"),
    (one_nan, "NaN or infinite values"),
    (lambda image: image[:-1], "is 39 x 48 x 3"),
    (lambda image: image.numpy(), "is a ndarray"),
]


@pytest.fixture
def model(toy_scene, truth):
    def make(fixer, **options):
        return PostRender(truth, fixer, toy_scene, Views(toy_scene).__getitem__, **{"trust": False} | options)

    return make


@pytest.fixture
def path(toy_scene):
    """Fourteen cameras close to each other."""
    cameras = path_cameras("interp", toy_scene, 300).cameras
    return [cameras[i] for i in range(14)]


def plain(truth, camera):
    return truth(camera).rgb[0].clamp(0, 1)


@pytest.mark.parametrize(("every", "fixed"), [(1, 14), (2, 7), (4, 4), (100, 1)])
def test_only_key_frames_are_fixed_and_their_change_is_carried(model, truth, path, every, fixed):
    fixer = Brighten()
    frames = list(model(fixer).stream(path, every=every))
    assert len(fixer.given) == fixed
    assert len(frames) == 14
    for frame, camera in zip(frames, path, strict=True):
        change = frame - plain(truth, camera)
        assert change.median() == pytest.approx(0.1, abs=0.01)
        assert frame.max() <= (1 if every > 1 else 1.1)


class Fill(Brighten):
    """Fills holes first, with what the colours around them are: another grey in each frame."""

    fills_holes = True

    def __call__(self, degraded):
        yield from super().__call__(map(greyed, degraded))


def greyed(degraded):
    return replace(degraded, rgb=degraded.rgb + grey(degraded.camera) * (1 - degraded.alpha[..., None]))


def grey(camera):
    return 0.2 + 0.6 * float(100 * camera.c2w[0, 0, 3] % 1)


@pytest.mark.parametrize("options", [{"every": 4}, {"mix": 0.5}])
def test_holes_are_filled_in_every_frame(model, truth, path, monkeypatch, options):
    """They are at no place, so that their colours cannot be carried from other frames."""
    monkeypatch.setattr("difix3d.postrender.behind.without_holes", greyed)
    for frame, camera in zip(model(Fill()).stream(path, **options), path, strict=True):
        out = truth(camera)
        expected = (out.rgb[0].clamp(0, 1) + grey(camera) * (1 - out.alpha[0]) + 0.1).clamp(0, 1)
        assert (frame.clamp(0, 1) - expected).abs().max() < 0.02


def test_no_references_are_chosen_for_frames_that_are_carried(model, path, monkeypatch):
    post = model(Brighten())
    calls = []
    degraded = post._nearest.degraded
    monkeypatch.setattr(post._nearest, "degraded", lambda *args: calls.append(1) or degraded(*args))
    list(post.stream(path, every=7))
    assert len(calls) == 2


def test_a_cut_and_a_turn_away_are_fixed_at_once(model, truth, toy_scene, path):
    away = replace(path[0], c2w=path[0].c2w @ torch.diag(torch.tensor([-1.0, 1, -1, 1])))  # looks the other way
    jump = toy_scene.cameras[11]
    fixer = Brighten()
    frames = list(model(fixer).stream([*path[:3], jump, jump, away, path[0]], every=100))
    assert len(frames) == 7
    given = [camera.c2w[0, :3, 3].tolist() for camera in fixer.given]
    assert jump.c2w[0, :3, 3].tolist() in given
    for frame, camera in zip(frames[:5], [*path[:3], jump, jump], strict=True):
        assert (frame - plain(truth, camera)).median() == pytest.approx(0.1, abs=0.01)
    assert all(frame.isfinite().all() for frame in frames)


@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("trust", [True, False])
def test_frames_that_show_nothing_of_the_model_stay_as_they_are(model, truth, path, every, trust):
    c2w = path[0].c2w.clone()
    c2w[:, :3, 3] += 1000.0
    outside = replace(path[0], c2w=c2w)
    cameras = [*path[:2], outside, outside, *path[2:4]]
    assert truth(outside).alpha.max() == 0
    post = model(Brighten(), trust=trust)
    frames = list(post.stream(cameras, every=every, mix=0.5))
    for frame in (*frames[2:4], post(outside).rgb[0]):
        assert torch.equal(frame, plain(truth, outside))
    if not trust:
        assert all((frames[i] - plain(truth, cameras[i])).median() > 0.09 for i in (0, 1, 4, 5))


@pytest.mark.parametrize("every", [1, 3])
def test_sizes_that_change(model, path, every):
    cameras = [
        camera.resized(side, side * 5 // 6) for camera, side in zip(path, [48] * 5 + [96] * 4 + [24] * 5, strict=True)
    ]
    for batch in (1, 3):
        frames = list(model(Brighten(batch=batch)).stream(cameras, every=every, mix=0.5))
        assert [frame.shape[1] for frame in frames] == [int(camera.width[0]) for camera in cameras]


def test_the_mix_takes_the_flicker_away(model, truth, path):
    def flicker(frames):
        shifts = [float((frame - plain(truth, camera)).median()) for frame, camera in zip(frames, path, strict=True)]
        return sum(abs(a - b) for a, b in pairwise(shifts[3:])) / len(shifts[4:])

    each, mixed = (list(model(Brighten(flicker=0.05)).stream(path, mix=mix)) for mix in (0.0, 0.8))
    usual = list(model(Brighten(flicker=0.05)).stream(path))
    assert flicker(each) == pytest.approx(0.1, abs=0.01)
    assert flicker(usual) < 0.6 * flicker(each)  # mixed by default, as every fixed pixel is taken
    assert flicker(mixed) < 0.3 * flicker(each)
    assert torch.equal(each[0], mixed[0])


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("options", [{}, {"every": 4}, {"mix": 0.5}])
def test_around_an_object_nothing_changes_in_any_frame(cutout, middle, options, trust):
    colour = torch.tensor([0.3, 0.6, 0.9])
    render = partial(rasterize, middle, background=colour)
    post = PostRender(render, Brighten(), cutout, Views(cutout).__getitem__, trust=trust)
    cameras = [cutout.cameras[i] for i in (2, 2, 3, 3, 4)]
    for frame, camera in zip(post.stream(cameras, **options), cameras, strict=True):
        empty = render(camera).alpha[0, ..., 0] == 0
        torch.testing.assert_close(frame[empty], colour.expand_as(frame[empty]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("fault", "said"), FAULTS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("trust", [False, True])
def test_a_fixer_that_fails_at_one_frame(model, truth, path, batch, trust, caplog, fault, said):
    place = [float(camera.c2w[0, 0, 3]) for camera in path]
    fixer = Brighten(fails=(place[4], place[9]), batch=batch, fault=fault)
    frames = list(model(fixer, trust=trust).stream(path))
    expected = list(model(Brighten(), trust=trust).stream(path))
    for number, frame in enumerate(frames):
        wanted = plain(truth, path[number]) if number in (4, 9) else expected[number]
        torch.testing.assert_close(frame, wanted)
    assert len(caplog.records) == 1
    assert "failed at a frame" in caplog.text
    assert said in caplog.text


def test_a_failure_is_said_once_though_captured_cameras_are_fixed_before(model, toy_scene, path, caplog):
    cameras = (toy_scene.cameras[int(toy_scene.train[0])], path[4])
    fixer = Brighten(fails=[float(camera.c2w[0, 0, 3]) for camera in cameras])
    list(model(fixer, trust=True).stream(path))
    assert len(caplog.records) == 1


def ends_early(degraded):
    yield from (item.rgb for _, item in zip(range(4), degraded, strict=False))


def drops_one(degraded):
    yield from (item.rgb for number, item in enumerate(degraded) if number != 6)


def gives_one_twice(degraded):
    for number, item in enumerate(degraded):
        yield from [item.rgb] * (1 + (number == 6))


@pytest.mark.parametrize(
    ("fixer", "fault"),
    [
        (ends_early, "ended after 4 images"),
        (drops_one, "ended after 13 images"),
        (gives_one_twice, "gave a second image for render 6"),
    ],
)
def test_a_fixer_gives_one_image_for_each_render(model, path, fixer, fault):
    with pytest.raises(UserError, match=rf"The fixer {fault}\. Each render needs one"):
        list(model(fixer).stream(path))


def test_a_key_frame_that_cannot_be_fixed_leaves_its_neighbours_to_the_others(model, truth, path):
    fixer = Brighten(fails=(float(path[4].c2w[0, 0, 3]),))
    frames = list(model(fixer).stream(path, every=4))
    changes = [float((frame - plain(truth, camera)).median()) for frame, camera in zip(frames, path, strict=True)]
    assert changes[4] == 0
    assert changes[:4] + changes[5:] == pytest.approx([0.1] * 13, abs=0.01)


@pytest.mark.parametrize(("fault", "said"), FAULTS)
@pytest.mark.parametrize("count", [1, 2, 14])
def test_a_fixer_that_always_fails_is_an_error(model, path, count, fault, said):
    fixer = Brighten(fails=[float(camera.c2w[0, 0, 3]) for camera in path], fault=fault)
    with pytest.raises((RuntimeError, UserError), match=said.removeprefix("RuntimeError: ")):
        list(model(fixer).stream(path[:count]))


def test_three_failures_in_a_row_end_the_stream(model, path):
    fixer = Brighten(fails=[float(camera.c2w[0, 0, 3]) for camera in path[5:8]], fault=one_nan)
    stream = model(fixer).stream(path)
    for _ in range(7):
        next(stream)
    with pytest.raises(UserError, match="NaN or infinite"):
        next(stream)


def test_after_an_error_no_thread_renders_on(model, path):
    """Though the caller still holds the error, and with it all that was under way."""
    fixer = Brighten(fails=[float(camera.c2w[0, 0, 3]) for camera in path])
    with pytest.raises(RuntimeError) as _error:
        list(model(fixer).stream(path))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize(
    ("batch", "expected"), [(1, [*range(2, 15), 14]), (3, [6, 6, 6, 9, 9, 9, 12, 12, 12, 14, 14, 14, 14, 14])]
)
def test_the_next_batch_is_with_the_fixer_before_the_last_one_is_handed_on(model, path, batch, expected):
    """So that a GPU has work while its host judges and writes; no more than that one, so that memory is bounded."""
    fixer = Brighten(batch=batch)
    assert [len(fixer.given) for _ in model(fixer).stream(path)] == expected


def test_what_the_model_raises_is_no_failure_of_the_fixer(model, path):
    post = model(Brighten())
    render = post.render

    def broken(camera):
        if torch.equal(camera.c2w, path[5].c2w):
            raise UserError("There is no memory left")
        return render(camera)

    post.render = broken
    with pytest.raises(UserError, match="no memory left"):
        list(post.stream(path))


def test_values_that_are_no_numbers_are_not_shown(model, truth, toy_scene):
    fixer = Brighten(fails=[float(toy_scene.cameras[2].c2w[0, 0, 3])], fault=one_nan)
    assert torch.equal(model(fixer)(toy_scene.cameras[2]).rgb[0], plain(truth, toy_scene.cameras[2]))


def test_numbers_out_of_range(model, path):
    for options in ({"every": 0}, {"mix": 1.0}, {"mix": -0.1}):
        with pytest.raises(UserError, match="every is"):
            model(Brighten()).stream(path, **options)


def test_no_cameras_at_all(model):
    assert list(model(Brighten()).stream([], every=4)) == []
