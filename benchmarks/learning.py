"""Training on a set number of Gaussians: our step, and gsplat's plain loop as its documentation shows it.

Both start from the same Gaussians and see the same photos in the same order, decoded by the same threads.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from difix3d.render import rasterize
from difix3d.scene.batches import batches
from difix3d.ssim import ssim_twin
from difix3d.training import TrainConfig, Trainer
from difix3d.training.optim import OptimConfig, SplatOptimizer
from difix3d.types import Gaussians, RenderFn, Scene, View

TARGETS = (20, 22, 24, 26, 28, 30)
"""dB of PSNR on held-out photos; the time to each of them is noted."""
Step = Callable[[View, int], None]


def our_loop(scene: Scene, first: Gaussians, folder: Path) -> tuple[Trainer, Step, RenderFn]:
    """A training whose densification rests, without what far-off views need; its step, and its render."""
    config = TrainConfig(fixer="none", output_dir=folder / "run", max_steps=30_000, sh_every=1, dropout=0)
    init = replace(config.init, dense=0, backdrop=0)
    config = replace(config, densify=replace(config.densify, kind="none"), init=init)
    run = Trainer(config, scene)
    run.model.splats = SplatOptimizer(first, config.optim, extent=scene.extent, batch_size=1, max_steps=30_000)
    return run, lambda view, step: (run.model.step([view], step), None)[1], run.model.render


def gsplat_loop(scene: Scene, first: Gaussians) -> tuple[Step, RenderFn]:
    """gsplat's ``rasterization``, the loss of 3DGS in plain torch, and one Adam of torch for each parameter."""
    from gsplat import rasterization

    config = OptimConfig()
    rates = {name: getattr(config, name) for name in first.as_dict()}
    rates["means"] *= scene.extent
    params = {name: value.clone().requires_grad_() for name, value in first.as_dict().items()}
    optimizers = [torch.optim.Adam([params[name]], lr=rate, eps=1e-15) for name, rate in rates.items()]

    def step(view: View, number: int) -> None:
        camera = view.camera
        width, height = camera.size
        image, _, _ = rasterization(
            means=params["means"],
            quats=params["quats"],
            scales=params["scales"].exp(),
            opacities=params["opacities"].sigmoid(),
            colors=torch.cat([params["sh0"], params["shN"]], 1),
            viewmats=camera.w2c,
            Ks=camera.K,
            width=width,
            height=height,
            sh_degree=min(number, 3),
            packed=False,
        )
        photo = view.image[None]
        loss = 0.8 * F.l1_loss(image, photo) + 0.2 * (1 - ssim_twin(image, photo).mean())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step, lambda camera: rasterize(Gaussians(**params), camera, depth=False)


def stream(run: Trainer, scene: Scene) -> Iterator[View]:
    """The training photos, endlessly."""
    return run.views.stream(chain.from_iterable(batches(scene, 1, 0, 0)))


@torch.no_grad()
def held_out_psnr(render: RenderFn, views: list[View]) -> float:
    """Mean over views, of renders that are not rounded, on the device."""
    errors = [(render(view.camera).rgb[0].clamp(0, 1) - view.image).square().mean() for view in views]
    return float(-10 * torch.stack(errors).log10().mean())


def learn(
    step: Step, render: RenderFn, photos: Iterator[View], tests: list[View], *, seconds: float, steps: int
) -> dict[str, Any]:
    """Trains for so many seconds, measured without the looks at the held-out photos, or at most so many steps.

    Returns:
        Steps a second in chunks (the first, in which kernels are chosen, left out), the peak of memory, and the
        seconds after which each of :data:`TARGETS` was reached.
    """
    synchronize, chunk = torch.cuda.synchronize, max(2, min(100, steps // 8))
    torch.cuda.reset_peak_memory_stats()
    reached: dict[str, float] = {}
    rates: list[float] = []
    spent, done, score = 0.0, 0, 0.0
    while spent < seconds and done < steps:
        synchronize()
        start = time.perf_counter()
        for number in range(done, done + chunk):
            step(next(photos), number)
        synchronize()
        elapsed = time.perf_counter() - start
        rates.append(chunk / elapsed)
        spent, done = spent + elapsed, done + chunk
        score = held_out_psnr(render, tests)
        for target in TARGETS:
            if score >= target:
                reached.setdefault(str(target), round(spent, 2))
    rates = rates[1:] or rates
    return {
        "steps": done,
        "steps_per_second": {"median": float(torch.tensor(rates).median()), "least": min(rates), "most": max(rates)},
        "gigabytes": torch.cuda.max_memory_allocated() / 1e9,
        "psnr": score,
        "seconds_to_psnr": reached,
    }


def both(scene: Scene, first: Gaussians, folder: Path, seconds: float, steps: int) -> dict[str, Any]:
    """:func:`learn` for our step and for gsplat's loop, one after the other."""
    run, ours, our_render = our_loop(scene, first, folder)
    tests = [run.views[index] for index in scene.test.tolist()]
    rows: dict[str, Any] = {"gaussians": len(first)}
    rows["ours"] = learn(ours, our_render, stream(run, scene), tests, seconds=seconds, steps=steps)
    run.model.splats.params.clear()
    torch.cuda.empty_cache()
    step, render = gsplat_loop(scene, first)
    rows["gsplat"] = learn(step, render, stream(run, scene), tests, seconds=seconds, steps=steps)
    medians = [rows[name]["steps_per_second"]["median"] for name in ("ours", "gsplat")]
    return rows | {"time_of_a_step_beside_gsplat": medians[1] / medians[0]}
