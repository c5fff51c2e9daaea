"""What people pass as images (PIL, numpy, torch, lists of them) as tensors, and back; and what cannot be fixed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from difix3d.difix.sizes import CELL, OVERLAP
from difix3d.difix.step import TIMESTEP
from difix3d.difix.vae import DifixVAE
from difix3d.errors import UserError
from difix3d.images import to_uint8


def to_tensors(image: Any, shrink: bool = False) -> list[Float[Tensor, "3 _ _"]]:
    """Images in 0..1, one tensor each.

    Args:
        image: PIL images; numpy arrays ``[H,W,3]`` or ``[B,H,W,3]``; tensors ``[3,H,W]`` or ``[B,3,H,W]``; or a list of
            any. Floats are in 0..1, bytes in 0..255.
        shrink: to the next multiple of 8 below, as the published pipeline does: PIL by Lanczos, tensors by nearest.
    """
    if isinstance(image, Sequence) and not isinstance(image, str):
        return [tensor for item in image for tensor in to_tensors(item, shrink)]
    if isinstance(image, Image.Image):
        size = (image.width // CELL * CELL, image.height // CELL * CELL)
        if shrink and size != image.size:
            image = image.resize(size, Image.Resampling.LANCZOS)
        image = np.asarray(image.convert("RGB"))
    if isinstance(image, np.ndarray) and image.ndim > 2:
        image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, -3)))
    if not isinstance(image, Tensor) or image.ndim not in (3, 4) or image.shape[-3] != 3:
        found = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise UserError(
            f"{found} is no image", "Images are PIL, numpy [H,W,3] or torch [3,H,W], or batches or lists of them"
        )
    image = image / 255 if image.dtype == torch.uint8 else image.float()
    if image.min() < -1e-3 or image.max() > 1 + 1e-3:
        raise UserError(
            f"The image's values reach from {image.min():.3g} to {image.max():.3g}",
            "Floats are in 0..1, bytes in 0..255",
        )
    if shrink:
        image = F.interpolate(image.reshape(-1, *image.shape[-3:]), [s // CELL * CELL for s in image.shape[-2:]])
    return list(image.reshape(-1, *image.shape[-3:]))


def to_references(references: Any, count: int, shrink: bool = False) -> list[list[Float[Tensor, "3 _ _"]]]:
    """For each of ``count`` images its references.

    Args:
        references: ``None``; one image; or a list (or batch) with, for each image, one reference, a list of them, or
            ``None``. For a single image a plain list holds the references of that image.
    """
    if references is None:
        return [[]] * count
    batched = isinstance(references, Sequence) or getattr(references, "ndim", 0) > 3
    items = list(references) if batched else [references]
    if count == 1 and not (len(items) == 1 and isinstance(items[0], Sequence)):
        items = [[item for item in items if item is not None]]
    if len(items) != count:
        raise UserError(
            f"There are {count} images and {len(items)} references",
            "Each image has its own reference, or list of references, at the same place of the list",
        )
    return [[] if item is None else to_tensors(item, shrink) for item in items]


def from_tensors(images: list[Float[Tensor, "3 _ _"]], output_type: str) -> Any:
    """Images in 0..1 as ``"pil"``, ``"np"`` (BHWC in 0..1) or ``"pt"`` (BCHW); a list where the sizes differ."""
    if output_type == "pil":
        return [Image.fromarray(to_uint8(image.permute(1, 2, 0))) for image in images]
    if output_type not in ("np", "pt"):
        raise UserError(f"output_type is {output_type!r}", "It is 'pil', 'np' or 'pt'")
    same = len({image.shape for image in images}) == 1
    if output_type == "pt":
        return torch.stack(images) if same else images
    arrays = [image.permute(1, 2, 0).float().cpu().numpy() for image in images]
    return np.stack(arrays) if same else arrays


def one_each(value: Any, count: int, name: str) -> list[Any]:
    """The values of a list, one for each image, or the same for all."""
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * count
    if len(values) != count:
        raise UserError(f"There are {count} images and {len(values)} {name}", "Pass one for all, or one for each")
    return values


def alike(images: list[Tensor], references: list[list[Tensor]], apart: bool) -> list[list[int]]:
    """The images (their numbers) that one batch can hold: of one size and number of references; ``apart``: one each."""
    found: dict[Any, list[int]] = {}
    for i, image in enumerate(images):
        found.setdefault((image.shape, len(references[i]), i if apart else 0), []).append(i)
    return list(found.values())


def check_call(
    vae: DifixVAE, references: Any, steps: int, timesteps: Sequence[int], guidance_scale: float, resize: str
) -> None:
    """:class:`~difix3d.errors.UserError` unless ``DifixPipeline.__call__`` can do it."""
    if steps != 1 or len(timesteps) != 1 or guidance_scale > 1:
        raise UserError(
            f"Got {steps} steps, timesteps {list(timesteps)}, guidance {guidance_scale}",
            "Difix takes a single step without guidance",
            f"Leave them out, or pass num_inference_steps=1, timesteps=[{TIMESTEP}], guidance_scale=0.0",
        )
    if resize not in ("pad", "published"):
        raise UserError(f"resize is {resize!r}", "It is 'pad' or 'published'")
    if vae.guide and references is not None:
        raise UserError(
            "These weights look at references that are carried into the render by its depth",
            "Here are only the photos",
            "Fix a run (difix3d train, render, evaluate), pass a guide to fix(), or leave ref_image out",
        )


def check_fix(
    vae: DifixVAE, images: Tensor, references: Tensor | None, guide: Tensor | None, timestep: int, tile: int
) -> None:
    """:class:`~difix3d.errors.UserError` unless ``DifixPipeline.fix`` can do it."""
    expected = (len(images), vae.guide, *images.shape[-2:])
    if guide is not None and tuple(guide.shape) != expected:
        raise UserError(f"The guide is {tuple(guide.shape)}", f"These weights take {expected}")
    if not 0 <= timestep < 1000:
        raise UserError(f"The time step is {timestep}", "It lies in 0..999", f"Difix is trained at {TIMESTEP}")
    if tile % CELL or tile <= OVERLAP:
        raise UserError(f"tile is {tile} pixels", f"It is a multiple of {CELL} above {OVERLAP}")
    if references is not None:
        size = images.shape[-2:]
        channels = int(vae.config["latent_channels"])
        fits = {3: tuple(size), channels: tuple(-(-side // CELL) for side in size)}
        found = tuple(references.shape)
        if found[0] != len(images) or found[-2:] != fits.get(found[2]):
            raise UserError(
                f"References are {found} for images {tuple(images.shape)}",
                "They are [B,V,3,H,W] of the images' batch and size, or latents of encode_references: "
                f"[B,V,{channels},H/8,W/8]",
            )
