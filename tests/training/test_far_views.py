"""How far off the photos views are, and what a training does where they are far."""

import math
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch

from difix3d.cli.train import make_plain
from difix3d.gaussians.init import InitConfig
from difix3d.images import write_image
from difix3d.scene import far, times_apart
from difix3d.training import TrainConfig, Trainer, far_views
from difix3d.training.densify import DensifyConfig
from difix3d.training.events import Started
from difix3d.training.far_views import settle_far_views
from difix3d.training.rounds import views_asked_for

DISTILLED = replace(TrainConfig().distill, mode="progressive")
NEITHER = replace(TrainConfig(), dropout=0.0, init=InitConfig(backdrop=0), distill=DISTILLED)


@pytest.fixture
def end(toy_scene):
    """Photos at one end of the arc only; views at the other are asked for."""
    return replace(toy_scene, train=np.array([0, 1, 2, 3]), test=np.array([9, 10, 11]))


def settled(scene, targets=None, *, small=False, **changes):
    asked = views_asked_for(TrainConfig(), scene, targets, None)
    return settle_far_views(replace(TrainConfig(), **changes), scene, asked, small=small)


def chosen(config):
    return config.init.backdrop, config.dropout


def test_distance_is_measured_by_that_of_the_photos(toy_scene, end):
    """Between photos of an arc about half of it; the scale of the world does not matter; no photo of them is needed."""
    between = times_apart(toy_scene, toy_scene.cameras[toy_scene.test])
    assert 0.3 < between < 1.2
    off = times_apart(end, end.cameras[end.test])
    assert 5 < off < 12  # six to eight spacings away from the last photo
    factor = 7.0
    c2w = toy_scene.cameras.c2w.clone()
    c2w[:, :3, 3] *= factor
    larger = replace(end, cameras=replace(toy_scene.cameras, c2w=c2w), points=toy_scene.points * factor)
    assert times_apart(larger, larger.cameras[end.test]) == pytest.approx(off, rel=1e-4)
    assert times_apart(end, end.cameras[end.train]) == pytest.approx(0, abs=1e-3)


def test_many_points_and_cameras_are_sampled(toy_scene, monkeypatch):
    whole = times_apart(toy_scene, toy_scene.cameras[toy_scene.test])
    monkeypatch.setattr(far, "POINTS", 60)
    monkeypatch.setattr(far, "CAMERAS", 4)
    assert times_apart(toy_scene, toy_scene.cameras[toy_scene.test]) == pytest.approx(whole, rel=0.4)


def test_where_nothing_can_be_said_it_is_nan(toy_scene):
    targets = toy_scene.cameras[toy_scene.test]
    empty = replace(
        toy_scene, points=toy_scene.points[:0], colors=toy_scene.colors[:0], observations=np.zeros((0, 2), int)
    )
    one = replace(toy_scene, train=np.array([0]))
    for scene, cameras in ((empty, targets), (one, targets), (toy_scene, targets[:0])):
        assert math.isnan(times_apart(scene, cameras))
        assert settle_far_views(TrainConfig(), scene, cameras) == (NEITHER, "")


def test_far_views_turn_both_on_and_a_line_says_so(end, config):
    """The run's settings keep it."""
    started = []
    trainer = Trainer(config, end, [started.append])
    assert chosen(trainer.config) == (2000, 0.2)
    trainer.train()
    (begun,) = (event for event in started if isinstance(event, Started))
    assert "times as far from the photos" in begun.note
    assert "--init.backdrop 2000 and --dropout 0.2 (0 turns it off)" in begun.note
    written = (config.output_dir / "config.yaml").read_text()
    assert "dropout: 0.2" in written
    assert "backdrop: 2000" in written


def test_where_it_was_not_measured_there_is_neither(toy_scene, end, cutout, tmp_path):
    assert settled(toy_scene) == (NEITHER, "")
    assert settled(replace(toy_scene, test=np.array([], int))) == (NEITHER, "")
    assert chosen(settled(toy_scene, targets=toy_scene.cameras[:1])[0]) == (0, 0)
    assert chosen(settled(end, densify=DensifyConfig(kind="mcmc"))[0]) == (0, 0)
    given = InitConfig(ply=tmp_path / "any.ply")
    assert chosen(settled(end, init=given)[0]) == (2000, 0)
    assert chosen(settled(end, init=given, max_steps=0)[0]) == chosen(settled(toy_scene, init=given)[0]) == (0, 0)
    assert chosen(settled(replace(cutout, train=end.train, test=end.test))[0]) == (0, 0.2)  # whose alpha says enough
    assert chosen(settled(replace(end, test=np.array([], int)), targets=end.cameras[10:])[0]) == (2000, 0.2)


def test_a_splat_before_black_stays_before_it(end, tmp_path):
    """As far as the photos tell: an eighth of them is enough to be in doubt."""
    given, photos = InitConfig(ply=tmp_path / "any.ply"), []
    for index, photo in enumerate(end.photos):
        image = torch.full((40, 48, 3), 0.5)
        image[:5] = 0.01
        write_image(tmp_path / f"{index}.png", image)
        photos.append(replace(photo, path=tmp_path / f"{index}.png", mask=None))
    dark = replace(end, photos=tuple(photos))
    assert chosen(settled(dark, init=given)[0]) == (0, 0)
    assert chosen(settled(dark)[0]) == (2000, 0.2)
    assert chosen(settled(dark, init=replace(given, backdrop=9))[0]) == (9, 0)


def test_what_was_said_stays(toy_scene, end):
    config, line = settled(end, dropout=0.0)
    assert chosen(config) == (2000, 0)
    assert "with --init.backdrop 2000 (0" in line
    config, line = settled(end, init=InitConfig(backdrop=0))
    assert chosen(config) == (0, 0.2)
    assert "with --dropout 0.2 (0" in line
    assert chosen(settled(toy_scene, dropout=0.1, init=InitConfig(backdrop=50))[0]) == (50, 0.1)
    assert settled(end, dropout=0.0, init=InitConfig(backdrop=0)) == (NEITHER, "")


@pytest.mark.parametrize(("times", "expected"), [(math.nan, (0, 0)), (1.9, (0, 0)), (2.0, (2000, 0.2))])
def test_twice_as_far_is_far(end, monkeypatch, times, expected):
    monkeypatch.setattr(far_views, "times_apart", lambda *_: times)
    assert chosen(settled(end)[0]) == expected


def mode(scene, *, small=True, targets=None, **changes):
    config, line = settled(scene, targets, small=small, **changes)
    was = changes.get("distill", TrainConfig().distill).mode
    assert ("--distill.mode progressive" in line) == (config.distill.mode == "off" != was)
    return config.distill.mode


def test_small_weights_are_not_distilled_between_the_photos(toy_scene, end, tmp_path):
    """Nor is anybody else's choice touched."""
    given = TrainConfig().distill
    assert mode(toy_scene) == "off"
    assert mode(end) == "progressive"
    assert mode(toy_scene, targets=toy_scene.cameras[:1]) == "off"
    assert mode(toy_scene, small=False) == "progressive"
    assert mode(replace(toy_scene, test=np.array([], int))) == "progressive"  # perturbed ones go far off
    assert mode(toy_scene, distill=replace(given, targets="perturb")) == "progressive"
    assert mode(toy_scene, init=InitConfig(ply=tmp_path / "any.ply")) == "progressive"
    for asked in ("progressive", "once", "off"):
        assert mode(toy_scene, distill=replace(given, mode=asked)) == asked


def test_a_run_with_small_weights_between_the_photos_says_so_and_keeps_it(toy_scene, config):
    started = []
    config = replace(config, fixer="mini", max_steps=8, plus=False)
    trainer = Trainer(config, toy_scene, [started.append])
    trainer.train()
    (begun,) = (event for event in started if isinstance(event, Started))
    assert "difix-mini has nothing to teach" in begun.note
    assert trainer.folder.rows("rounds.json") == []
    longer = replace(config, max_steps=9, resume=True)
    far = toy_scene.cameras[toy_scene.test]
    assert Trainer(longer, toy_scene, targets=far).config.distill.mode == "off"
    own = config.output_dir / "config.yaml"
    own.write_text(own.read_text().replace("  mode: 'off'\n", ""))
    assert Trainer(longer, toy_scene).config.distill.mode == "progressive"  # a version that did not choose
    assert Trainer(replace(config, output_dir=config.output_dir / "own"), toy_scene, fixer=keep).rounds.due(2)


def keep(degraded):
    """A fixer of one's own."""
    for item in degraded:
        yield item.rgb


def test_what_was_chosen_is_kept_by_a_resume(end, config):
    """Whatever the rule would say now, and nothing in a run of a version that did not choose."""
    Trainer(replace(config, max_steps=3), end).train()
    longer = replace(config, max_steps=5, resume=True)
    assert chosen(Trainer(longer, end, targets=end.cameras[end.train]).config) == (2000, 0.2)
    own = config.output_dir / "config.yaml"
    own.write_text(own.read_text().replace("dropout: 0.2\n", "").replace("  backdrop: 2000\n", ""))
    assert chosen(Trainer(longer, end).config) == (0, 0)
    assert chosen(Trainer(replace(longer, dropout=0.1), end).config) == (0, 0.1)


def test_the_plain_run_beside_it_has_the_same(toy_scene, config, monkeypatch):
    """Though it has no novel cameras of its own, whose targets would tell. Its first Gaussians are not made again."""
    end = replace(toy_scene, train=np.array([0, 1, 2, 3]), test=np.array([], int))
    with ExitStack() as stack:
        trainer = Trainer(config, end, targets=toy_scene.cameras[9:])
        monkeypatch.delattr("difix3d.training.trainer.initial_gaussians")
        plain = make_plain(trainer, stack)
        assert chosen(plain.config) == chosen(trainer.config) == (2000, 0.2)
        torch.testing.assert_close(plain.gaussians.means, trainer.gaussians.means, atol=0, rtol=0)
        assert plain.gaussians.means.data_ptr() != trainer.gaussians.means.data_ptr()
