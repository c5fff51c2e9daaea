"""Queues of a GPU: what they hand over, and what the fixer and the "+" keep so that nothing is asked twice."""

from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from unittest import mock

import pytest
import torch

from difix3d.difix import DifixFixer
from difix3d.difix.architecture import random_difix
from difix3d.difix.references import Last
from difix3d.errors import UserError
from difix3d.gpu.lane import Handed, Lane
from difix3d.postrender import PostRender
from difix3d.scene import Views
from difix3d.types import Degraded, View


def test_a_lane_gives_the_items_in_order_in_the_thread_that_asks():
    made = []

    def items():
        for i in range(3):
            made.append(i)
            yield torch.full((2,), float(i))

    stream = Lane(torch.device("cpu")).each(items())
    assert made == []
    first = next(stream)
    assert made == [0]
    assert torch.equal(first.take(), first.take())
    assert [float(handed.take()[0]) for handed in stream] == [1, 2]


class OnGpu(torch.Tensor):
    """Says that it is there, and which queues it was used in."""

    is_cuda = True

    def record_stream(self, stream):
        stream.used.append(self)


@dataclass
class Holds:
    part: object
    other: int = 0


def test_the_queue_that_takes_waits_and_all_tensors_know_it(monkeypatch):
    own = mock.Mock(used=[])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: own)
    done = mock.Mock(spec=torch.cuda.Event, device=torch.device("cuda"))
    parts = [torch.full((2,), float(i)).as_subclass(OnGpu) for i in range(3)]
    item = (parts[0], [Holds(parts[1]), torch.zeros(1)], 1.0, parts[2])
    assert Handed(item, done).take() is item
    own.wait_event.assert_called_once_with(done)
    assert len(own.used) == 3
    assert all(one is other for one, other in zip(own.used, parts, strict=True))


def items_that(end):
    yield 1
    yield 2
    if end == "fail":
        raise ValueError("broken")


@pytest.mark.parametrize("end", ["end", "fail", "close"])
def test_the_callers_queue_waits_for_a_lane_however_it_ends(monkeypatch, end):
    """What was queued there is kept by others, as a photo is, and may be used in another lane."""
    own, lane = mock.Mock(), mock.Mock(record_event=lambda: mock.Mock(spec=torch.cuda.Event))
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", lambda *_, **__: lane)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: own)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    stream = Lane(torch.device("cuda")).each(items_that(end))
    with suppress(ValueError):
        for _ in stream:
            own.wait_stream.assert_not_called()
            if end == "close":
                stream.close()
    own.wait_stream.assert_called_once_with(lane)


@pytest.mark.gpu
@pytest.mark.speed
def test_a_lane_of_a_gpu_is_a_stream_of_its_own():
    x = torch.ones(1000, 1000, device="cuda")
    own = torch.cuda.current_stream()
    streams = []

    def items():
        for i in range(3):
            streams.append(torch.cuda.current_stream())
            yield (x * i) @ x

    for number, handed in enumerate(Lane(x.device, urgent=True).each(items())):
        assert torch.cuda.current_stream() == own
        assert torch.equal(handed.take(), (x * number) @ x)
    assert len({*streams, own}) == 2


def test_the_same_tensor_is_not_looked_at_again():
    calls, last = [], Last()

    def function(x):
        calls.append(1)
        return x + 1

    x, same = torch.zeros(2), torch.zeros(2)
    for tensor, kind, count in ((x, 0, 1), (x, 0, 1), (same, 0, 2), (same, 1, 3), (same, 1, 3)):
        assert torch.equal(last(function, [tensor], kind), tensor + 1)
        assert len(calls) == count
    same += 1
    assert torch.equal(last(function, [same], 1), torch.full((2,), 2.0))
    with torch.inference_mode():
        unknown = torch.zeros(2)
        last(function, [unknown])
        last(function, [unknown])
    assert len(calls) == 6


def test_the_fixer_gives_the_same_photos_as_the_same_tensor(toy_scene, monkeypatch):
    pipe, given = random_difix(), []
    monkeypatch.setattr(pipe, "fix", lambda images, references, tile: (given.append(references), images)[1])
    photos = tuple(View(toy_scene.cameras[0], torch.rand(20, 30, 3), f"photo {i}", i) for i in range(3))
    ones = torch.ones(16, 24)
    item = Degraded(toy_scene.cameras[0], torch.rand(16, 24, 3), ones, ones, photos[:2])
    fixer = DifixFixer(pipe, references=2, anchor_colors=False)
    other = replace(item, references=photos[1:])
    small = replace(item, rgb=item.rgb[:8], alpha=ones[:8], depth=ones[:8])
    list(fixer([item, item, other, item, small, replace(item, references=())]))
    assert given[0] is given[1]
    assert torch.equal(given[3], given[0])
    assert not torch.equal(given[2], given[0])
    assert [None if x is None else tuple(x.shape) for x in given[3:]] == [(1, 2, 3, 16, 24), (1, 2, 3, 8, 24), None]


def test_a_path_takes_each_photo_once(toy_scene, truth):
    asked = []

    def photo(index):
        asked.append(index)
        camera = toy_scene.cameras[index]
        return View(camera, truth(camera).rgb[0], str(index), index)

    post = PostRender(truth, lambda items: (item.rgb for item in items), toy_scene, photo, trust=False)
    for _ in range(3):
        list(post.stream([toy_scene.cameras[2]]))
    assert len(asked) == len(set(asked)) > 0


def test_after_an_error_the_lanes_of_a_path_end(toy_scene, truth, monkeypatch):
    """Though the caller still holds the error, and with it all that was under way."""
    ended, each = [], Lane.each

    def watched(lane, items):
        try:
            yield from each(lane, items)
        finally:
            ended.append(lane)

    monkeypatch.setattr(Lane, "each", watched)
    post = PostRender(truth, lambda _: iter(()), toy_scene, Views(toy_scene).__getitem__, trust=False)
    with pytest.raises(UserError, match="ended after 0 images") as _error:
        list(post.stream([toy_scene.cameras[2]] * 9))
    assert len(ended) == 2
