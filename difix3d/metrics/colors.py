"""Colours fitted to a photo: what a picture would score if it were not for exposure and white balance."""

import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor


def color_fit(
    image: Shaped[Tensor, "H W 3"], photo: Shaped[Tensor, "H W 3"], mask: Bool[Tensor, "H W"] | None = None
) -> Float[Tensor, "3 4"]:
    """The affine map of colours that brings a picture nearest to its photo, by least squares over all pixels.

    Args:
        image, photo: of one range.
        mask: pixels that count.

    Returns:
        Matrix and, in the last column, offset. What the pixels leave open (a picture of one colour, an empty mask)
        stays as it is: of all best maps the one nearest to "no change".
    """
    if mask is not None:
        image, photo = image[mask], photo[mask]
    x, y = image.reshape(-1, 3).double(), photo.reshape(-1, 3).double()
    x1 = torch.cat([x, torch.full_like(x[:, :1], 255.0 if image.dtype == torch.uint8 else 1.0)], 1)
    change = torch.linalg.pinv(x1.mT @ x1, rtol=1e-9, hermitian=True) @ (x1.mT @ (y - x))
    return (change.mT + torch.eye(3, 4).to(x)).float()


def color_correct(
    image: UInt8[Tensor, "H W 3"], photo: UInt8[Tensor, "H W 3"], mask: Bool[Tensor, "H W"] | None = None
) -> UInt8[Tensor, "H W 3"]:
    """The picture in the photo's colours, as far as one affine map (:func:`color_fit`) can bring it there.

    Metrics of it are reported beside the raw ones where photos differ in exposure, as by gsplat and nerfstudio.
    """
    fit = color_fit(image, photo, mask)
    return (image.float() @ fit[:, :3].T + 255 * fit[:, 3]).round().clamp(0, 255).to(torch.uint8)
