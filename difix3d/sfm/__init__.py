"""Structure from motion: which files of a folder are photos, the frames of a video, and where their cameras stood.

It needs nothing of :mod:`difix3d.scene`, which reads what is found here as it reads any COLMAP model.
"""

from difix3d.sfm.cameras import find_cameras
from difix3d.sfm.frames import extract_frames, list_frames
from difix3d.sfm.listing import list_photos

__all__ = ["extract_frames", "find_cameras", "list_frames", "list_photos"]
