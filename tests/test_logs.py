import io
from pathlib import Path

import torch
from rich.console import Console

from difix3d.evaluate import Variant
from difix3d.logs import ProgressLog
from difix3d.training.events import Evaluated, Finished, Saved, Started, Stepped


def run(log: ProgressLog, steps: int) -> None:
    log(Started(0, steps, Path("outputs/x"), "cpu", 1000))
    for step in range(1, steps + 1):
        log(Stepped(step, {"l1": torch.tensor(0.1), "dssim": torch.tensor(0.02)}, torch.tensor(0.01), 1234))
    log(Saved(steps, Path("step.safetensors")))
    images = (
        {"name": "a", "psnr": 20.0, "ssim": 0.5, "seconds": 0.01},
        {"name": "b", "psnr": 30.0, "ssim": 0.7, "seconds": 0.03},
    )
    log(Evaluated(steps, Variant("3DGS", "eval", images, {}), False, "test"))
    log(Finished(steps, 60.0, False))


def test_a_pipe_gets_ten_lines_not_a_thousand():
    text = io.StringIO()
    run(ProgressLog(Console(file=text, force_terminal=False, width=40)), 1000)
    lines = text.getvalue().splitlines()
    steps = [line for line in lines if " of 1,000" in line]
    assert len(steps) == 10
    assert "loss 0.1200  PSNR 20.00  1,234 Gaussians" in steps[-1]
    assert any("PSNR 25.00 dB, SSIM 0.600 on 2 test views, 20.0 ms per frame" in line for line in lines)
    assert "done in 1.0 min: outputs/x" in lines[-1]


def test_a_terminal_gets_a_bar():
    text = io.StringIO()
    run(ProgressLog(Console(file=text, force_terminal=True, width=120)), 50)
    assert "50/50" in text.getvalue()
    assert " of 50" not in text.getvalue()


def test_the_folder_is_named_as_it_is():
    text = io.StringIO()
    log = ProgressLog(Console(file=text, force_terminal=False, width=40))
    for name in ("scan[v2]", "a[/b]"):
        log(Started(0, 10, Path(name), "cpu", 1000))
        log(Finished(3, 60.0, True))
    assert "into scan[v2]" in text.getvalue()
    assert "go on with: --resume --output-dir scan[v2]" in text.getvalue()
    assert "go on with: --resume --output-dir a[/b]" in text.getvalue()
