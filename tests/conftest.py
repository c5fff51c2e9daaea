"""Fixtures shared by all tests.

The package is imported inside of the fixtures: jaxtyping checks only what is imported after the tests are configured.
"""

import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from shared_data import SHARED, require

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]

if os.environ.get("DIFIX3D_PRETEND_CUDA"):  # tests marked gpu then run without one, in each process of the tests
    sys.path.append(str(SHARED / "pretend_cuda"))
    import_module("pretend_cuda").install()

if find_spec("torchvision"):  # nerfstudio brings it; diffusers and transformers import it where it is installed
    import_module("difix3d.difix.operators").define_missing()

if not (torch.cuda.is_available() and torch.backends.cuda.is_built()):
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported: its kernels then run without a GPU

torch.set_num_threads(1)  # the tests run in parallel processes; more threads each would only fight over the cores


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared test data (real scenes, recorded outputs)."""
    return require(SHARED)


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal() -> Iterator[None]:
    """Under nohup, or in the background of a script, some are ignored, and trainings leave these so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for number in SIGNALS
        if signal.getsignal(number) == signal.SIG_IGN
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):  # not the keywords, of which a folder above may be one
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def look_at_origin(position: np.ndarray) -> np.ndarray:
    forward = -position / np.linalg.norm(position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3, :4] = np.stack([right, np.cross(forward, right), forward, position], axis=1)
    return c2w


@pytest.fixture(scope="session")
def toy_scene(tmp_path_factory):
    """Photos of 300 random Gaussians, so that a perfect model exists and trains in seconds.

    Twelve cameras of 48 x 40 pixels on an arc; every fourth is a test camera.
    """
    from difix3d.gaussians import from_points
    from difix3d.images import write_image
    from difix3d.render import rasterize
    from difix3d.types import Cameras, Photo, Scene

    folder = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(0)
    angles = np.linspace(-1, 1, 12)
    positions = np.stack([3 * np.sin(angles), -3 * np.cos(angles), np.full(12, 0.7)], axis=1)
    c2w = torch.from_numpy(np.stack([look_at_origin(position) for position in positions])).float()
    focal = 24 / math.tan(0.4)
    K = torch.tensor([[focal, 0, 24], [0, focal, 20], [0, 0, 1]]).repeat(12, 1, 1)
    cameras = Cameras(c2w, K, torch.full((12,), 48), torch.full((12,), 40))

    points = rng.uniform(-1, 1, (300, 3)).astype(np.float32)
    colors = rng.integers(0, 256, (300, 3), dtype=np.uint8)
    truth = from_points(points, colors, opacity=0.9)
    photos = []
    for index in range(12):
        path = folder / f"{index:02d}.png"
        write_image(path, rasterize(truth, cameras[index]).rgb[0])
        photos.append(Photo(path.name, path))
    return Scene(
        name="toy",
        cameras=cameras,
        photos=tuple(photos),
        points=points,
        colors=colors,
        observations=np.stack(np.meshgrid(np.arange(300), np.arange(12)), -1).reshape(-1, 2),
        train=np.array([i for i in range(12) if i % 4 != 2]),
        test=np.array([2, 6, 10]),
        from_input=np.eye(4),
        extent=1.5,
    )


@pytest.fixture(scope="session")
def truth(toy_scene):
    """The toy scene, rendered without an error."""
    from functools import partial

    from difix3d.gaussians import from_points
    from difix3d.render import rasterize

    return partial(rasterize, from_points(toy_scene.points, toy_scene.colors, opacity=0.9))


@pytest.fixture
def oracle(truth):
    """Answers with the exact image of any camera."""

    def fixer(degraded):
        for item in degraded:
            yield truth(item.camera).rgb[0].clamp(0, 1)

    return fixer


@pytest.fixture(scope="session")
def middle(toy_scene):
    """The Gaussians in the middle of the toy scene: an object with much empty space around it."""
    from difix3d.gaussians import from_points

    inside = (abs(toy_scene.points) < 0.5).all(1)
    model = from_points(toy_scene.points[inside], toy_scene.colors[inside], opacity=0.9)
    return replace(model, scales=model.scales - 1)


@pytest.fixture(scope="session")
def cutout(toy_scene, middle, tmp_path_factory):
    """The toy scene with transparent photos that show its middle alone; its points are those of the whole."""
    from difix3d.images import straight, to_uint8, write_image
    from difix3d.render import rasterize

    folder, photos = tmp_path_factory.mktemp("cutout"), []
    for index, photo in enumerate(toy_scene.photos):
        out = rasterize(middle, toy_scene.cameras[index])
        write_image(folder / photo.name, straight(to_uint8(out.rgb[0]), to_uint8(out.alpha[0, ..., 0])))
        photos.append(replace(photo, path=folder / photo.name))
    return replace(toy_scene, photos=tuple(photos), alpha=True)


@pytest.fixture
def config(tmp_path):
    """Thirty steps with two densifications and a reset of the opacities, into a fresh folder."""
    from difix3d.training import TrainConfig

    base = TrainConfig(
        fixer="none", output_dir=tmp_path / "run", max_steps=30, eval_steps=(), save_steps=(), device="cpu"
    )
    init, densify = replace(base.init, dense=0), replace(base.densify, start=2, every=5, reset_every=7)
    return replace(base, init=init, densify=densify)
