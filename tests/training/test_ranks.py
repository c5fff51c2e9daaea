"""Trainings in two processes, over gloo: the CPU's twin of gsplat's distributed rasterisation, beside one process."""

import inspect
import json
import pickle
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from in_ranks import launch
from small_run import write_scene
from train_in_ranks import train

from difix3d.cli.train import train as run_train
from difix3d.errors import UserError
from difix3d.gaussians import from_points, load_checkpoint, newest_checkpoint, write_ply
from difix3d.ranks import ALONE, Ranks
from difix3d.training.guard import check_ranks, out_of_memory

TWO = Ranks(1, 2, 1)


def runs_of(config, folder):
    """Trainings into a folder: one of the Gaussians as they are, one that adds some and has rounds, one whose pilot
    finds that the fixer does not help, and one of the splat file there, with a backdrop."""
    still = replace(config, densify=replace(config.densify, kind="none"), max_steps=12, background="white")
    still = replace(still, refine=replace(still.refine, exposure=True, poses=True), output_dir=folder / "still")
    grown = replace(config, output_dir=folder / "grown", distill=replace(config.distill, targets="eval", mode="once"))
    pilot = replace(grown, output_dir=folder / "pilot", distill=replace(grown.distill, pilot_steps=7))
    given = replace(still, init=replace(config.init, ply=folder / "theirs.ply", backdrop=51))
    given = replace(given, output_dir=folder / "given", background="auto", refine=config.refine)
    return [(still, False), (grown, True), (pilot, True), (given, False)]


@pytest.fixture(scope="module")
def folders(toy_scene, tmp_path_factory):
    """The same trainings: in two processes with a view each, and in one with two."""
    from difix3d.training import TrainConfig

    base = TrainConfig(fixer="none", max_steps=30, eval_steps=(), save_steps=(), device="cpu", sh_degree=1)
    base = replace(base, densify=replace(base.densify, start=2, every=5, reset_every=0))
    both, alone = tmp_path_factory.mktemp("both"), tmp_path_factory.mktemp("alone")
    for folder in (both, alone):
        write_ply(from_points(toy_scene.points, toy_scene.colors, opacity=0.9), folder / "theirs.ply")
    (both / "runs.pickle").write_bytes(pickle.dumps((toy_scene, runs_of(base, both))))
    launch(Path(__file__).with_name("train_in_ranks.py"), both / "runs.pickle")
    train(pickle.dumps((toy_scene, runs_of(replace(base, batch_size=2), alone))), ALONE)
    return both, alone


def resumed(folder):
    """The trainings of a folder, to be gone on with."""
    configs = [(read_config(folder / name), fix) for name, fix in (("still", False), ("grown", True))]
    return [(replace(config, max_steps=36, resume=True), fix) for config, fix in configs]


def read_config(run):
    """What a run was told."""
    from difix3d.training import TrainConfig
    from difix3d.training.configfile import merge, read_own

    return replace(merge(TrainConfig(), read_own(run), source=str(run)), output_dir=run)


def tensors_of(folder):
    return load_checkpoint(newest_checkpoint(folder / "checkpoints"))[1]


def rows_of(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(folders):
    two, one = (tensors_of(folder / "still") for folder in folders)
    assert two.keys() == one.keys()
    for name, value in one.items():
        if name.startswith(("gaussians.", "moments.")) and value.dim() > 0:  # the first's part, then the second's
            value = torch.cat([value[::2], value[1::2]])
        assert two[name].shape == value.shape, name
        apart = (two[name] - value).abs().float() / value.float().abs().max().clamp(min=1e-6)
        assert apart.median() < 1e-5, name
        assert apart.quantile(0.9) < 1e-3, name  # quaternions turn by rounding: all scales begin equal
    psnrs = [rows_of(folder / "still")[-1]["psnr"] for folder in folders]
    assert psnrs[0] == pytest.approx(psnrs[1], abs=0.01)


@pytest.mark.slow
def test_each_adds_gaussians_and_fixes_its_share(folders):
    two, one = (folder / "grown" for folder in folders)
    counts = [rows_of(folder)[-1]["gaussians"] for folder in (two, one)]
    assert counts[0] > 320
    assert counts[0] == pytest.approx(counts[1], rel=0.03)
    rounds = [json.loads((folder / "rounds.json").read_text()) for folder in (two, one)]
    assert [len(row["cameras"]) for row in rounds[0]] == [len(row["cameras"]) for row in rounds[1]] == [3]
    assert rounds[0][0]["references"] == rounds[1][0]["references"]
    assert rounds[0][0]["confidence"] == pytest.approx(rounds[1][0]["confidence"], abs=0.1)
    assert rows_of(two)[-1]["psnr"] == pytest.approx(rows_of(one)[-1]["psnr"], abs=1)
    assert (two / "point_cloud.ply").is_file()


def test_the_first_makes_the_pilot_and_all_follow(folders):
    for folder in folders:
        assert json.loads((folder / "pilot" / "pilot.json").read_text())["helps"] is False
        assert not (folder / "pilot" / "rounds.json").exists()
        assert rows_of(folder / "pilot")[-1]["step"] == 30


def test_a_backdrop_joins_a_splat_file_in_equal_parts(folders):
    two, one = (folder / "given" for folder in folders)
    assert [[row["gaussians"] for row in rows_of(folder)] for folder in (two, one)] == [[300, 351]] * 2
    means, expected = (tensors_of(folder)["gaussians.means"] for folder in (two, one))
    far = [positions[positions.norm(dim=1) > 100] for positions in (means, expected)]
    torch.testing.assert_close(*(positions[positions[:, 2].argsort()] for positions in far))
    assert len(far[0]) == 51
    assert rows_of(two)[-1]["psnr"] == pytest.approx(rows_of(one)[-1]["psnr"], abs=0.1)


@pytest.mark.slow
def test_resumed_by_another_number_of_processes(folders, toy_scene, tmp_path):
    here, there = folders
    before = {run: rows_of(run)[-1] for folder in folders for run in (folder / "still", folder / "grown")}
    train(pickle.dumps((toy_scene, resumed(here))), ALONE)
    (tmp_path / "runs.pickle").write_bytes(pickle.dumps((toy_scene, resumed(there))))
    launch(Path(__file__).with_name("train_in_ranks.py"), tmp_path / "runs.pickle")
    for run, row in before.items():
        after = rows_of(run)[-1]
        assert after["step"] == 36
        assert after["gaussians"] >= 0.9 * row["gaussians"]
        assert after["psnr"] > row["psnr"] - 0.5


@pytest.fixture
def words(toy_scene, tmp_path):
    """Of a training of few steps into ``tmp_path / "run"``."""
    scene = write_scene(tmp_path / "scene", toy_scene)
    words = ["--scene", scene, "--split", "every:4", "--device", "cpu", "--init.points", "300", "--fixer", "none"]
    words += ["--init.dense", "600"]
    return [*words, "--max-steps", "9", "--output-dir", tmp_path / "run"]


@pytest.mark.slow
def test_the_command(words, tmp_path):
    done = launch("scripts/train.py", *words, "--compare")
    assert done.stderr.count("done in") == 2, done.stderr
    assert [rows_of(run)[-1]["step"] for run in (tmp_path / "run", tmp_path / "run/plain")] == [9, 9]
    assert done.stderr.count("600 dense points found") == 1  # for both processes and both trainings
    assert done.stderr.count("from 900 Gaussians") == 2
    refused = launch("scripts/train.py", *words, "--viewer", check=False)
    assert refused.returncode != 0
    assert refused.stderr.count("--viewer is for one process") == 1


TROUBLE = Path(__file__).with_name("trouble_in_ranks.py")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_all_end_at_once_with_the_error_of_one(words, rank):
    done = launch(TROUBLE, rank, "error", *words, check=False)
    assert done.returncode != 0
    assert done.stderr.count("This is the trouble") == 1
    assert "[rank" not in done.stderr  # no traceback


@pytest.mark.slow
def test_a_killed_process_is_told_of_by_another(words):
    done = launch(TROUBLE, 0, "kill", *words, check=False)
    assert done.stderr.count("Another process of this training was ended") == 1, done.stderr
    assert "--resume" in done.stderr
    assert "[rank" not in done.stderr  # no traceback


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"), [(["--max-steps", "-1"], "--max-steps is -1"), (["--max-stepz", "9"], "Unrecognized options:")]
)
def test_what_is_wrong_in_all_is_said_once(words, said):
    done = launch("scripts/train.py", *words, check=False)
    assert done.returncode != 0
    assert done.stderr.count(said) == 1, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("what", ["stop", "stop_all"])
def test_a_signal_to_one_or_all_ends_plain_and_main_training_saved(words, tmp_path, what):
    long = [*words, "--compare", "--max-steps", "100000"]
    done = launch(TROUBLE, 1, what, *long, check=False)
    assert done.returncode != 0
    assert done.stderr.count(": saved step_") == 1, done.stderr
    step = load_checkpoint(newest_checkpoint(tmp_path / "run/plain/checkpoints"))[0]
    assert step >= 7
    assert f"stopped at step {step:,}; go on with" in done.stderr
    assert not list((tmp_path / "run/checkpoints").iterdir())  # the main training had not begun
    run_train(["--resume", "--output-dir", str(tmp_path / "run"), "--max-steps", str(step + 2)])
    assert [rows_of(run)[-1]["step"] for run in (tmp_path / "run", tmp_path / "run/plain")] == [step + 2] * 2


@pytest.mark.slow
def test_mcmc_grows_to_its_cap_and_shakes_each_part_in_its_own_way(toy_scene, tmp_path):
    twice = replace(toy_scene, points=toy_scene.points.repeat(2, 0), colors=toy_scene.colors.repeat(2, 0))
    from difix3d.training import TrainConfig

    cap = len(twice.points) * 5 // 4
    densify = replace(TrainConfig().densify, kind="mcmc", start=2, every=5, stop=1.0, cap_max=cap)
    init = replace(TrainConfig().init, dense=0)
    base = TrainConfig(
        fixer="none", eval_steps=(), save_steps=(), device="cpu", sh_degree=1, densify=densify, init=init
    )
    runs = [replace(base, max_steps=steps, output_dir=tmp_path / str(steps)) for steps in (1, 30)]
    (tmp_path / "runs.pickle").write_bytes(pickle.dumps((twice, [(run, False) for run in runs])))
    launch(Path(__file__).with_name("train_in_ranks.py"), tmp_path / "runs.pickle")
    first, second = tensors_of(tmp_path / "1")["gaussians.means"].chunk(2)  # were the same points
    assert not torch.isclose(first, second, rtol=0, atol=1e-9).all(1).any()
    assert rows_of(tmp_path / "30")[-1]["gaussians"] == pytest.approx(cap, abs=2)


@pytest.mark.parametrize("option", ["--packed", "--densify.absgrad", "--memory-budget"])
def test_what_several_cannot_do_is_said(config, option):
    changes = {
        "--packed": {"packed": True},
        "--densify.absgrad": {"densify": replace(config.densify, absgrad=True)},
        "--memory-budget": {"memory_budget": 8.0},
    }
    check_ranks(replace(config, **changes[option]), ALONE)
    with pytest.raises(UserError, match=f"{option} is for one process"):
        check_ranks(replace(config, **changes[option]), TWO)


def test_no_cure_is_what_several_cannot_do():
    assert "--packed" in str(out_of_memory(3, 100))
    assert "--packed" not in str(out_of_memory(3, 100, TWO))


def test_work_is_shared_out():
    parts = [Ranks(rank, 3).share("abcdefg") for rank in range(3)]
    assert [len(part) for part in parts] == [3, 3, 3]
    assert set("".join(map("".join, parts))) == set("abcdefg")
    rows = torch.arange(7)
    assert sorted(torch.cat([Ranks(rank, 3).part(rows) for rank in range(3)]).tolist()) == rows.tolist()


def test_each_process_takes_its_own_gpu(monkeypatch):
    """Else each but the first keeps a context on the first GPU, and waits for that one."""
    taken = []
    monkeypatch.setattr("difix3d.ranks.dist", mock.Mock(is_initialized=lambda: False))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert TWO.join(torch.device("cuda")) is TWO.join(torch.device("cpu")) is TWO
    with pytest.raises(UserError, match="There are 3 processes and 2 GPUs"):
        Ranks(2, 3, 2).join(torch.device("cuda"))
    assert taken == [1]


def test_one_process_is_left_alone(monkeypatch):
    monkeypatch.setattr("difix3d.ranks.dist", None)
    rows = torch.arange(5)
    assert ALONE.first
    assert ALONE.part(rows) is ALONE.whole_on_first(rows) is ALONE.whole(rows) is ALONE.share_of_loss(rows) is rows
    assert ALONE.totals(3, True) == [3, 1]
    assert ALONE.most(3) == 3
    assert ALONE.fails_first()
    assert ALONE.share(range(4)) == ALONE.collect([0, 1, 2, 3], 4, str) == [0, 1, 2, 3]
    assert ALONE.of_first(lambda: 7) == ALONE.after_first(lambda: 7) == 7


def test_gsplat_is_called_as_it_wants_to_be(toy_scene, monkeypatch):
    """Its assertions of distributed mode, by its source (1.4.0, 1.5.3): colours by Gaussian, no absolute gradients; and
    ``info`` is of this process's Gaussians and all cameras."""
    import gsplat

    from difix3d.render import cuda

    asked, names = {}, inspect.signature(gsplat.rasterization)
    model = from_points(toy_scene.points[:50], toy_scene.colors[:50])

    def rasterization(**options):
        asked.update(names.bind(**options).arguments)
        image, cameras = torch.zeros(1, 40, 48, 3), 2
        info = {"means2d": torch.zeros(cameras, 50, 2), "radii": torch.zeros(cameras, 50, 2), "n_cameras": 1}
        return image, image[..., :1], info

    monkeypatch.setattr(gsplat, "rasterization", rasterization)
    options = {"sh_degree": model.sh_degree, "background": torch.zeros(3), "depth": False}
    out = cuda.rasterize(model, toy_scene.cameras[0], **options, ranks=TWO)
    assert asked["distributed"] is True
    assert not asked["packed"]
    assert not asked["absgrad"]
    assert asked["colors"].shape == (50, 16, 3)
    assert asked["viewmats"].shape == (1, 4, 4)
    assert out.info["n_cameras"] == 2
    cuda.rasterize(model, toy_scene.cameras[0], **options)
    assert asked["distributed"] is False
