"""Trains what a pickle says, in each process that ``torchrun`` starts: ``train_in_ranks.py PICKLE``.

The pickle holds a scene and some (configuration, whether with a fixer), which are trained one after the other.
"""

import pickle
import sys
from pathlib import Path
from unittest import mock

import torch

from difix3d.ranks import Ranks
from difix3d.training import Trainer, pilot


def brighter(degraded):
    """A fixer."""
    for item in degraded:
        yield (item.rgb + 0.1).clamp(0, 1)


def train(content: bytes, ranks: Ranks) -> None:
    scene, runs = pickle.loads(content)
    for config, fix in runs:
        fixer = brighter if fix else None
        with mock.patch.object(pilot, "LEAST_STEPS", min(pilot.LEAST_STEPS, config.distill.pilot_steps)):
            Trainer(config, scene, fixer=fixer, ranks=ranks).train()


if __name__ == "__main__":
    torch.set_num_threads(1)
    here = Ranks.here().join(torch.device("cpu"))
    train(Path(sys.argv[1]).read_bytes(), here)
    here.close()
    # gloo's threads may abort the program as it ends
    assert "pt_gloo_runloop\n" not in [name.read_text() for name in Path("/proc/self/task").glob("*/comm")]
