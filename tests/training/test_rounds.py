"""Distillation in training: oracles help, harm is rolled back to the bit, runs resume."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_run import write_scene

from difix3d.cli.train import train
from difix3d.difix.load import resolve_fixer
from difix3d.distill import DistillConfig
from difix3d.errors import UserError
from difix3d.images import read_image
from difix3d.logs import ProgressLog, TensorBoardLog
from difix3d.report import write_report
from difix3d.scene.pathfile import CameraPath, write_path
from difix3d.training import TrainConfig, Trainer
from difix3d.training.configfile import merge
from difix3d.training.events import RoundDone, Stepped
from difix3d.training.rounds import choose_targets

ROUNDS = [7, 10, 13, 16, 19, 22, 25, 28]
"""Of a run of thirty steps."""


@pytest.fixture
def config(config):
    """A run that begins near the truth, so that photos can judge from the first round on."""
    return merge(config, {"init": {"opacity": 0.8}, "densify": {"reset_every": 0}}, source="test")


def inverted(degraded):
    """Wrong colours everywhere."""
    for item in degraded:
        yield 1 - item.rgb


def same(a, b) -> bool:
    return all(torch.equal(value, b.as_dict()[name]) for name, value in a.as_dict().items())


def rounds(config):
    return json.loads((config.output_dir / "rounds.json").read_text())


def with_distill(config, **change):
    return replace(config, distill=replace(config.distill, **change))


def test_a_run_with_an_oracle_leaves_everything_in_its_folder(toy_scene, config, oracle, capsys):
    events = []
    listeners = [events.append, ProgressLog(), TensorBoardLog()]
    trainer = Trainer(config, toy_scene, listeners, oracle)
    plain = Trainer(replace(config, output_dir=config.output_dir.with_name("plain")), toy_scene).train()
    assert not same(trainer.train(), plain)
    done = [event for event in events if isinstance(event, RoundDone)]
    assert [event.step for event in done] == ROUNDS
    assert all(set(event.seconds) == {"move", "render", "fix", "compare", "judge", "write"} for event in done)
    assert "round 1 of 8, 3 novel views: " in capsys.readouterr().err

    rows = rounds(config)
    assert [row["step"] for row in rows] == ROUNDS
    for row in rows:
        assert row["decision"] in ("keep", "lower", "roll back", "refuse")
        assert len(row["psnr_without"]) == len(row["held_out"]) == 1
        assert not set(row["held_out"]) & set(row["references"])
    assert len({row["held_out"][0] for row in rows}) == 8  # turn by turn
    folder = config.output_dir / "rounds" / "step_000025"
    assert read_image(folder / "sheet.png").shape[1] == 4 * 320 + 3 * 4
    assert {path.name for path in folder.glob("*/02.png")} == {"02.png"}
    # the last cameras have arrived, and what the oracle showed there is what the photos show
    for i, index in enumerate(toy_scene.test):
        np.testing.assert_array_equal(
            read_image(folder / "fixed" / f"{i:02d}.png"), read_image(toy_scene.photos[index].path)
        )
    metrics = json.loads((config.output_dir / "metrics.json").read_text())
    assert [(row["step"], row["plus"]) for row in metrics] == [(30, False), (30, True)]
    page = write_report(trainer.folder).read_text(encoding="utf-8")
    assert all(text in page for text in ("Difix3D+", "Round 7, before step 25", "better on"))


def test_harm_is_rolled_back_to_the_bit(toy_scene, config, oracle):
    """What photos contradict is refused, what fails the trial is rolled back: the run is the plain one, bit by bit."""
    config = merge(config, {"distill": {"tolerance": -100.0}}, source="test")  # which nothing passes
    plain = Trainer(replace(config, output_dir=config.output_dir.with_name("plain")), toy_scene).train()
    for name, fixer in (("inverted", inverted), ("oracle", oracle)):
        run = replace(config, output_dir=config.output_dir.with_name(name))
        assert same(Trainer(run, toy_scene, fixer=fixer).train(), plain)
        assert {row["decision"] for row in rounds(run)} <= {"refuse", "roll back"}
        assert {row["weight"] for row in rounds(run)} == {0.0}


def test_without_the_gate_every_covered_pixel_counts_and_nothing_is_tried(toy_scene, config):
    config = with_distill(config, gate="off")
    Trainer(config, toy_scene, fixer=inverted).train()
    rows = rounds(config)
    assert {row["decision"] for row in rows} == {"unchecked"}
    assert all(row["trials"] == [] and row["held_out"] == [] for row in rows)
    weights = np.unique(read_image(config.output_dir / "rounds" / "step_000007" / "confidence" / "00.png"))
    assert set(weights) <= {0, 255}


@pytest.mark.parametrize(
    ("change", "saved"),
    [
        ({"batch_size": 2}, 7),
        ({"refine": {"poses": True, "exposure": True}, "loss": {"depth": 0.1}}, 17),
    ],
    ids=["in batches, before the first round", "with corrections, after a round"],
)
def test_a_run_that_dies_resumes_to_the_bit(toy_scene, config, oracle, change, saved):
    config = merge(config, change, source="test")
    whole = Trainer(replace(config, output_dir=config.output_dir.with_name("whole")), toy_scene, fixer=oracle).train()

    class Death(BaseException):  # as a kill, it leaves no time to save
        pass

    def die(event):
        if isinstance(event, Stepped) and event.step == 18:
            raise Death

    halves = replace(config, save_steps=(saved,))
    with pytest.raises(Death):
        Trainer(halves, toy_scene, [die], oracle).train()
    resumed = Trainer(replace(halves, resume=True), toy_scene, fixer=oracle)
    assert (resumed.first, resumed.rounds.pseudo is not None) == (saved, saved > 7)
    assert same(resumed.train(), whole)
    assert [row["step"] for row in rounds(config)] == ROUNDS


def test_all_at_once_goes_straight_to_the_targets(toy_scene, config, oracle):
    config = with_distill(config, mode="once")
    trainer = Trainer(config, toy_scene, fixer=oracle)
    trainer.train()
    assert [row["step"] for row in rounds(config)] == [7]
    assert torch.allclose(torch.tensor(rounds(config)[0]["cameras"]), toy_scene.cameras.c2w[toy_scene.test])


def test_an_empty_schedule_is_plain_training(toy_scene, config, oracle):
    plain = Trainer(replace(config, output_dir=config.output_dir.with_name("plain")), toy_scene).train()
    assert same(Trainer(with_distill(config, mode="off"), toy_scene, fixer=oracle).train(), plain)
    assert not (config.output_dir / "rounds.json").exists()


def test_without_rounds_the_fixed_row_is_3dgs_and_difix_on_every_pixel(toy_scene, config):
    """As in ``difix3d evaluate``: nothing is kept of the render where photos agree with it."""
    trainer = Trainer(with_distill(config, mode="off"), toy_scene, fixer=inverted)
    trainer.train()
    render, fixed = (
        read_image(config.output_dir / "eval" / f"step_000030{kind}" / "renders" / "02.png").astype(int)
        for kind in ("", "_plus")
    )
    assert np.abs(255 - render - fixed).max() <= 1
    assert "3DGS + Difix against 3DGS" in write_report(trainer.folder).read_text(encoding="utf-8")


def test_a_round_before_every_step(toy_scene, config, oracle):
    config = with_distill(replace(config, max_steps=4), start=0, every=1)
    Trainer(config, toy_scene, fixer=oracle).train()
    assert [row["step"] for row in rounds(config)] == [0, 1, 2, 3]


def test_one_captured_view(toy_scene, config, oracle):
    scene = replace(toy_scene, train=toy_scene.train[:1])
    Trainer(config, scene, fixer=oracle).train()
    assert {row["decision"] for row in rounds(config)} == {"unchecked"}


def test_targets_that_are_captured_cameras(toy_scene, config, oracle):
    captured = toy_scene.cameras[toy_scene.train]
    trainer = Trainer(config, toy_scene, fixer=oracle, targets=captured)
    trainer.train()
    assert torch.allclose(torch.tensor(rounds(config)[-1]["cameras"]), captured.c2w, atol=1e-6)


def test_without_held_out_photos_the_captured_cameras_are_perturbed(toy_scene, config, oracle):
    scene = replace(toy_scene, test=toy_scene.test[:0])
    config = with_distill(config, num_perturbed=4, step_size=0.05)
    Trainer(config, scene, fixer=oracle).train()
    assert all(len(row["cameras"]) == 4 for row in rounds(config))
    with pytest.raises(UserError, match="no targets.*--distill.targets eval needs held-out photos"):
        choose_targets("eval", scene)


def test_targets_from_a_camera_path(toy_scene, config, oracle, tmp_path):
    cameras = toy_scene.cameras[[2, 6]]
    write_path(CameraPath(cameras, 24.0), tmp_path / "path.json", toy_scene)
    config = with_distill(config, targets=str(tmp_path / "path.json"), mode="once")
    Trainer(config, toy_scene, fixer=oracle).train()
    assert torch.allclose(torch.tensor(rounds(config)[0]["cameras"]), cameras.c2w, atol=1e-5)


@pytest.mark.parametrize(
    ("fixer", "message"),
    [
        (lambda degraded: iter([]), "The fixer ended after 0 images"),
        (
            lambda degraded: (image for item in degraded for image in (item.rgb, item.rgb)),
            "gave a second image for render 0",
        ),
        (
            lambda degraded: (item.rgb[:5] for item in degraded),
            r"novel camera 0 is \(5, 48, 3\).*render is \(40, 48, 3\)",
        ),
        (lambda degraded: (item.rgb * float("nan") for item in degraded), "NaN or infinite values.*--fixer"),
    ],
)
def test_a_broken_fixer_is_named(toy_scene, config, fixer, message):
    with pytest.raises(UserError, match=message):
        Trainer(config, toy_scene, fixer=fixer).train()


def test_weights_that_cannot_be_had_name_the_ways_out(toy_scene, config, tmp_path):
    with pytest.raises(UserError, match=r"cannot be loaded.*--fixer FOLDER.*--fixer none"):
        Trainer(replace(config, fixer=str(tmp_path / "nothing")), toy_scene)
    assert not config.output_dir.exists()
    assert DistillConfig().mode == "auto"
    assert list(DistillConfig().schedule(8)) == list(DistillConfig(mode="progressive").schedule(8)) != []


def test_by_default_a_cpu_gets_the_small_weights(toy_scene, config):
    assert resolve_fixer(TrainConfig.fixer, torch.device("cuda")) == "nvidia/difix_ref"
    trainer = Trainer(replace(config, fixer=TrainConfig.fixer), toy_scene)
    assert trainer.fixer.pipe.vae.layers == 2
    trainer.begin()
    settings = (config.output_dir / "config.yaml").read_text()
    assert "fixer: mini" in settings
    assert "novel_prob: 0.15" in settings


def test_difix_in_training(toy_scene, config, shared):
    """The whole way with real (tiny) weights."""
    folder = shared / "golden" / "tiny_difix_ref"
    config = with_distill(replace(config, fixer=str(folder), max_steps=8), every=4)
    start = time.perf_counter()
    Trainer(config, toy_scene).train()
    assert rounds(config)
    assert time.perf_counter() - start < 60


def test_a_report_compares_equal_steps_only(toy_scene, config, oracle):
    """What trained longer is better for that alone: plain 3DGS counts only where it was evaluated at that step."""
    trainer = Trainer(replace(config, eval_steps=(20, 22)), toy_scene, fixer=oracle)
    plain = Trainer(replace(config, eval_steps=(10, 20), output_dir=config.output_dir / "plain"), toy_scene)
    trainer.begin()
    with pytest.raises(UserError, match=r"Nothing of .*run is evaluated yet.*--resume --output-dir"):
        write_report(trainer.folder, plain.folder)

    def report(run, last):
        run.listeners = [lambda event: isinstance(event, Stepped) and event.step == last and run.control.stop()]
        run.control.stopped = False
        run.train()
        run.first = last
        return write_report(trainer.folder, plain.folder).read_text(encoding="utf-8")

    report(trainer, 21)
    page = report(plain, 12)  # evaluated at step 10 only
    assert "Difix3D against" not in page
    assert "3DGS left out: it was not evaluated at step 20: there is nothing to compare with" in page
    assert "Difix3D against 3DGS" in report(plain, 21)
    assert "3DGS left out: it was not evaluated at step 22" in report(trainer, 23)


@pytest.mark.slow
def test_the_command_compares_with_plain_training(tmp_path, toy_scene, shared, capfd):
    """One command: plain 3DGS, Difix3D and Difix3D+ beside each other, in a report."""
    folder = tmp_path / "run"
    scene = write_scene(tmp_path / "scene", toy_scene)
    args = ["--scene", str(scene), "--split", "every:4", "--max-steps", "24", "--init.points", "300"]
    args += ["--fixer", str(shared / "golden" / "tiny_difix_ref"), "--compare", "--output-dir", str(folder)]
    train([*args, "--eval-steps", "--save-steps", "--device", "cpu"])
    rows = json.loads((folder / "metrics.json").read_text())
    assert [(row["step"], row["plus"]) for row in rows] == [(24, False), (24, True)]
    assert len(json.loads((folder / "plain" / "metrics.json").read_text())) == 1
    assert not (folder / "plain" / "rounds.json").exists()
    page = (folder / "report.html").read_text()
    assert all(name in page for name in ("3DGS", "Difix3D", "Difix3D+"))
    assert "report: " in capfd.readouterr().err
    train(["--resume", "--output-dir", str(folder)])  # both are finished: nothing is trained again
    assert json.loads((folder / "metrics.json").read_text()) == rows
