"""When a call is recorded, and when it is forgotten; what is recorded is tested with the fixer, on a GPU."""

import threading

import pytest
import torch

from difix3d.gpu import recorded
from difix3d.gpu.recorded import KEPT, Recordings


class Counted:
    """Stands for a CUDA graph."""

    made = 0

    def __init__(self, function, tensors):
        Counted.made += 1
        self.function = function

    def __call__(self, tensors):
        return self.function(*tensors)


@pytest.fixture
def made(monkeypatch):
    """How many were recorded so far."""
    monkeypatch.setattr(recorded, "Recording", Counted)
    monkeypatch.setattr(recorded, "may_record", lambda _: True)
    monkeypatch.setattr(Counted, "made", 0)
    return lambda: Counted.made


def double(x):
    return 2 * x


def test_the_second_call_of_a_kind_is_recorded_once(made):
    recordings, counts = Recordings(), []
    for value in range(4):
        x = torch.full((3,), float(value))
        assert torch.equal(recordings(double, [x], "fix"), 2 * x)
        counts.append(made())
    assert counts == [0, 1, 1, 1]


def test_a_function_may_give_several_tensors(made):
    recordings, x = Recordings(), torch.ones(3)
    for _ in range(3):
        first, second = recordings(lambda x: [x, 2 * x], [x], "both")
        assert torch.equal(second, 2 * first)
    assert made() == 1


def test_other_shapes_layouts_and_kinds_are_others(made):
    recordings, x = Recordings(), torch.zeros(2, 2)
    for tensors, kind in (([x], "fix"), ([x.T], "fix"), ([x], "encode"), ([x[:1]], "fix")):
        for _ in range(3):
            recordings(double, tensors, kind)
    assert made() == 4


def test_the_latest_are_kept_and_all_can_be_forgotten(made):
    recordings, x = Recordings(), torch.zeros(1)
    for kind in range(KEPT + 1):
        recordings(double, [x], kind)
        recordings(double, [x], kind)
    recordings(double, [x], KEPT)
    assert made() == KEPT + 1
    recordings(double, [x], 0)  # the first of them is not known any more
    assert made() == KEPT + 1
    recordings.clear()
    recordings(double, [x], KEPT)
    assert made() == KEPT + 1
    recordings(double, [x], KEPT)
    assert made() == KEPT + 2


def test_only_the_main_thread_of_a_gpu_with_memory_records(monkeypatch):
    there, found = torch.device("cuda"), []
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(recorded, "short_of_memory", lambda *_: False)
    assert recorded.may_record(there)
    assert not recorded.may_record(torch.device("cpu"))
    thread = threading.Thread(target=lambda: found.append(recorded.may_record(there)))
    thread.start()
    thread.join()
    assert found == [False]
    monkeypatch.setattr(recorded, "short_of_memory", lambda *_: True)
    assert not recorded.may_record(there)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    assert not recorded.may_record(there)


def test_a_pipeline_that_moves_forgets_what_it_recorded(made):
    from difix3d.difix.architecture import random_difix

    pipe, image = random_difix().optimize(), torch.rand(1, 3, 32, 40)
    for _ in range(3):
        pipe.fix(image)
    assert made() == 1
    pipe.to("cpu")
    for _ in range(3):
        pipe.fix(image)
    assert made() == 2


def test_what_was_recorded_makes_room(made, monkeypatch):
    recordings, x = Recordings(), torch.zeros(1)
    for short, expected in ((False, 1), (True, 1), (True, 2)):
        for _ in range(2):
            recordings(double, [x], "fix")
        assert made() == expected
        monkeypatch.setattr(recorded, "short_of_memory", lambda *_, short=short: short)
        recordings.make_room(torch.device("cuda"))


def test_what_cannot_be_recorded_is_called(made, monkeypatch, caplog):
    def broken(function, tensors):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(recorded, "Recording", broken)
    recordings, x = Recordings(), torch.ones(2)
    for _ in range(4):
        assert torch.equal(recordings(double, [x], "fix"), 2 * x)
    assert caplog.messages == [
        "a CUDA graph could not be recorded (operation not permitted when stream is capturing): "
        "the host is slower without"
    ]


def test_pictures_of_two_sizes_with_references_stay_recorded(made):
    from difix3d.difix.architecture import random_difix

    pipe = random_difix().optimize()
    given = [(torch.rand(1, 3, 32, 8 * n), [torch.rand(1, 1, 3, 32, 8 * n) for _ in range(6)]) for n in (5, 6)]
    for number in range(6):
        for image, photos in given:
            pipe.fix(image, photos[number])
            pipe.recorded(torch.sin, [image], "anchor")
        if number == 2:
            before = made()
    assert made() == before == 8
