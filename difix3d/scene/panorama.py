"""360 photos: each becomes six pinhole photos, the faces of a cube around it, before anything else sees the capture."""

from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from difix3d.errors import UserError
from difix3d.geometry.lens import sampling_map
from difix3d.geometry.panorama import EQUIRECTANGULAR, FACES, PAD, continued, face_pinhole
from difix3d.images import image_size, read_mask, read_photo, resize, sample
from difix3d.scene.cache import read_reduced
from difix3d.scene.capture import Capture
from difix3d.types import Cameras, Lens, Photo

FINER = 3
"""A face that is smaller than its panorama allows is cut so many times larger and then reduced.

Reduced as a rectangle, a panorama would be blurred too little across near its poles, and too much for the edges of a
face: white noise, reduced four times, misses the exact face by 18 of 255 (RMS), cut 2 times larger by 4.2, 3 times 1.4.
"""

OPAQUE = 250
"""Alpha from which a pixel counts."""
BAND = 128
"""Rows of a face that are cut at a time: a panorama as floats would be four times its size in memory."""


def is_panorama(lens: Lens | None) -> bool:
    """Whether a photo shows all directions, so that its cameras are faces."""
    return lens is not None and lens.model == EQUIRECTANGULAR


def cut_panoramas(capture: Capture) -> tuple[Capture, Int[np.ndarray, "N"]]:
    """The capture with six faces in place of each 360 photo, and which photo each of the new ones comes from.

    The faces of ``pano_1.jpg`` are called ``pano_1/front`` and so on. They share its centre, file and mask. They stand
    behind the other photos, first the front faces of all panoramas, then those to the right and so on, so that whoever
    takes every n-th photo, or goes from one to the next, does not turn all around. A point that a panorama sees is seen
    by the face in whose direction it lies, not by others that show it at their edge: who counts the photos of a point
    would count the panorama twice.

    Raises:
        UserError: a panorama does not show the whole sphere.
    """
    whole = [i for i, lens in enumerate(capture.lenses) if is_panorama(lens)]
    if not whole:
        return capture, np.arange(len(capture.names))
    for i in whole:
        _check_whole(capture.files[i], capture.lenses[i])
    stems = _stems([capture.names[i] for i in whole])
    kept = [i for i, lens in enumerate(capture.lenses) if not is_panorama(lens)]
    faces = [(i, face) for face in FACES for i in whole]
    photo_of = np.array([*kept, *(i for i, _ in faces)])
    c2w = capture.c2w[photo_of]
    c2w[len(kept) :, :3, :3] = c2w[len(kept) :, :3, :3] @ np.stack([FACES[face] for _, face in faces])
    cut = replace(
        capture,
        names=[*(capture.names[i] for i in kept), *(f"{stems[capture.names[i]]}/{face}" for i, face in faces)],
        files=[capture.files[i] for i in photo_of],
        c2w=c2w,
        lenses=[*(capture.lenses[i] for i in kept), *(replace(capture.lenses[i], face=face) for i, face in faces)],
        masks=[capture.masks[i] for i in photo_of],
        observations=_observations(capture, kept, whole),
    )
    return cut, photo_of


def _check_whole(file: Path, lens: Lens) -> None:
    width, height = lens.width, lens.height
    if lens.params != (width, height) or abs(width - 2 * height) > 0.01 * width:
        claimed = "" if lens.params == (width, height) else f", of a panorama of {lens.params}"
        raise UserError(
            f"The 360 photo {file} is {width} x {height} pixels{claimed}",
            "An equirectangular photo shows the whole sphere and is twice as wide as high",
            "Export it whole, not cropped, or cut it into ordinary photos",
        )


def _stems(names: list[str]) -> dict[str, str]:
    """The names without their suffixes, where these do not tell two of them apart."""
    short = {name: PurePosixPath(name).with_suffix("").as_posix() for name in names}
    times = Counter(short.values())
    return {name: stem if times[stem] == 1 else name for name, stem in short.items()}


def _observations(capture: Capture, kept: list[int], whole: list[int]) -> Int[np.ndarray, "O 2"]:
    """The pairs (point, photo) with the face that looks most towards the point as the photo."""
    point, photo = capture.observations.T
    offset = capture.points[point] - capture.c2w[photo, :3, 3]
    local = np.einsum("oji,oj->oi", capture.c2w[photo, :3, :3], offset)
    face = (local @ np.stack([turn[:, 2] for turn in FACES.values()], 1)).argmax(1)
    row = np.empty((len(capture.names), len(FACES)), np.int64)
    row[kept] = np.arange(len(kept))[:, None]
    row[whole] = len(kept) + np.arange(len(FACES) * len(whole)).reshape(len(FACES), -1).T
    return np.stack([point, row[photo, face]], 1)


def read_face(
    photo: Photo, camera: Cameras, cache: Path | None
) -> tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"] | None]:
    """A face of a 360 photo as its camera sees it, and which pixels count (``None``: all).

    Transparent pixels do not: that is how programs that stitch panoramas leave what no lens has seen.

    Raises:
        UserError: the file cannot be read.
    """
    lens, (width, height) = photo.lens, camera.size
    assert lens is not None
    K = camera.K[0].double().numpy()
    focal = face_pinhole(lens)[0]
    scale = min(1.0, FINER * K[0, 0] / focal, image_size(photo.path, photo.turn)[0] / lens.width)
    panorama = max(1, round(lens.width * scale)), max(1, round(lens.height * scale))
    finer = max(1.0, focal * scale / K[0, 0])
    enlarged = np.diag([finer, finer, 1.0]) @ K

    def face(pixels: UInt8[np.ndarray, "h w C"]) -> UInt8[np.ndarray, "H W C"]:
        return resize(cut(pixels, lens, enlarged, round(width * finer), round(height * finer)), width, height)

    def make(path: Path, _: tuple[int, int]) -> UInt8[np.ndarray, "H W C"]:
        return face(read_photo(path, panorama, photo.turn))

    image = read_reduced(photo.path, (width, height), cache, make, key=f"{lens} {K.tolist()} {photo.turn}")
    counts = np.ones((height, width), bool)
    if image.shape[2] == 4:
        counts &= image[..., 3] >= OPAQUE
    if photo.mask is not None:
        counts &= face(read_mask(photo.mask, panorama, photo.mask_turn)[..., None].astype(np.uint8) * 255)[..., 0] > 127
    return image[..., :3], None if counts.all() else counts


def cut(
    panorama: UInt8[np.ndarray, "h w C"], lens: Lens, K: Float[np.ndarray, "3 3"], width: int, height: int
) -> UInt8[np.ndarray, "height width C"]:
    """The lens's face, sampled (bicubic) by a pinhole camera; seam and poles of the panorama are not seen in it."""
    whole = continued(panorama)
    tops = range(0, height, BAND)
    below = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 0]])
    return np.concatenate([_cut_band(whole, lens, K - top * below, width, min(BAND, height - top)) for top in tops])


def _cut_band(
    whole: UInt8[np.ndarray, "h w C"], lens: Lens, K: Float[np.ndarray, "3 3"], width: int, height: int
) -> UInt8[np.ndarray, "height width C"]:
    shares, _ = sampling_map(lens, K, width, height)
    where = shares * (np.array(whole.shape[1::-1]) - 2 * PAD) + PAD
    low = np.floor(where.min((0, 1))).astype(int) - PAD
    high = np.ceil(where.max((0, 1))).astype(int) + PAD
    low = low.clip(min=0)
    window = whole[low[1] : high[1], low[0] : high[0]]
    return sample(window, (where - low) / window.shape[1::-1], "bicubic")
