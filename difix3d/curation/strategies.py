"""The ways to bad models: each yields them, for the photos that they are to be compared with.

Four are the paper's (Difix3D+, section 4.1 and the supplement). ``perturb`` needs no further training; ``cluster``
leaves whole sides of a scene unseen, as captures do whose far views are to be repaired.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import UInt8

from difix3d.background import recolored
from difix3d.curation.collect import FORMERLY
from difix3d.curation.perturb import damage, neighbours
from difix3d.curation.trainings import Model, SceneTrainings
from difix3d.geometry.poses import pose_distance
from difix3d.images import straight, to_uint8, write_image
from difix3d.scene.panorama import is_panorama
from difix3d.types import Cameras, Photo, Render, Scene

Strategy = Callable[[SceneTrainings, np.random.Generator], Iterator[Model]]

FEWEST = 3
"""Photos that a model is trained on, at the least."""


class NotForThisScene(Exception):
    """A scene has not what a strategy needs, and why."""


def underfit(trainings: SceneTrainings, rng: np.random.Generator) -> Iterator[Model]:
    """Trains on all photos and stops early; renders the same cameras."""
    training, shares = trainings.training_on(trainings.photos), sorted(trainings.recipe.underfit)
    for share in shares:
        step = max(1, round(share * trainings.steps))
        render_views = trainings.sample(trainings.photos, rng, len(shares))
        render = training.render(training.advance_to(step))
        yield Model(render, training.cameras, trainings.photos, render_views, step, f"{share:.0%} of the schedule")


def cycle(trainings: SceneTrainings, rng: np.random.Generator) -> Iterator[Model]:
    """Trains on all photos, then again on renders of the trajectory moved sideways; renders the original cameras."""
    good = trainings.training_on(trainings.photos)
    offset = trainings.recipe.shift * float(rng.choice([-1, 1]))
    cameras = sideways(trainings.scene.cameras, offset)
    render = good.render(good.advance_to(trainings.steps))
    photos = list(trainings.scene.photos)
    for index in trainings.photos:
        path = trainings.work / "shifted" / f"{index:05d}.png"
        write_image(path, _photo(render(cameras[index]), trainings.scene.alpha))
        photos[index] = Photo(photos[index].name, path)
    moved = replace(trainings.scene, cameras=cameras, photos=tuple(photos), test=np.zeros(0, np.int64))
    again = trainings.begin(moved)
    detail = f"trained on renders {abs(offset):g} to the {'right' if offset > 0 else 'left'}"
    model = again.render(again.advance_to(trainings.steps))
    render_views = trainings.sample(trainings.photos, rng)
    yield Model(model, again.cameras, trainings.photos, render_views, trainings.steps, detail)


def perturb(trainings: SceneTrainings, rng: np.random.Generator) -> Iterator[Model]:
    """Trains on all photos, and damages copies of the model."""
    training, count = trainings.training_on(trainings.photos), trainings.recipe.perturbations
    good = training.advance_to(trainings.steps)
    for _ in range(count):
        gaussians, kept, detail = damage(good, training.cameras, training.near, rng)
        trained = training.cameras[kept]
        away = pose_distance(training.cameras.c2w[:, None], trained.c2w).min(1).values
        # further off nothing is left to see
        near = [trainings.photos[i] for i in away.argsort()[: 2 * len(kept)].tolist()]
        captured, render_views = [trainings.photos[i] for i in kept], trainings.sample(sorted(near), rng, count)
        yield Model(training.render(gaussians), trained, captured, render_views, trainings.steps, detail)


def sparse(trainings: SceneTrainings, rng: np.random.Generator) -> Iterator[Model]:
    """Trains on every n-th photo; renders the others."""
    every = trainings.recipe.every
    kept = trainings.photos[int(rng.integers(every)) :: every]
    if len(kept) < FEWEST:
        raise NotForThisScene(
            f"every {every}th of {len(trainings.photos)} photos are {len(kept)}, and {FEWEST} are needed"
        )
    training = trainings.training_on(kept)
    render_views = trainings.sample(sorted(set(trainings.photos) - set(kept)), rng)
    render = training.render(training.advance_to(trainings.steps))
    yield Model(render, training.cameras, kept, render_views, trainings.steps, f"{len(kept)} photos")


def cluster(trainings: SceneTrainings, rng: np.random.Generator) -> Iterator[Model]:
    """Trains on neighbouring photos, one in ``every``; renders the others, far and near."""
    count = max(FEWEST, len(trainings.photos) // trainings.recipe.every)
    if count >= len(trainings.photos):
        raise NotForThisScene(
            f"{count} photos are needed to train on, and others to render, of {len(trainings.photos)}"
        )
    near = neighbours(trainings.scene.cameras[trainings.photos], int(rng.integers(len(trainings.photos))), count)
    kept = [trainings.photos[i] for i in near]
    training = trainings.training_on(kept)
    render_views = trainings.sample(sorted(set(trainings.photos) - set(kept)), rng)
    render = training.render(training.advance_to(trainings.steps))
    yield Model(render, training.cameras, kept, render_views, trainings.steps, f"{count} neighbours")


def cross(trainings: SceneTrainings, rng: np.random.Generator) -> Iterator[Model]:
    """Trains on one camera of a rig; renders the others."""
    cameras = rig(trainings.scene)
    able = [name for name in sorted(cameras) if len(cameras[name]) >= FEWEST]
    if len(cameras) < 2 or not able:
        raise NotForThisScene(
            f"no rig: its cameras would differ by sub-folder or intrinsics, and one have {FEWEST} photos or more"
        )
    chosen = able[int(rng.integers(len(able)))]
    training = trainings.training_on(cameras[chosen])
    render_views = trainings.sample(sorted(set(trainings.photos) - set(cameras[chosen])), rng)
    render = training.render(training.advance_to(trainings.steps))
    yield Model(render, training.cameras, cameras[chosen], render_views, trainings.steps, f"camera {chosen}")


STRATEGIES: dict[str, Strategy] = {
    "underfit": underfit,
    "cycle": cycle,
    "perturb": perturb,
    "sparse": sparse,
    "cluster": cluster,
    "cross": cross,
}
"""In the order in which they are done: the first three go on with one training."""


def chosen_strategies(asked: Sequence[str]) -> list[str]:
    """Those that are asked for, by their names of today or by those they had, in the order of :data:`STRATEGIES`."""
    return [name for name in STRATEGIES if name in asked or FORMERLY.get(name) in asked]


def sideways(cameras: Cameras, offset: float) -> Cameras:
    """The cameras moved along their own x axes, by scene units."""
    c2w = cameras.c2w.clone()
    c2w[:, :3, 3] += offset * c2w[:, :3, 0]
    return replace(cameras, c2w=c2w)


def rig(scene: Scene) -> dict[str, list[int]]:
    """The training photos of each camera: by sub-folder if there are several, else by intrinsics.

    Photos whose intrinsics are all their own were not taken by a rig. The faces of a 360 photo are in its folder.
    """
    photos = scene.train.tolist()
    folders = {i: _folder(scene.photos[i]) for i in photos}
    names = folders
    if len(set(folders.values())) < 2:
        rows = {i: _intrinsics(scene.cameras[i]) for i in photos}
        names = {i: f"#{sorted(set(rows.values())).index(row)}" for i, row in rows.items()}
    groups: dict[str, list[int]] = {}
    for index, name in names.items():
        groups.setdefault(name, []).append(index)
    return groups


def _folder(photo: Photo) -> str:
    parents = PurePosixPath(photo.name).parents
    return parents[1 if is_panorama(photo.lens) else 0].as_posix()


def _photo(render: Render, alpha: bool) -> UInt8[np.ndarray, "H W C"]:
    """A render as a photo: with alpha, if photos have it."""
    if not alpha:
        return to_uint8(render.rgb[0])
    return straight(to_uint8(recolored(render, None).rgb[0]), to_uint8(render.alpha[0, ..., 0]))


def _intrinsics(camera: Cameras) -> tuple[float, ...]:
    """Rounded, as files are."""
    return (*(round(float(x), 2) for x in camera.K.flatten()), *map(float, camera.size))
