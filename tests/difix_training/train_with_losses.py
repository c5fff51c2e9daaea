"""A training for the test of several processes: PAIRS FOLDER BATCH; writes its losses."""

import json
import sys
from pathlib import Path

from difix3d.difix_training.config import DifixLossConfig, DifixOptimConfig, MiniConfig, TrainDifixConfig
from difix3d.difix_training.trainer import DifixTrainer


def main(pairs: str, folder: str, batch: str) -> None:
    config = TrainDifixConfig(
        data=Path(pairs),
        output_dir=Path(folder),
        fixer="scratch",
        mini=MiniConfig(unet_widths=(32,) * 4, vae_widths=(32,) * 4),
        resolution=(32, 32),
        steps=4,
        batch_size=int(batch),
        accumulate=2,
        workers=1,
        device="cpu",
        tracker="none",
        eval_pairs=2,
        loss=DifixLossConfig(lpips=0.0, gram=0.0),
        optim=DifixOptimConfig(lr=1e-4, warmup=1),
    )
    trainer, losses = DifixTrainer(config), []
    step = trainer.step
    trainer.step = lambda *args: losses.append(step(*args)) or losses[-1]  # type: ignore[func-returns-value, method-assign]
    trainer.train()
    if trainer.main:
        found = {"processes": trainer.accelerator.num_processes, "losses": [loss["l2"] for loss in losses]}
        (config.output_dir / "losses.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
