"""The ways to bad models: each yields them, for the photos that they are to be compared with.

Four are the paper's (Difix3D+, section 4.1 and the supplement). ``perturb`` needs no further training; ``apart`` leaves
whole sides of a scene unseen, as captures do whose far views are to be repaired.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from difix3d.curation.perturb import damage, neighbours
from difix3d.curation.workshop import Model, Workshop
from difix3d.geometry.poses import pose_distance
from difix3d.images import write_image
from difix3d.types import Cameras, Photo, Scene

Strategy = Callable[[Workshop, np.random.Generator], Iterator[Model]]

FEWEST = 3
"""Photos that a model is trained on, at the least."""


class NotForThisScene(Exception):
    """A scene has not what a strategy needs, and why."""


def underfit(shop: Workshop, rng: np.random.Generator) -> Iterator[Model]:
    """Trains on all photos and stops early; renders the same cameras."""
    course, shares = shop.course(shop.photos), sorted(shop.recipe.underfit)
    for share in shares:
        step = max(1, round(share * shop.steps))
        show = shop.some(shop.photos, rng, len(shares))
        render = course.render(course.at(step))
        yield Model(render, course.cameras, shop.photos, show, step, f"{share:.0%} of the schedule")


def cycle(shop: Workshop, rng: np.random.Generator) -> Iterator[Model]:
    """Trains on all photos, then again on renders of the trajectory moved sideways; renders the original cameras."""
    good = shop.course(shop.photos)
    offset = shop.recipe.shift * float(rng.choice([-1, 1]))
    cameras = sideways(shop.scene.cameras, offset)
    render = good.render(good.at(shop.steps))
    photos = list(shop.scene.photos)
    for index in shop.photos:
        path = shop.work / "shifted" / f"{index:05d}.png"
        write_image(path, render(cameras[index]).rgb[0].clamp(0, 1))
        photos[index] = Photo(photos[index].name, path)
    moved = replace(shop.scene, cameras=cameras, photos=tuple(photos), test=np.zeros(0, np.int64))
    again = shop.begin(moved)
    detail = f"trained on renders {abs(offset):g} to the {'right' if offset > 0 else 'left'}"
    model = again.render(again.at(shop.steps))
    yield Model(model, again.cameras, shop.photos, shop.some(shop.photos, rng), shop.steps, detail)


def perturb(shop: Workshop, rng: np.random.Generator) -> Iterator[Model]:
    """Trains on all photos, and damages copies of the model."""
    course, count = shop.course(shop.photos), shop.recipe.perturbations
    good = course.at(shop.steps)
    for _ in range(count):
        gaussians, kept, detail = damage(good, course.cameras, course.near, rng)
        trained = course.cameras[kept]
        away = pose_distance(course.cameras.c2w[:, None], trained.c2w).min(1).values
        near = [shop.photos[i] for i in away.argsort()[: 2 * len(kept)].tolist()]  # further off nothing is left to see
        captured, show = [shop.photos[i] for i in kept], shop.some(sorted(near), rng, count)
        yield Model(course.render(gaussians), trained, captured, show, shop.steps, detail)


def sparse(shop: Workshop, rng: np.random.Generator) -> Iterator[Model]:
    """Trains on every n-th photo; renders the others."""
    every = shop.recipe.every
    kept = shop.photos[int(rng.integers(every)) :: every]
    if len(kept) < FEWEST:
        raise NotForThisScene(f"every {every}th of {len(shop.photos)} photos are {len(kept)}, and {FEWEST} are needed")
    course = shop.course(kept)
    show = shop.some(sorted(set(shop.photos) - set(kept)), rng)
    render = course.render(course.at(shop.steps))
    yield Model(render, course.cameras, kept, show, shop.steps, f"{len(kept)} photos")


def apart(shop: Workshop, rng: np.random.Generator) -> Iterator[Model]:
    """Trains on neighbouring photos, one in ``every``; renders the others, far and near."""
    count = max(FEWEST, len(shop.photos) // shop.recipe.every)
    if count >= len(shop.photos):
        raise NotForThisScene(f"{count} photos are needed to train on, and others to render, of {len(shop.photos)}")
    near = neighbours(shop.scene.cameras[shop.photos], int(rng.integers(len(shop.photos))), count)
    kept = [shop.photos[i] for i in near]
    course = shop.course(kept)
    show = shop.some(sorted(set(shop.photos) - set(kept)), rng)
    render = course.render(course.at(shop.steps))
    yield Model(render, course.cameras, kept, show, shop.steps, f"{count} neighbours")


def cross(shop: Workshop, rng: np.random.Generator) -> Iterator[Model]:
    """Trains on one camera of a rig; renders the others."""
    cameras = rig(shop.scene)
    able = [name for name in sorted(cameras) if len(cameras[name]) >= FEWEST]
    if len(cameras) < 2 or not able:
        raise NotForThisScene(
            f"no rig: its cameras would differ by sub-folder or intrinsics, and one have {FEWEST} photos or more"
        )
    chosen = able[int(rng.integers(len(able)))]
    course = shop.course(cameras[chosen])
    show = shop.some(sorted(set(shop.photos) - set(cameras[chosen])), rng)
    render = course.render(course.at(shop.steps))
    yield Model(render, course.cameras, cameras[chosen], show, shop.steps, f"camera {chosen}")


STRATEGIES: dict[str, Strategy] = {
    "underfit": underfit,
    "cycle": cycle,
    "perturb": perturb,
    "sparse": sparse,
    "apart": apart,
    "cross": cross,
}
"""In the order in which they are done: the first three go on with one training."""


def sideways(cameras: Cameras, offset: float) -> Cameras:
    """The cameras moved along their own x axes, by scene units."""
    c2w = cameras.c2w.clone()
    c2w[:, :3, 3] += offset * c2w[:, :3, 0]
    return replace(cameras, c2w=c2w)


def rig(scene: Scene) -> dict[str, list[int]]:
    """The training photos of each camera: by sub-folder if there are several, else by intrinsics.

    Photos whose intrinsics are all their own were not taken by a rig.
    """
    photos = scene.train.tolist()
    folders = {i: PurePosixPath(scene.photos[i].name).parent.as_posix() for i in photos}
    names = folders
    if len(set(folders.values())) < 2:
        rows = {i: _intrinsics(scene.cameras[i]) for i in photos}
        names = {i: f"#{sorted(set(rows.values())).index(row)}" for i, row in rows.items()}
    groups: dict[str, list[int]] = {}
    for index, name in names.items():
        groups.setdefault(name, []).append(index)
    return groups


def _intrinsics(camera: Cameras) -> tuple[float, ...]:
    """Rounded, as files are."""
    return (*(round(float(x), 2) for x in camera.K.flatten()), *map(float, camera.size))
