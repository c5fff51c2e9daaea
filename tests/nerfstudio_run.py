"""Runs as nerfstudio's Splatfacto leaves them, without nerfstudio."""

import json

import numpy as np
import torch

CONFIG = """!!python/object:nerfstudio.engine.trainer.TrainerConfig
_target: !!python/name:nerfstudio.engine.trainer.Trainer ''
data: &id001 !!python/object/apply:pathlib.PosixPath
{data}
logging: !!python/object:nerfstudio.configs.base_config.LoggingConfig
  stats: !!python/tuple
  - !!python/object/apply:os.system [touch {trap}]
method_name: {method}
pipeline: !!python/object:nerfstudio.pipelines.base_pipeline.VanillaPipelineConfig
  datamanager: !!python/object:nerfstudio.data.datamanagers.full_images_datamanager.FullImageDatamanagerConfig
    data: *id001
    dataparser: !!python/object:nerfstudio.data.dataparsers.any.Config
      _target: !!python/name:nerfstudio.data.dataparsers.any.{parser} ''
      colmap_path: !!python/object/apply:pathlib.PosixPath [sparse, '0']
      data: *id001
  model: !!python/object:nerfstudio.models.splatfacto.SplatfactoModelConfig
    rasterize_mode: antialiased
"""


def write_run(folder, model, to_theirs, data, *, parser="ColmapDataParser", method="splatfacto"):
    """A run as nerfstudio leaves it, of a model in the world of its cameras."""
    (folder / "nerfstudio_models").mkdir(parents=True)
    lines = "\n".join(f"- {part}" for part in data.parts)
    (folder / "config.yml").write_text(
        CONFIG.format(data=lines, method=method, parser=parser, trap=folder / "trap"), encoding="utf-8"
    )
    scale = float(np.cbrt(np.linalg.det(to_theirs[:3, :3])))
    (folder / "dataparser_transforms.json").write_text(
        json.dumps({"transform": (to_theirs[:3] / scale).tolist(), "scale": scale})
    )
    from difix3d.gaussians import transform

    theirs = transform(model, to_theirs)
    tensors = {
        "means": theirs.means,
        "quats": theirs.quats,
        "scales": theirs.scales,
        "opacities": theirs.opacities[:, None],
        "features_dc": theirs.sh0[:, 0],
        "features_rest": theirs.shN,
    }
    state = {f"_model.gauss_params.{name}": value for name, value in tensors.items()}
    rate = np.float64(1e-3)  # nerfstudio's schedulers leave such numbers
    save(folder, {"step": 300, "pipeline": state, "schedulers": {"means": {"_last_lr": [rate]}}})
    return folder / "config.yml"


def save(folder, content):
    torch.save(content, folder / "nerfstudio_models" / "step-000000300.ckpt")
