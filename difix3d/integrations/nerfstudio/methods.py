"""The methods that ``ns-train`` finds by the package's entry points; everything else is as in nerfstudio's own."""

from typing import Any

from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanagerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.plugins.types import MethodSpecification

from difix3d.integrations.nerfstudio.models import DifixNerfactoModelConfig, DifixSplatfactoModelConfig
from difix3d.integrations.nerfstudio.pipeline import DifixPipelineConfig


def _adam(lr: float, lr_final: float | None = None, max_steps: int = 30_000, **warmup: Any) -> dict[str, object]:
    """Adam, whose rate falls to ``lr_final`` within so many steps (without it, stays)."""
    decay = None
    if lr_final is not None:
        decay = ExponentialDecaySchedulerConfig(lr_final=lr_final, max_steps=max_steps, **warmup)
    return {"optimizer": AdamOptimizerConfig(lr=lr, eps=1e-15), "scheduler": decay}


difix3d = MethodSpecification(
    config=TrainerConfig(
        method_name="difix3d",
        steps_per_eval_batch=500,
        steps_per_save=2000,
        max_num_iterations=30_000,
        mixed_precision=True,
        pipeline=DifixPipelineConfig(
            # not the parallel one, whose workers run ahead: the gate's trial gives each branch the same photos
            datamanager=VanillaDataManagerConfig(
                dataparser=NerfstudioDataParserConfig(), train_num_rays_per_batch=4096, eval_num_rays_per_batch=4096
            ),
            model=DifixNerfactoModelConfig(
                eval_num_rays_per_chunk=1 << 15,
                average_init_density=0.01,
                camera_optimizer=CameraOptimizerConfig(mode="SO3xR3"),
            ),
        ),
        optimizers={
            "proposal_networks": _adam(1e-2, 1e-4, 200_000),
            "fields": _adam(1e-2, 1e-4, 200_000),
            "camera_opt": _adam(1e-3, 1e-4, 5000),
        },
        viewer=ViewerConfig(num_rays_per_chunk=1 << 15),
        vis="viewer",
    ),
    description="Difix3D+ on Nerfacto: novel views, repaired by a diffusion model, become training views.",
)

difix3d_splatfacto = MethodSpecification(
    config=TrainerConfig(
        method_name="difix3d-splatfacto",
        steps_per_eval_image=100,
        steps_per_eval_batch=0,
        steps_per_save=2000,
        steps_per_eval_all_images=1000,
        max_num_iterations=30_000,
        mixed_precision=False,
        pipeline=DifixPipelineConfig(
            datamanager=FullImageDatamanagerConfig(
                dataparser=NerfstudioDataParserConfig(load_3D_points=True), cache_images_type="uint8"
            ),
            model=DifixSplatfactoModelConfig(),
        ),
        optimizers={
            "means": _adam(1.6e-4, 1.6e-6),
            "features_dc": _adam(0.0025),
            "features_rest": _adam(0.0025 / 20),
            "opacities": _adam(0.05),
            "scales": _adam(0.005),
            "quats": _adam(0.001),
            "camera_opt": _adam(1e-4, 5e-7, warmup_steps=1000, lr_pre_warmup=0),
            "bilateral_grid": _adam(2e-3, 1e-4, warmup_steps=1000, lr_pre_warmup=0),
        },
        viewer=ViewerConfig(num_rays_per_chunk=1 << 15),
        vis="viewer",
    ),
    description="Difix3D+ on Splatfacto: novel views, repaired by a diffusion model, become training views.",
)
