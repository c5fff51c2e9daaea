"""The training views that a round makes: drawing from them, and storing them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from difix3d.types import Cameras, View

PREFIX = "pseudo."


@dataclass(frozen=True)
class PseudoViews:
    """Cleaned renders of novel cameras, which training takes for photos, with less weight.

    Attributes:
        cameras: the M novel cameras; sizes may differ.
        images: what they should see, 8 bits, one for each camera.
        confidence: weight of each pixel, 0..255 for 0..1.
        reference: the captured photo (index into the scene's cameras) that the fixer looked at; -1 for none.
        weight: factor of the loss of all of them.
        step: when they were made.
        alpha: of the renders that were cleaned, 0..255 for 0..1, where the scene's photos have alpha: a fixer sees
            colours over black and cannot tell what is there, so that novel views never make the model grow.
    """

    cameras: Cameras
    images: tuple[UInt8[Tensor, "_ _ 3"], ...]
    confidence: tuple[UInt8[Tensor, "_ _"], ...]
    reference: Int[Tensor, "M"]
    weight: float
    step: int
    alpha: tuple[UInt8[Tensor, "_ _"], ...] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def usable(self) -> list[int]:
        """Indices of the views with at least one pixel that counts."""
        return [i for i, confidence in enumerate(self.confidence) if confidence.any()]

    def view(self, index: int, device: torch.device | str) -> View:
        """One of them as a training view."""

        def floats(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True).float() / 255

        return View(
            camera=self.cameras[index].to(device),
            image=floats(self.images[index]),
            name=f"novel {index} of step {self.step}",
            confidence=floats(self.confidence[index]),
            weight=self.weight,
            alpha=None if self.alpha is None else floats(self.alpha[index]),
        )


def draw(pseudo: PseudoViews, count: int, rng: np.random.Generator) -> list[int]:
    """``count`` of the usable views, at random, all of one image size."""
    able = pseudo.usable
    first = int(rng.choice(able))
    alike = [i for i in able if pseudo.images[i].shape == pseudo.images[first].shape]
    return [first, *rng.choice(alike, count - 1).tolist()]


def pack(pseudo: PseudoViews) -> dict[str, Tensor]:
    """The views as named tensors, for a checkpoint."""
    cameras = pseudo.cameras
    tensors = {"c2w": cameras.c2w, "K": cameras.K, "width": cameras.width, "height": cameras.height}
    tensors |= {"reference": pseudo.reference, "weight": torch.tensor(pseudo.weight, dtype=torch.float64)}
    tensors["step"] = torch.tensor(pseudo.step)
    for i, (image, confidence) in enumerate(zip(pseudo.images, pseudo.confidence, strict=True)):
        tensors |= {f"image.{i}": image, f"confidence.{i}": confidence}
    tensors |= {f"alpha.{i}": alpha for i, alpha in enumerate(pseudo.alpha or ())}
    return {PREFIX + name: value for name, value in tensors.items()}


def unpack(tensors: dict[str, Tensor]) -> PseudoViews | None:
    """The views among the tensors of a checkpoint; ``None`` if there are none."""
    own = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
    if not own:
        return None
    count = len(own["reference"])
    return PseudoViews(
        cameras=Cameras(own["c2w"], own["K"], own["width"], own["height"]),
        images=tuple(own[f"image.{i}"] for i in range(count)),
        confidence=tuple(own[f"confidence.{i}"] for i in range(count)),
        reference=own["reference"],
        weight=float(own["weight"]),
        step=int(own["step"]),
        alpha=tuple(own[f"alpha.{i}"] for i in range(count)) if "alpha.0" in own else None,
    )
