"""Runs that are killed, as whole processes, and resumed."""

import signal
import subprocess
import sys

import pytest
import torch
from small_run import write_scene

from difix3d.gaussians import load_checkpoint

PROGRAM = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from difix3d.training import TrainConfig, Trainer
from difix3d.gaussians.init import InitConfig

folder, phase, resume = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "resume"

def fixer(degraded):
    for item in degraded:
        yield item.rgb + 0.035  # enough to count, too little to be refused

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def listen(event):
    if type(event).__name__ == phase and event.step in (25, 26) and not resume:
        kill()

if phase == "Probe" and not resume:
    original = Trainer.trial
    def trial(self, step, held_out, pseudo):
        if step == 25 and pseudo is not None:
            kill()
        return original(self, step, held_out, pseudo)
    Trainer.trial = trial

config = TrainConfig(scene=str(folder.parent / "scene"), split="every:4", fixer="none", plus=False, output_dir=folder,
                     max_steps=30, eval_steps=(), save_steps=(12, 26), device="cpu", resume=resume,
                     init=InitConfig(points=300))
Trainer(config, listeners=[listen], fixer=fixer).train()
"""


def run_program(folder, name, phase, resume=False):
    (folder / "run.py").write_text(PROGRAM)
    words = [sys.executable, str(folder / "run.py"), str(folder / name), phase, "resume" if resume else "new"]
    return subprocess.run(words, check=False, timeout=300).returncode


def last_state(folder):
    return load_checkpoint(folder / "checkpoints" / "step_0000030.safetensors")[1]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, toy_scene):
    folder = tmp_path_factory.mktemp("killed")
    write_scene(folder / "scene", toy_scene)
    assert run_program(folder, "whole", "never") == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["RoundProgress", "Probe", "RoundDone", "Stepped", "Saved"])
def test_a_run_killed_in_any_phase_resumes_to_the_bit(unbroken, phase):
    """SIGKILL while views are fixed, tried or trained on, or right after a checkpoint."""
    assert run_program(unbroken, phase, phase) == -signal.SIGKILL
    assert run_program(unbroken, phase, phase, resume=True) == 0
    whole, killed = last_state(unbroken / "whole"), last_state(unbroken / phase)
    assert whole.keys() == killed.keys()
    assert any(name.startswith("pseudo.") for name in whole)
    assert all(torch.equal(value, killed[name]) for name, value in whole.items())
