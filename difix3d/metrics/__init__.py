"""How good pictures are: on 8-bit images, as papers compute it from saved PNGs.

One by one: :func:`psnr`, :func:`ssim`, :class:`LPIPS`, :func:`texture_error`, :func:`contrast`, :func:`error_split`;
:func:`color_correct` brings a picture into its photo's colours before. Sets of pictures: :func:`fid`, :func:`kid`.
Paths of cameras: :func:`warp_error`, :func:`tsed`. :func:`visibility` makes Nerfbusters' masks, :func:`reached` those
of what photos show, and :func:`confidence_interval` says how far a mean can be believed.
"""

from difix3d.metrics.colors import color_correct, color_fit
from difix3d.metrics.consistency import WarpError, warp_error
from difix3d.metrics.distribution import SetDistance, fid, kid
from difix3d.metrics.epipolar import Tsed, epipolar_distance, tsed
from difix3d.metrics.perceptual import LPIPS
from difix3d.metrics.pixels import ErrorSplit, contrast, error_split, psnr, psnr_there, ssim, ssim_there
from difix3d.metrics.statistics import confidence_interval
from difix3d.metrics.texture import texture_error
from difix3d.metrics.visible import reached, visibility

__all__ = [
    "LPIPS",
    "ErrorSplit",
    "SetDistance",
    "Tsed",
    "WarpError",
    "color_correct",
    "color_fit",
    "confidence_interval",
    "contrast",
    "epipolar_distance",
    "error_split",
    "fid",
    "kid",
    "psnr",
    "psnr_there",
    "reached",
    "ssim",
    "ssim_there",
    "texture_error",
    "tsed",
    "visibility",
    "warp_error",
]
