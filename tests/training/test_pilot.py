"""A pilot finds out whether a fixer helps in this capture; if not, nothing is distilled."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from difix3d.gaussians import from_points, write_ply
from difix3d.logs import ProgressLog
from difix3d.report import write_report
from difix3d.training import Trainer, pilot
from difix3d.training.configfile import merge
from difix3d.training.events import PilotDone, PilotProgress, RoundDone, Stepped
from difix3d.training.pilot import Errors, Pilot, in_words, left_out, steps_of


@pytest.fixture
def config(config, monkeypatch):
    """A run of thirty steps, whose pilot has seven."""
    monkeypatch.setattr(pilot, "LEAST_STEPS", 1)
    return merge(config, {"init": {"opacity": 0.8}, "densify": {"reset_every": 0}}, source="test")


def lifted(degraded):
    """Fog, which photos carried along hardly notice."""
    for item in degraded:
        yield 0.9 * item.rgb + 0.1


def run(config, scene, fixer, name, **distill):
    """A training with its events."""
    events = []
    config = replace(config, output_dir=config.output_dir.with_name(name), distill=replace(config.distill, **distill))
    trainer = Trainer(config, scene, [events.append, ProgressLog()], fixer)
    trainer.train()
    return trainer, events


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def test_a_fixer_that_does_not_help_is_not_distilled_and_the_run_is_the_plain_one(toy_scene, config, capsys):
    plain, _ = run(config, toy_scene, None, "plain")
    trainer, events = run(config, toy_scene, lifted, "lifted")
    (found,) = of(events, PilotDone)
    assert found.step == 7
    assert not found.pilot.helps
    assert found.pilot.change > 0.05
    assert [event.done for event in of(events, PilotProgress)] == list(range(1, 8))
    assert not of(events, RoundDone)
    assert "nothing is distilled" in capsys.readouterr().err
    ours, theirs = trainer.gaussians.as_dict(), plain.gaussians.as_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    kept = json.loads((trainer.folder.path / "pilot.json").read_text())
    assert kept["helps"] is False
    assert kept["change"] == found.pilot.change
    page = write_report(trainer.folder).read_text(encoding="utf-8")
    assert "Does fixing help here?" in page
    assert "So nothing was distilled." in page
    without, others = run(config, toy_scene, lifted, "without a pilot", pilot_steps=0)
    assert of(others, RoundDone)
    assert without.folder.pilot() is None


def test_a_fixer_that_helps_is_distilled_as_without_a_pilot(toy_scene, config, oracle):
    trainer, events = run(config, toy_scene, oracle, "helped")
    without, _ = run(config, toy_scene, oracle, "without a pilot", pilot_steps=0)
    (found,) = of(events, PilotDone)
    assert found.pilot.helps
    assert found.pilot.change < -0.5
    assert set(found.pilot.photos) <= {toy_scene.photos[i].name for i in toy_scene.train}
    assert len(of(events, RoundDone)) == 8
    ours, theirs = trainer.gaussians.as_dict(), without.gaussians.as_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert "So there were rounds." in write_report(trainer.folder).read_text(encoding="utf-8")


def test_beside_a_splat_file_it_starts_from_points(toy_scene, config, oracle, tmp_path, monkeypatch):
    """The file has seen the photos that a pilot leaves out."""
    monkeypatch.setattr(pilot, "AFRESH", 9)
    first = []
    real = pilot.initial_gaussians
    monkeypatch.setattr(pilot, "initial_gaussians", lambda *args: first.append(real(*args)) or first[0])
    write_ply(from_points(toy_scene.points[:250], toy_scene.colors[:250], opacity=0.9), tmp_path / "theirs.ply")
    given = merge(config, {"init": {"ply": str(tmp_path / "theirs.ply")}, "distill": {"start": 5}}, source="test")
    plain, _ = run(given, toy_scene, None, "plain")
    trainer, events = run(given, toy_scene, lifted, "lifted")
    (found,) = of(events, PilotDone)
    assert (found.step, found.pilot.steps, found.pilot.helps) == (5, 9, False)
    assert len(first[0]) == 300
    ours, theirs = trainer.gaussians.as_dict(), plain.gaussians.as_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    _, events = run(given, toy_scene, oracle, "helped")
    assert of(events, PilotDone)[0].pilot.helps
    assert of(events, RoundDone)


def test_what_a_pilot_found_is_known_after_a_resume(toy_scene, config):
    def stop(event):
        if isinstance(event, PilotDone):
            trainer.control.stop()

    trainer = Trainer(config, toy_scene, [stop], lifted)
    trainer.train()
    assert trainer.rounds.helps is False
    resumed, events = run(replace(config, resume=True), toy_scene, lifted, config.output_dir.name)
    assert resumed.rounds.helps is False
    assert not of(events, PilotDone)
    assert not of(events, RoundDone)


def test_stopped_within_a_pilot_it_is_made_anew(toy_scene, config, oracle):
    def stop(event):
        if isinstance(event, PilotProgress) and event.done == 3:
            trainer.control.stop()

    trainer = Trainer(config, toy_scene, [stop], oracle)
    trainer.train()
    assert trainer.rounds.helps is None
    assert trainer.saving.step == 7
    _, events = run(replace(config, resume=True), toy_scene, oracle, config.output_dir.name)
    assert of(events, PilotDone)
    assert len(of(events, RoundDone)) == 8


def test_a_round_that_is_asked_for_needs_no_pilot(toy_scene, config, oracle):
    def ask(event):
        if isinstance(event, Stepped) and event.step == 3:
            trainer.control.request_round()

    events = []
    trainer = Trainer(config, toy_scene, [ask, events.append], oracle)
    trainer.train()
    kinds = [type(event) for event in events if isinstance(event, (PilotDone, RoundDone))]
    assert kinds[:2] == [RoundDone, PilotDone]


def test_photos_nearest_to_the_targets_are_left_out(toy_scene):
    assert left_out(toy_scene, toy_scene.cameras[[0]]) == [0, 1]
    assert left_out(toy_scene, toy_scene.cameras[[11]]) == [9, 11]
    many = replace(toy_scene, train=np.arange(12), test=np.array([], int))
    assert left_out(many, None) == [2, 6, 10]


@pytest.mark.parametrize(
    ("change", "train", "steps"),
    [
        ({}, 9, 500),
        ({"max_steps": 30_000}, 9, 1000),
        ({"max_steps": 999}, 9, 0),
        ({}, 4, 0),
        ({"distill": {"gate": "off"}}, 9, 0),
        ({"distill": {"pilot_steps": 0}}, 9, 0),
        ({"init": {"ply": "my.ply"}}, 9, 500),
        ({"init": {"ply": "my.ply"}, "max_steps": 1000}, 9, 500),
        ({"init": {"ply": "my.ply"}, "max_steps": 999}, 9, 0),
        ({"init": {"ply": "my.ply"}, "distill": {"pilot_steps": 300}}, 9, 300),
    ],
)
def test_where_there_is_a_pilot(toy_scene, change, train, steps):
    from difix3d.training import TrainConfig

    config = merge(TrainConfig(max_steps=2000), change, source="test")
    assert steps_of(config, replace(toy_scene, train=toy_scene.train[:train])) == steps


def pilot_of(*pairs):
    before, after = zip(*pairs, strict=True)
    return Pilot(250, tuple(str(i) for i in range(len(pairs))), before, after)


def test_errors_of_places_and_of_texture_count_alike():
    base = Errors(0.01, 0.2, 0.1)
    assert pilot_of((base, base)).change == pytest.approx(0)
    assert not pilot_of((base, base)).helps  # what does not help is not distilled
    assert pilot_of((base, Errors(0.005, 0.1, 0.2))).change == pytest.approx(0)
    assert pilot_of((base, Errors(0.005, 0.1, 0.05))).change == pytest.approx(-0.5)
    assert pilot_of((base, Errors(0.02, 0.4, 0.2)), (base, base)).change == pytest.approx(math.sqrt(2) - 1)


def test_what_cannot_be_measured_is_left_out():
    base, hidden = Errors(0.01, 0.2, 0.1), Errors(math.nan, math.nan, math.nan)
    half = Errors(0.005, 0.1, 0.05)
    assert pilot_of((hidden, hidden), (base, half)).change == pytest.approx(-0.5)
    nothing = pilot_of((hidden, hidden))
    assert math.isnan(nothing.change)
    assert nothing.helps
    assert "could not be measured" in in_words(nothing.row())
    perfect = Errors(0.0, 0.0, 0.0)
    assert pilot_of((perfect, perfect)).change == 0
