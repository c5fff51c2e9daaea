"""The plugin for nerfstudio: its world, renders, batches, trial and training."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("nerfstudio", reason='needs pip install -e ".[nerfstudio]"')


@pytest.fixture
def trainer(config, start):
    return start(config)


def test_world_is_the_toys(trainer, toy_scene):
    scene = trainer.pipeline.world.scene
    assert len(scene.train) == len(toy_scene.train)
    assert len(scene.test) == len(toy_scene.test)
    back = np.linalg.inv(scene.from_input)
    centers = scene.cameras.centers.double().numpy() @ back[:3, :3].T + back[:3, 3]
    expected = toy_scene.cameras.centers[[*toy_scene.train, *toy_scene.test]]
    np.testing.assert_allclose(centers, expected, atol=1e-4)
    ns = trainer.pipeline.datamanager.train_dataset.cameras
    assert float(ns.camera_to_worlds[..., 3].abs().max()) == pytest.approx(1, abs=1e-4)  # its own cube, another scale


def test_cameras_go_there_and_back(trainer):
    world = trainer.pipeline.world
    cameras = world.scene.cameras[world.scene.train]
    there = world.to_nerfstudio(cameras)
    dataset = trainer.pipeline.datamanager.train_dataset.cameras
    torch.testing.assert_close(there.camera_to_worlds, dataset.camera_to_worlds, atol=1e-5, rtol=0)
    torch.testing.assert_close(world.to_scene(there).c2w, cameras.c2w, atol=1e-5, rtol=0)
    torch.testing.assert_close(world.to_scene(there).K, cameras.K)


def test_depth_is_along_the_axis_in_units_of_the_scene(trainer):
    """A model that is a plane, at a known place of the scene."""
    from difix3d.geometry.warp import unproject
    from difix3d.integrations.nerfstudio.render import Renderer

    world = trainer.pipeline.world
    height = float(world.scene.cameras.centers[:, 2].min()) - 1

    class Plane(torch.nn.Module):
        device = torch.device("cpu")

        def get_outputs_for_camera(self, camera):
            rays = camera.generate_rays(camera_indices=0, keep_shape=True)
            origins, directions = (torch.from_numpy(world.from_nerfstudio).float()[:3, :3] @ x[..., None] for x in (
                rays.origins, rays.directions))  # fmt: skip
            z = origins[..., 2, 0] + world.from_nerfstudio[2, 3]
            depth = (height - z) / directions[..., 2, 0]
            there = depth > 0
            return {
                "rgb": torch.zeros(*depth.shape, 3),
                "accumulation": there.float()[..., None],
                "depth": depth.clamp(min=0)[..., None],
            }

    camera = world.scene.cameras[0]
    depth = Renderer(Plane(), world)(camera).depth_map
    points = unproject(depth, camera)[depth > 0]
    assert len(points) > 100
    torch.testing.assert_close(points[:, 2], torch.full((len(points),), height), atol=1e-3, rtol=0)


def test_photos_are_left_out_of_a_batch(trainer):
    batches = trainer.pipeline.batches
    _, all_of_them = batches.photos(0, ())
    rays, batch = batches.photos(0, (1, 4))
    assert set(all_of_them["indices"][:, 0].tolist()) == set(range(9))
    assert set(batch["indices"][:, 0].tolist()) == set(range(9)) - {1, 4}
    assert len(rays) == len(batch["image"]) == len(batch["indices"])


def test_novel_rays_are_those_of_their_pixels(trainer):
    from difix3d.types import View

    world = trainer.pipeline.world
    confidence = torch.zeros(40, 48)
    confidence[7, 30] = 0.5
    image = torch.rand(40, 48, 3)
    camera = world.scene.cameras[0]
    view = View(camera, image, "novel", confidence=confidence, weight=0.3)
    (rays, batch), factor = trainer.pipeline.batches.novel(view)
    assert factor == pytest.approx(0.3 * 0.5 / (40 * 48))
    torch.testing.assert_close(batch["image"], image[7, 30].expand(256, 3))
    whole = world.to_nerfstudio(camera).generate_rays(camera_indices=0, keep_shape=True)
    torch.testing.assert_close(rays.directions, whole.directions[7, 30].expand(256, 3))


def test_trial_puts_everything_back(trainer):
    pipeline = trainer.pipeline
    trainer.train_iteration(0)
    before = {name: value.clone() for name, value in pipeline.model.state_dict().items()}
    moments = trainer.optimizers.optimizers["fields"].state_dict()["state"][0]["exp_avg"].clone()
    rates = trainer.optimizers.schedulers["fields"].get_last_lr()
    first = pipeline._trial(trainer, 1, [0], None)
    again = pipeline._trial(trainer, 1, [0], None)
    assert first == again  # the same photos, from the same state
    assert first != pytest.approx(psnr_of(pipeline, 0), abs=1e-6)  # and it did train
    for name, value in pipeline.model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    torch.testing.assert_close(
        trainer.optimizers.optimizers["fields"].state_dict()["state"][0]["exp_avg"], moments, rtol=0, atol=0
    )
    assert trainer.optimizers.schedulers["fields"].get_last_lr() == rates


def test_trial_puts_splats_back(splat_config, start):
    trainer = start(splat_config)
    pipeline = trainer.pipeline
    pipeline.model.step_cb(trainer.optimizers, 0)
    trainer.train_iteration(0)
    params = dict(pipeline.model.gauss_params)
    before = {name: value.detach().clone() for name, value in params.items()}
    order = list(pipeline.datamanager.train_unseen_cameras)
    first = pipeline._trial(trainer, 1, [0], None)
    assert first == pipeline._trial(trainer, 1, [0], None)
    assert first != pytest.approx(psnr_of(pipeline, 0), abs=1e-6)
    assert pipeline.datamanager.train_unseen_cameras == order
    for name, value in pipeline.model.gauss_params.items():
        assert value is params[name]  # the optimizers' own
        torch.testing.assert_close(value.detach(), before[name], rtol=0, atol=0)


def psnr_of(pipeline, index):
    from difix3d.evaluate import psnrs

    return psnrs(pipeline.renderer, [pipeline.photo(index)])


def test_novel_steps_do_not_move_photos_poses(trainer):
    """Corrections of poses and appearance belong to photos: a novel step gives them no gradient."""
    pipeline = trainer.pipeline
    view = replace(pipeline.photo(0), confidence=torch.ones(40, 48))
    pipeline._draw = lambda step: ([view], ())
    _, losses, _ = pipeline.get_train_loss_dict(0)
    sum(losses.values()).backward()
    assert pipeline.model.camera_optimizer.pose_adjustment.grad is None
    assert pipeline.model.camera_optimizer.config.mode == "SO3xR3"
    assert pipeline.model.field.training


@pytest.mark.slow
@pytest.mark.parametrize("method", ["config", "splat_config"])
def test_a_training_fixes_saves_and_resumes(method, start, capsys, request):
    config = request.getfixturevalue(method)
    config.pipeline.distill.__dict__.update(gate="off", min_alpha=0.0)  # so short a training is of no use to judge
    trainer = start(config)
    trainer.train()
    run = trainer.base_dir
    rows = json.loads((run / "rounds.json").read_text())
    assert [row["step"] for row in rows] == [10, 15, 20, 25, 30, 35]
    assert {row["decision"] for row in rows} == {"unchecked"}
    assert (run / "rounds" / "step_000010" / "sheet.png").is_file()
    assert "round 1 of 6 before step 10" in capsys.readouterr().out
    kept = trainer.pipeline.rounds.pseudo
    assert kept is not None

    config.load_dir, config.timestamp, config.max_num_iterations = trainer.checkpoint_dir, "u", 5
    resumed = start(config)
    assert resumed._start_step == 40
    assert resumed.pipeline.first == 0
    torch.testing.assert_close(resumed.pipeline.rounds.pseudo.images[0], kept.images[0])
    if method == "splat_config":  # densified since: the optimizers must hold the parameters that were loaded
        means = resumed.pipeline.model.gauss_params["means"]
        before = means.detach().clone()
        assert resumed.optimizers.optimizers["means"].state[means]["exp_avg"].shape == means.shape
        resumed.pipeline.model.step_cb(resumed.optimizers, 40)
        resumed.train_iteration(40)
        assert not torch.equal(resumed.pipeline.model.gauss_params["means"].detach(), before)

    tested = start(config, mode="test")
    metrics = tested.pipeline.get_average_eval_image_metrics(get_std=True)
    assert {"psnr", "ssim", "lpips", "fixed_psnr", "fixed_psnr_std"} <= metrics.keys()
    assert metrics["fixed_psnr"] > metrics["psnr"]  # the oracle knows


def test_plain_checkpoints_are_begun_with(config, start, monkeypatch):
    """A run of nerfstudio's own has no novel views: the rounds begin at once."""
    trainer = start(config)
    monkeypatch.setattr(trainer.pipeline, "get_extra_state", dict, raising=False)
    state = {name: value for name, value in trainer.pipeline.state_dict().items() if name != "_extra_state"}
    again = start(config)
    again.pipeline.load_pipeline(state, 39)
    again._start_step = 40
    rounds = again.pipeline._rounds(again)
    assert (again.pipeline.first, rounds.distiller.steps[0]) == (40, 0)


def test_what_cannot_be_is_said_without_a_traceback(config, capsys):
    config.pipeline.fixer = "no/such/folder"
    with pytest.raises(SystemExit) as stopped:
        config.pipeline.setup(device="cpu", test_mode="val")
    assert stopped.value.code == 2
    told = capsys.readouterr().out.replace("\n", " ")
    assert "cannot be loaded" in told
    assert "Pass --pipeline.fixer mini" in told
    assert " --fixer" not in told


def test_a_data_folder_that_is_not_there(config, tmp_path, capsys):
    config.pipeline.datamanager.data = tmp_path / "nowhere"
    with pytest.raises(SystemExit) as stopped:
        config.pipeline.setup(device="cpu", test_mode="val")
    assert stopped.value.code == 2
    assert f"There is no data in {tmp_path / 'nowhere'}" in capsys.readouterr().out.replace("\n", "")


def test_a_folder_without_what_the_parser_reads(config, tmp_path, capsys):
    """Photos alone, or beside a COLMAP model: we would read them, the default parser of nerfstudio does not."""
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig

    config.pipeline.datamanager.data = tmp_path
    for parser, lost in ((None, "transforms.json"), (ColmapDataParserConfig(), "colmap/sparse/0")):
        config.pipeline.datamanager.dataparser = parser or config.pipeline.datamanager.dataparser
        with pytest.raises(SystemExit):
            config.pipeline.setup(device="cpu", test_mode="val")
        assert f"There is no {lost} in {tmp_path}" in capsys.readouterr().out.replace("\n", "")


def test_cameras_that_we_do_not_render_are_named(config, oracle, data, tmp_path, capsys):
    content = json.loads((data / "transforms.json").read_text())
    content["camera_model"] = "EQUIRECTANGULAR"
    (tmp_path / "images").symlink_to(data / "images")
    (tmp_path / "transforms.json").write_text(json.dumps(content | {"ply_file_path": str(data / "points.ply")}))
    config.pipeline.datamanager.data = tmp_path
    with pytest.raises(SystemExit):
        config.pipeline.setup(device="cpu", test_mode="val")
    assert "EQUIRECTANGULAR" in capsys.readouterr().out


def test_nerfstudios_camera_paths_are_in_its_world(trainer, tmp_path):
    dataset = trainer.pipeline.datamanager.train_dataset.cameras
    pose = np.eye(4)
    pose[:3] = dataset.camera_to_worlds[2].numpy()
    frame = {"camera_to_world": pose.flatten().tolist(), "fov": 50}
    path = tmp_path / "camera_path.json"
    path.write_text(json.dumps({"render_width": 48, "render_height": 40, "fps": 24, "camera_path": [frame]}))
    world = trainer.pipeline.world
    torch.testing.assert_close(world.read_path(path).c2w, world.scene.cameras[[2]].c2w, atol=1e-5, rtol=0)
