"""A benchmark whose jobs are done by a stand-in for the commands, in no time."""

from pathlib import Path

import pytest

YAML = """
name: toys
scenes: {left: {resolution: 32}, right: }
split: every:4
train: {max_steps: 20, device: cpu}
methods:
  3dgs: {fixer: none}
  other: {fixer: none, distill: {gate: off}}
seeds: [0, 1]
evaluate: {metrics: [psnr, ssim]}
"""


def write_benchmark(folder: Path, text: str = YAML) -> Path:
    path = folder / "toys.yaml"
    path.write_text(text)
    return path


def write_evaluation_of(folder: Path, psnr: float = 20.0) -> None:
    from difix3d.evaluate import RunEvaluation, Variant, write_evaluation

    images = tuple({"name": f"{i}.png", "psnr": psnr + i, "ssim": 0.5} for i in range(4))
    variant = Variant("3DGS", "evaluation/3dgs", images, {})
    write_evaluation(folder, RunEvaluation("scene", "test", 20, 0, "cpu", "none", "photo", (variant,), {}))


@pytest.fixture
def commands(monkeypatch):
    """The commands that jobs have called; ``fail`` (part of a command -> error) makes them fail."""
    from difix3d.benchmark import jobs

    class Commands(list):
        def __init__(self):
            super().__init__()
            self.fail = {}

    called = Commands()

    def call(command, log, environment):
        called.append(command)
        line = " ".join(command)
        for part, error in called.fail.items():
            if part in line:
                return error
        folder = Path(command[1] if command[0] == "evaluate" else command[command.index("--output-dir") + 1])
        if command[0] == "evaluate":
            write_evaluation_of(folder)
        else:
            (folder / "checkpoints").mkdir(exist_ok=True)
            (folder / "checkpoints" / "step_0000020.safetensors").touch()
        return None

    monkeypatch.setattr(jobs, "_call", call)
    return called
