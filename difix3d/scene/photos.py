"""Photos or a video without cameras: structure from motion by pycolmap, its result kept beside the photos."""

import logging
from pathlib import Path

from difix3d.errors import UserError
from difix3d.interrupt import unwinding
from difix3d.scene.candidates import candidates, read_best
from difix3d.scene.capture import Capture
from difix3d.scene.colmap import read_colmap
from difix3d.scene.foreign import foreign_cameras
from difix3d.sfm.cameras import find_cameras
from difix3d.sfm.database import _camera_mode  # noqa: F401
from difix3d.sfm.frames import _sharpest, extract_frames, list_frames  # noqa: F401
from difix3d.sfm.listing import list_photos
from difix3d.video import VIDEOS

log = logging.getLogger(__name__)


def reconstruct(path: Path, data_dir: Path, seed: int = 0) -> Capture:
    """Finds the cameras of a folder of photos, or of a video, whose frames go to ``data_dir``.

    The model is written to ``sparse/N`` beside the photos, whole or not at all, and read from there the next time.

    Raises:
        UserError: whatever is wrong with the photos, the video or the folder.
    """
    video = path.is_file()
    if video and path.suffix.lower() not in VIDEOS:
        raise UserError(
            f"{path} is not a scene",
            f"A file must be a transforms.json or a video ({', '.join(sorted(VIDEOS))})",
            "Unpack it" if path.suffix.lower() in (".zip", ".7z", ".rar", ".tar", ".gz") else "Give the photos' folder",
        )
    folder = path
    if video:
        with unwinding():
            folder = extract_frames(path, data_dir, candidates)
        known = read_best(folder)
        if known is not None:
            return known
    elif foreign := foreign_cameras(path):
        log.warning("%s", foreign)
    root, names = list_frames(folder) if video else list_photos(folder)
    return read_colmap(folder, find_cameras(root, names, folder, video, seed))
