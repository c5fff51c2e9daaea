"""References that do not look at the image: whether weights can have them, and how much of their effect is lost.

A UNet that sees image and reference together lets each look at the other. Where the reference looks only at itself,
its keys and values are the same for all images (:mod:`difix3d.difix.fast`), but they are not those it was trained with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from difix3d.difix.fast import is_usual
from difix3d.difix.vae import DifixVAE
from difix3d.errors import UserError

if TYPE_CHECKING:
    from difix3d.difix.pipeline import DifixPipeline


@dataclass(frozen=True)
class Lost:
    """What frozen references cost at one image.

    Attributes:
        effect: how far the reference changes the fixed image, mean over pixels and channels, 0..1.
        error: how far the image with a frozen reference is from that with a usual one, likewise.
    """

    effect: float
    error: float

    @property
    def share(self) -> float:
        """Of the effect, 0 for nothing lost; 1 is what no reference at all would lose. 0 where there is no effect."""
        return self.error / self.effect if self.effect > 0 else 0.0


def measure_lost(pipe: DifixPipeline, image: Float[Tensor, "B 3 H W"], references: Float[Tensor, "B V 3 H W"]) -> Lost:
    """Fixes an image with, without and with frozen references; the pipeline has to be optimized."""
    check_frozen(pipe.vae, pipe.unet)
    before = pipe.frozen_references
    try:
        pipe.frozen_references = False
        usual, alone = pipe.fix(image, references), pipe.fix(image)
        pipe.frozen_references = True
        frozen = pipe.fix(image, references)
    finally:
        pipe.frozen_references = before
    return Lost(*(float((other - usual).abs().mean()) for other in (alone, frozen)))


def check_frozen(vae: DifixVAE, unet: UNet2DConditionModel) -> bool:
    """True.

    Raises:
        UserError: these weights cannot have frozen references.
    """
    if vae.guide:
        raise UserError(
            "These weights look at references that are carried into the render", "Nothing of those can be frozen"
        )
    if not is_usual(unet):
        raise UserError("This UNet is not built like that of Stable Diffusion 2", "Its references cannot be frozen")
    return True
