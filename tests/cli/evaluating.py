"""Evaluation by its command, in the tests."""

from difix3d.cli.evaluate import evaluate
from difix3d.gaussians import load_checkpoint, save_checkpoint

QUICK = ("--metrics", "psnr", "ssim", "--fixer", "none", "--device", "cpu")


def change(run, function):
    """Changes the tensors of the newest checkpoint."""
    step, tensors, extra = load_checkpoint(run / "checkpoints" / "step_0000010.safetensors")
    function(tensors)
    save_checkpoint(run / "checkpoints", step, tensors, extra, keep=0)


def call(*args):
    evaluate([str(arg) for arg in args])
