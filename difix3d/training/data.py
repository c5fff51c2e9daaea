"""What a training begins with: its scene, and the first Gaussians, from a splat file or from what the scene has."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from difix3d.errors import UserError
from difix3d.evaluate.pictures import target
from difix3d.gaussians import from_points, random_points, read_splats, transform
from difix3d.images import to_uint8
from difix3d.metrics import psnr
from difix3d.scene import dropped_points, load_scene, near_depth, visible_points
from difix3d.scene.hull import hull_points
from difix3d.stereo import dense_points
from difix3d.training.backdrop import backdrop_of
from difix3d.training.config import TrainConfig
from difix3d.types import Gaussians, RenderFn, Scene, View

log = logging.getLogger(__name__)

OTHERS_NEAR = 0.01
"""Near plane of other trainers and viewers, in units of the user's world; gsplat's default."""
LOOKED_AT = 8
"""Photos, at most, that tell whether a splat file is of their world."""
COVERED = 1e-3
"""Mean coverage of their renders below which it is not."""
ENOUGH = 1000
"""Dense points that need no random ones beside them, where there are no sparse ones."""

Points = tuple[Float[np.ndarray, "_ 3"], UInt8[np.ndarray, "_ 3"]]
"""Where they are, and their colours."""


def scene_of(config: TrainConfig) -> Scene:
    """The scene that a configuration names; see :func:`difix3d.scene.load_scene`."""
    return load_scene(
        config.scene,
        data_dir=config.data_dir,
        split=config.split,
        resolution=config.resolution,
        seed=config.seed,
        model=config.model,
    )


def initial_gaussians(scene: Scene, config: TrainConfig, device: torch.device | str = "cpu") -> Gaussians:
    """The first Gaussians of a training, in the scene's world: those of ``config.init.ply``; without it they lie on the
    sparse points that training photos see, and on dense ones between them. Where there are no sparse ones, and of an
    object or with few dense ones, random points are added. Behind all is the backdrop, if there is one.

    Args:
        scene, config: of the training.
        device: where photos are compared.

    Raises:
        UserError: the file cannot be read.
    """
    if config.init.ply is not None:
        return of_file(config.init.ply, scene, config.sh_degree)
    seen = visible_points(scene, at_least=config.init.seen_by)
    points, colors = scene.points[seen], scene.colors[seen]
    most = config.densify.cap_max
    dense = min(config.init.dense, most // 2, most - len(points)) if len(points) < config.init.dense else 0
    if dense > 0:  # with room to grow
        points, colors = _joined((points, colors), dense_points(scene, dense, config.seed, torch.device(device)))
    if not seen.any() and (scene.alpha or len(points) < ENOUGH):
        points, colors = _joined((points, colors), _anywhere(scene, config))
    first = from_points(
        points.astype(np.float32),
        colors,
        sh_degree=config.sh_degree,
        opacity=config.init.opacity,
        scale=config.init.scale,
    )
    backdrop = backdrop_of(scene, config.init)
    if backdrop is None:
        return first
    return Gaussians.cat([first, backdrop.gaussians(scene, config.sh_degree)])


def _anywhere(scene: Scene, config: TrainConfig) -> Points:
    """Random points of the visual hull, if photos have alpha; else of a cube around the cameras, which would hold
    hardly a point of an object, and much to be taken away."""
    points, colors = random_points(config.init.points, 3 * scene.extent, config.seed)
    hull = hull_points(scene, len(points), 3 * scene.extent, config.seed) if scene.alpha else points[:0]
    return (hull, colors[: len(hull)]) if len(hull) else (points, colors)


def _joined(some: Points, others: Points) -> Points:
    points, colors = (np.concatenate(both) for both in zip(some, others, strict=True))
    return points, colors


def remark(scene: Scene, config: TrainConfig, count: int, chosen: str) -> str:
    """What to tell people about a training that begins with ``count`` Gaussians: what was ``chosen`` for it, points
    that are left out, or a file so large that nothing can be added to it. A line for each; may be empty."""
    if config.init.ply is None:
        about = dropped_points(scene, config.init.seen_by)
    elif config.densify.kind == "none" or config.max_steps == 0 or count < config.densify.cap_max:
        about = ""
    else:
        about = f"{config.init.ply.name} is large: none are added, as --densify.cap-max is {config.densify.cap_max:,}"
    return "\n".join(filter(None, (chosen, about)))


def of_file(path: Path, scene: Scene, sh_degree: int) -> Gaussians:
    """The model in a splat file, taken into the scene's world, with coefficients of just this degree: higher ones of
    the file are dropped with a word, missing ones are 0.

    Raises:
        UserError: the file cannot be read.
    """
    model = transform(read_splats(path), scene.from_input)
    count, wanted = model.shN.shape[1], (sh_degree + 1) ** 2 - 1
    if wanted < count:
        log.warning("%s has colours of degree %d: cut to --sh-degree %d", path, model.sh_degree, sh_degree)
    missing = model.shN.new_zeros(len(model), max(0, wanted - count), 3)
    return replace(model, shN=torch.cat([model.shN[:, :wanted], missing], 1))


def near_plane(scene: Scene, config: TrainConfig) -> float:
    """Depth in scene units nearer than which a training draws nothing: ``config.near``, or what suits the scene. Splat
    files are made, and shown by others, with a nearer plane: they are scored, and go on, with that."""
    if config.near is not None:
        return config.near
    return near_depth(scene) if config.init.ply is None else others_near(scene)


def others_near(scene: Scene) -> float:
    """Near plane of other programs, in scene units; nearer than our own in any case."""
    return min(OTHERS_NEAR * float(np.cbrt(np.linalg.det(scene.from_input[:3, :3]))), near_depth(scene))


def check_world(path: Path, scene: Scene, render: RenderFn, photo: Callable[[int], View]) -> None:
    """Looks at some training photos whether a splat file shows them; says so if it hardly does.

    Args:
        path: of the file.
        scene: its cameras.
        render: the model.
        photo: gives a captured view by its index.

    Raises:
        UserError: the cameras see nothing of it.
    """
    covered = []
    scores, plain = [], []
    for index in scene.some_train(LOOKED_AT):
        view = photo(index)
        image, mask = target(view, "cpu")
        with torch.no_grad():
            out = render(view.camera)
        covered.append(float(out.alpha.mean()))
        scores.append(psnr(torch.from_numpy(to_uint8(out.rgb[0])), image, mask))
        color = (image if mask is None else image[mask]).float().reshape(-1, 3).mean(0)
        plain.append(psnr(color.round().to(torch.uint8).expand_as(image), image, mask))
    limit = (
        "The file and the cameras are not of one world: another place, or moved, turned or scaled against each other"
    )
    cure = "Give the photos and cameras that it was trained with as --scene, and export it in their world"
    if np.mean(covered) < COVERED:
        raise UserError(f"The cameras of {scene.name} see nothing of {path}", limit, cure)
    if np.nanmean(scores) < np.nanmean(plain):
        scored = f"PSNR {np.nanmean(scores):.1f} dB, where their mean colour alone has {np.nanmean(plain):.1f}"
        log.warning("%s does not look like the photos: %s. %s. %s.", path, scored, limit, cure)
