"""From a bad model to pairs on disk: render, photo, references, and what is known about them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from difix3d.background import recolored
from difix3d.curation.trainings import Model, SceneTrainings
from difix3d.distill.references import References
from difix3d.geometry.poses import pose_distance
from difix3d.geometry.warp import warped_references
from difix3d.images import to_uint8, write_image
from difix3d.metrics import LPIPS, psnr
from difix3d.types import View


@dataclass(frozen=True)
class Pair:
    """A line of the data card.

    Attributes:
        photo: name of the true photo in its scene.
        step: of the training that the render is from.
        detail: what made the model bad.
        psnr: of the render, in dB, on the pixels that count.
        distance: to the nearest camera that the model was trained on: scene units plus radians.
        image, target_image, ref_image: files, relative to the scene's folder.
        alpha_image, warp_image: the guide: coverage of the render, and layers of references carried into it, likewise;
            perhaps none.
        lpips: VGG; ``None`` if it was not asked for.
    """

    photo: str
    step: int
    detail: str
    psnr: float
    distance: float
    image: str
    target_image: str
    ref_image: tuple[str, ...]
    alpha_image: str = ""
    warp_image: tuple[str, ...] = ()
    lpips: float | None = None

    def to_dict(self) -> dict:
        return asdict(self)


def make_pairs(
    trainings: SceneTrainings,
    models: Iterator[Model],
    scene_folder: Path,
    renders: Path,
    name: str,
    filtered: Counter[str],
) -> Iterator[Pair]:
    """Renders what of the models is to be rendered, and writes what is worth it.

    Args:
        trainings: of the scene.
        models: bad ones.
        scene_folder: gets ``photos/``.
        renders: folder that gets the renders; it is to be called ``name``, beside ``photos``, in the end.
        name: of the strategy.
        filtered: counts the ``too_bad`` and ``too_good`` renders, which are left out.
    """
    recipe, number = trainings.recipe, 0
    lpips = LPIPS("vgg").to(trainings.views.device).score if recipe.lpips else None
    for model in models:
        references = References(trainings.scene.cameras.to(trainings.views.device), model.captured, model.render)
        for done, view in enumerate(trainings.views.stream(model.render_views), 1):
            out = model.render(view.camera)
            out = recolored(out, None) if trainings.scene.alpha else out  # as photos with alpha are
            render, photo = _bytes(out.rgb[0]), _bytes(view.image)
            if view.mask is not None:  # what does not count is right already
                mask = view.mask.cpu()
                render = torch.where(mask[..., None], render, photo)
            quality = psnr(render, photo, None if view.mask is None else mask)
            trainings.on_progress("rendering", done, len(model.render_views))
            if not recipe.psnr_min <= quality <= recipe.psnr_max:
                filtered["too_good" if quality > recipe.psnr_max else "too_bad"] += 1
                continue
            degraded = references.degraded(view.camera, out, trainings.views.__getitem__, own=view.index)
            write_image(renders / f"{number:05d}.png", render.numpy())
            alpha, warps = "", [f"{name}/{number:05d}_{layer}.png" for layer in range(recipe.warps)]
            if recipe.warps:
                for path, layer in zip(warps, warped_references(degraded, recipe.warps), strict=True):
                    write_image(renders.parent / path, layer)
                alpha = f"{name}/{number:05d}_a.png"
                write_image(renders.parent / alpha, degraded.coverage[..., None])
            yield Pair(
                photo=view.name,
                step=model.step,
                detail=model.detail,
                psnr=round(quality, 3),
                distance=round(
                    float(pose_distance(view.camera.c2w, model.cameras.to(view.camera.c2w.device).c2w).min()), 4
                ),
                image=f"{name}/{number:05d}.png",
                target_image=save_photo(view, scene_folder),
                ref_image=tuple(save_photo(photo, scene_folder) for photo in degraded.references[: recipe.references]),
                alpha_image=alpha,
                warp_image=tuple(warps),
                lpips=None if lpips is None else round(lpips(render, photo), 4),
            )
            number += 1


def save_photo(view: View, folder: Path) -> str:
    """The photo as the camera sees it (undistorted, reduced), written once; its path in the scene's folder."""
    path = Path("photos") / f"{view.index:05d}.png"
    if not (folder / path).exists():
        write_image(folder / path, view.image)
    return path.as_posix()


def _bytes(image: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(to_uint8(image))
