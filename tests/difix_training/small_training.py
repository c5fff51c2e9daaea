"""A training of a tiny Difix from scratch, for seconds on a CPU."""

from pathlib import Path
from typing import Any

from difix3d.difix_training.config import DifixLossConfig, MiniConfig, TrainDifixConfig

SMALL = MiniConfig(unet_widths=(32,) * 4, vae_widths=(32,) * 4, prompt_width=32)


def small_training(data: Path, output_dir: Path, **options: Any) -> TrainDifixConfig:
    return TrainDifixConfig(
        data=data,
        output_dir=output_dir,
        fixer="scratch",
        mini=SMALL,
        resolution=(32, 32),
        checkpointing=False,
        workers=1,
        device="cpu",
        tracker="none",
        eval_every=0,
        loss=DifixLossConfig(lpips=0.0, gram=0.0),
        **options,
    )
