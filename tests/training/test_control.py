"""What a training does when it is asked while it runs."""

import json
import threading
import time
from dataclasses import replace

import pytest
import torch

from difix3d.gaussians import load_checkpoint, load_newest
from difix3d.training import Trainer
from difix3d.training.events import Finished, Paused, Resumed, RoundDone, Saved, Stepped


class Asking:
    """A listener that asks for something after a step, and keeps all events."""

    def __init__(self, **asked):
        self.asked = {int(name.removeprefix("after_")): action for name, action in asked.items()}
        self.events = []
        self.trainer = None

    def __call__(self, event):
        self.events.append(event)
        if isinstance(event, Stepped) and event.step in self.asked:
            self.asked[event.step](self.trainer.control)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


def train(config, scene, asking, **options):
    asking.trainer = Trainer(config, scene, [asking], **options)
    return asking.trainer.train()


def same(a, b):
    return all(torch.equal(value, b.as_dict()[name]) for name, value in a.as_dict().items())


@pytest.fixture
def keep():
    def fixer(degraded):
        for item in degraded:
            yield item.rgb

    return fixer


def test_saving_and_pausing_change_nothing(toy_scene, config):
    plain = Trainer(config, toy_scene).train()

    def pause(control):
        control.pause()
        threading.Timer(0.2, control.resume).start()

    asking = Asking(after_5=lambda control: control.save(), after_9=pause)
    again = train(replace(config, output_dir=config.output_dir.with_name("asked")), toy_scene, asking)
    assert same(again, plain)
    assert [event.step for event in asking.of(Saved)] == [5, 30]
    assert [event.step for event in asking.of(Paused)] == [event.step for event in asking.of(Resumed)] == [9]


def test_while_paused_it_saves_and_then_stops_as_by_ctrl_c(toy_scene, config):
    def ask(control):
        control.pause()
        control.save()
        threading.Timer(0.3, control.stop).start()

    asking = Asking(after_4=ask)
    start = time.perf_counter()
    train(config, toy_scene, asking)
    assert time.perf_counter() - start > 0.25
    assert [event.step for event in asking.of(Saved)] == [4, 5]
    (finished,) = asking.of(Finished)
    assert finished.interrupted
    assert finished.step == 5
    assert load_checkpoint(sorted((config.output_dir / "checkpoints").iterdir())[-1])[0] == 5
    resumed = Trainer(replace(config, resume=True), toy_scene).train()
    assert same(resumed, Trainer(replace(config, output_dir=config.output_dir.with_name("plain")), toy_scene).train())


def test_a_round_that_is_asked_for_comes_beside_those_of_the_schedule(toy_scene, config, keep):
    targets = toy_scene.cameras[[2, 6]]

    def ask(control):
        control.set_targets(targets)
        control.request_round()

    asking = Asking(after_3=ask, after_7=lambda control: control.request_round())
    train(replace(config, max_steps=12), toy_scene, asking, fixer=keep)
    rounds = asking.of(RoundDone)
    assert [event.step for event in rounds] == [3, 4, 5, 6, 7, 8, 9, 10, 11]  # 3, by the schedule, is done once
    assert [event.number for event in rounds] == list(range(1, 10))
    rows = json.loads((config.output_dir / "rounds.json").read_text())
    assert {len(row["cameras"]) for row in rows} == {2}
    assert torch.allclose(torch.tensor(rows[-1]["cameras"]), targets.c2w, atol=1e-5)
    assert torch.allclose(torch.tensor(rows[-1]["K"]), targets.K)


def test_a_round_between_those_of_the_schedule(toy_scene, config, keep):
    config = replace(config, distill=replace(config.distill, mode="once"))
    asking = Asking(after_2=lambda control: control.request_round())
    train(replace(config, max_steps=12), toy_scene, asking, fixer=keep)
    assert [(event.step, event.number, event.total) for event in asking.of(RoundDone)] == [(2, 1, 2), (3, 2, 2)]


def test_what_was_asked_for_is_kept_by_a_resume(toy_scene, config, keep):
    """A round beside the schedule, and other targets, also hold for what follows in another process."""

    def ask(control):
        control.set_targets(toy_scene.cameras[[2, 6]])
        control.request_round()

    config = replace(config, max_steps=16, distill=replace(config.distill, mode="once"))
    whole = Asking(after_3=ask)
    expected = train(replace(config, output_dir=config.output_dir.with_name("whole")), toy_scene, whole, fixer=keep)
    train(config, toy_scene, Asking(after_3=ask, after_4=lambda control: control.stop()), fixer=keep)
    rest = Asking()
    resumed = train(replace(config, resume=True), toy_scene, rest, fixer=keep)
    rounds = [(event.step, event.number, event.total) for event in whole.of(RoundDone)]
    assert [(event.step, event.number, event.total) for event in rest.of(RoundDone)] == rounds[1:]
    assert len(rounds) > 1
    assert same(resumed, expected)


def test_novel_views_at_targets_that_were_set_are_saved(toy_scene, config):
    """Views and targets are the same cameras then, in the same memory."""

    def ask(control):
        control.set_targets(toy_scene.cameras[[2, 6]])
        control.request_round()

    def brighten(degraded):
        for item in degraded:
            yield (item.rgb + 0.2).clamp(0, 1)

    config = replace(config, max_steps=6, distill=replace(config.distill, mode="once", gate="off"))
    train(config, toy_scene, Asking(after_3=ask), fixer=brighten)
    _, (_, tensors, _) = load_newest(config.output_dir / "checkpoints")
    assert torch.equal(tensors["pseudo.c2w"], tensors["rounds.targets.c2w"])
    assert torch.equal(tensors["pseudo.K"], toy_scene.cameras[[2, 6]].K)


def test_painting_while_paused_and_without_a_fixer(toy_scene, config, keep):
    def ask(control):
        control.pause()
        control.request_round()
        threading.Timer(1.0, control.resume).start()

    asking = Asking(after_1=ask)
    train(replace(config, max_steps=4), toy_scene, asking, fixer=keep)
    order = [type(event).__name__ for event in asking.events]
    assert order.index("Paused") < order.index("RoundDone") < order.index("Resumed")
    plain = Asking(after_1=lambda control: control.request_round())
    train(replace(config, max_steps=4, output_dir=config.output_dir.with_name("plain")), toy_scene, plain)
    assert not plain.of(RoundDone)
