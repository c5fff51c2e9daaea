"""A training of nerfstudio on the toy scene, small enough for seconds. Without the extra, all here is skipped."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo.config
from ns_data import stand_in_for_open3d, write_alexnet, write_nerfstudio


@pytest.fixture(scope="session", autouse=True)
def on_this_machine(tmp_path_factory):
    """nerfstudio can be imported, whatever the machine, and downloads nothing."""
    from difix3d.integrations.nerfstudio.cpu import adapt

    if not torch.cuda.is_available():
        adapt()
    stand_in_for_open3d()
    home = tmp_path_factory.mktemp("torch")
    write_alexnet(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(home))
        patch.setattr(torch._dynamo.config, "disable", True)  # Splatfacto compiles an inversion for a minute
        yield


@pytest.fixture(scope="session")
def data(toy_scene, tmp_path_factory) -> Path:
    """The toy scene in nerfstudio's format."""
    return write_nerfstudio(toy_scene, tmp_path_factory.mktemp("toy-ns"))


@pytest.fixture
def config(data, tmp_path):
    """Forty steps of a small Nerfacto, with rounds that an oracle fixes."""
    from difix3d.integrations.nerfstudio import methods

    config = copy.deepcopy(methods.difix3d.config)
    model = config.pipeline.model
    model.implementation, model.num_levels, model.max_res, model.log2_hashmap_size = "torch", 4, 64, 12
    model.num_proposal_samples_per_ray, model.num_nerf_samples_per_ray = (16, 8), 8
    model.hidden_dim = model.hidden_dim_color = 16
    model.average_init_density = 1.0  # opaque from the start: frames that show nothing are not fixed
    model.proposal_net_args_list = [{"hidden_dim": 8, "log2_hashmap_size": 10, "num_levels": 2, "max_res": 32}] * 2
    manager = config.pipeline.datamanager
    manager.train_num_rays_per_batch = manager.eval_num_rays_per_batch = 256
    return small(config, data, tmp_path)


@pytest.fixture
def splat_config(data, tmp_path):
    """Forty steps of Splatfacto."""
    from difix3d.integrations.nerfstudio import methods

    config = copy.deepcopy(methods.difix3d_splatfacto.config)
    config.pipeline.model.num_downscales = 0
    config.pipeline.model.warmup_length, config.pipeline.model.refine_every = 10, 10
    config.steps_per_eval_image = config.steps_per_eval_all_images = 1000
    return small(config, data, tmp_path)


def small(config, data, folder):
    """Common to both methods."""
    config.machine.device_type = "cpu"
    config.data = config.pipeline.datamanager.data = data
    config.output_dir, config.experiment_name, config.timestamp = folder / "out", "toy", "t"
    config.max_num_iterations, config.steps_per_save, config.vis = 40, 40, "tensorboard"
    config.logging.local_writer.enable = False
    config.pipeline.fixer = "mini"
    config.pipeline.distill.__dict__.update(every=1000, trial_steps=3)
    return config


@pytest.fixture
def oracle(monkeypatch, truth):
    """In place of the weights: a fixer that gives what is really there; ``oracle.pipeline`` tells it where that is."""
    from difix3d.geometry.normalize import transform_poses
    from difix3d.integrations.nerfstudio import pipeline
    from difix3d.types import Cameras

    class Oracle:
        pipeline = None

        def __call__(self, degraded):
            for item in degraded:
                to_toy = np.linalg.inv(self.pipeline.world.scene.from_input)
                c2w = torch.from_numpy(transform_poses(to_toy, item.camera.c2w.double().numpy())).float()
                yield truth(Cameras(c2w, item.camera.K, item.camera.width, item.camera.height)).rgb[0].clamp(0, 1)

    fixer = Oracle()
    monkeypatch.setattr(pipeline, "load", lambda config, device: fixer)
    return fixer


@pytest.fixture
def start(oracle):
    """Sets a trainer up."""

    def run(config, mode="val"):
        torch.manual_seed(0)
        trainer = config.setup(local_rank=0, world_size=1)
        trainer.setup(test_mode=mode)
        oracle.pipeline = trainer.pipeline
        return trainer

    return run
