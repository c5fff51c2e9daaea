"""How far the detail of two pictures differs, wherever exactly it stands."""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

WINDOW = 8
"""Side in pixels of the squares whose spectra are compared; they overlap by half."""
LUMA = (0.299, 0.587, 0.114)


def texture_error(
    image: UInt8[Tensor, "H W 3"], target: UInt8[Tensor, "H W 3"], mask: Bool[Tensor, "H W"] | None = None
) -> float:
    """Distance between the amplitudes of the local spectra of two pictures, 0 for equal ones.

    In each square of 8 pixels the brightness, less its mean and faded out toward the edges, is taken apart into its
    frequencies; square roots of their amplitudes are compared, and their phases are not. So a blurred picture is far
    off, while one whose detail stands a little beside its place, which costs MSE and SSIM most, is near: what LPIPS is
    asked for, without a network.

    Args:
        mask: pixels that count; squares with others in them do not.

    Returns:
        Mean over squares and frequencies; NaN if no square counts, or the pictures are smaller than one.
    """
    if min(image.shape[:2]) < WINDOW:
        return float("nan")
    error = (_amplitudes(image) - _amplitudes(target)).abs().mean(0)
    return float((error if mask is None else error[_squares(mask.float()).amin(0) > 0]).mean())


def _amplitudes(image: UInt8[Tensor, "H W 3"]) -> Float[Tensor, "_ S"]:
    """Square roots of the amplitudes of each square's frequencies."""
    luma = (image.float() / 255) @ torch.tensor(LUMA, device=image.device)
    squares = _squares(luma)
    fade = torch.hann_window(WINDOW, periodic=False, device=image.device)
    squares = (squares - squares.mean(0)).mT.unflatten(1, (WINDOW, WINDOW)) * fade[:, None] * fade
    return torch.fft.rfft2(squares).abs().clamp(min=1e-6).sqrt().flatten(1).mT


def _squares(values: Float[Tensor, "H W"]) -> Float[Tensor, "_ S"]:
    return torch.nn.functional.unfold(values[None, None], WINDOW, stride=WINDOW // 2)[0]
