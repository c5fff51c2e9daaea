"""Runs of Splatfacto open in our own commands, and look there as in nerfstudio."""

import pytest
import torch

pytest.importorskip("nerfstudio", reason='needs pip install -e ".[nerfstudio]"')


@pytest.mark.slow
@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
def test_a_run_looks_as_in_nerfstudio(splat_config, start, rasterize_mode):
    from difix3d.images import to_uint8
    from difix3d.metrics import psnr
    from difix3d.training.splatfile import load_model

    splat_config.pipeline.distill.__dict__.update(gate="off", min_alpha=0.0)
    splat_config.pipeline.model.rasterize_mode = rasterize_mode
    trainer = start(splat_config)
    splat_config.save_config()
    trainer.train()

    run = load_model(trainer.base_dir / "config.yml", device="cpu")
    model, eval_set = trainer.pipeline.model.eval(), trainer.pipeline.datamanager.eval_dataset
    assert len(run.gaussians) == model.num_points
    names = [photo.name for photo in run.scene.photos]
    for index, file in enumerate(eval_set.image_filenames):
        theirs = model.get_outputs_for_camera(eval_set.cameras[index : index + 1])["rgb"]
        ours = run.render(run.scene.cameras[next(i for i, name in enumerate(names) if file.name in name)])
        color = model._get_background_color()  # which nerfstudio shows where nothing is
        ours = ours.rgb[0] + (1 - ours.alpha[0]) * color
        assert psnr(*(torch.from_numpy(to_uint8(image.detach())) for image in (ours, theirs))) > 45
