"""360 photos: COLMAP's EQUIRECTANGULAR camera, and the faces of the cube around it that are pinholes.

The middle of a panorama looks along the camera's z, the middle of its right half along x, its last row along y: so in
COLMAP 4.2 (parameters: width and height), nerfstudio and Metashape ("spherical").
"""

import math

import numpy as np
from jaxtyping import Float, Shaped

from difix3d.types import Lens

EQUIRECTANGULAR = "EQUIRECTANGULAR"

FIELD_OF_VIEW = 90.0
"""Of a face, in degrees: the cube's. Faces that overlap cost more pixels and gain nothing: a drawn scene, trained 800
steps on faces of 90, 94 and 100 degrees, came to 38.4, 38.4 and 38.3 dB, and across the edges to 38.1 and 38.0."""

PAD = 3
"""Pixels by which a panorama is continued on all sides: bicubic samples reach 2 pixels beyond."""

_FORWARD, _RIGHT, _DOWN = np.array([0, 0, 1]), np.array([1, 0, 0]), np.array([0, 1, 0])
FACES = {
    "front": np.eye(3),
    "right": np.stack([-_FORWARD, _DOWN, _RIGHT], 1),
    "back": np.stack([-_RIGHT, _DOWN, -_FORWARD], 1),
    "left": np.stack([_FORWARD, _DOWN, -_RIGHT], 1),
    "up": np.stack([_RIGHT, _FORWARD, -_DOWN], 1),
    "down": np.stack([_RIGHT, -_FORWARD, _DOWN], 1),
}
"""From the axes of each face's camera to the panorama's."""


def face_pinhole(lens: Lens) -> tuple[float, float, float, float, int, int]:
    """The pinhole camera (fx, fy, cx, cy, width, height) of a face; its middle has the panorama's pixels per radian."""
    focal = lens.width / (2 * math.pi)
    side = max(1, round(2 * focal * math.tan(math.radians(FIELD_OF_VIEW) / 2)))
    return focal, focal, side / 2, side / 2, side, side


def project_to_panorama(lens: Lens, plane: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
    """Where the panorama shows the directions (x, y, 1) of the lens's face: positions in pixels."""
    rays = np.concatenate([plane, np.ones_like(plane[:, :1])], 1) @ FACES[lens.face].T
    longitude = np.arctan2(rays[:, 0], rays[:, 2])
    latitude = np.arctan2(rays[:, 1], np.hypot(rays[:, 0], rays[:, 2]))
    shares = np.stack([longitude / (2 * math.pi) + 0.5, latitude / math.pi + 0.5], 1)
    return shares * [lens.width, lens.height]


def continued(image: Shaped[np.ndarray, "H W C"]) -> Shaped[np.ndarray, "H+2*3 W+2*3 C"]:
    """A panorama with :data:`PAD` more pixels on each side: what lies behind the seam, and beyond the poles."""
    beyond = np.roll(image, image.shape[1] // 2, axis=1)  # over a pole one goes on at the opposite longitude
    tall = np.concatenate([beyond[:PAD][::-1], image, beyond[-PAD:][::-1]], 0)
    return np.concatenate([tall[:, -PAD:], tall, tall[:, :PAD]], 1)
