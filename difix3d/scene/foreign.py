"""Cameras in the files of programs that are not read: named before others are looked for, which takes minutes."""

import re
from pathlib import Path

KINDS = (
    (r"poses_bounds\.npy", "LLFF"),
    (r".*\.rd\.out|bundle.*\.out", "Bundler"),
    (r".*\.nvm", "VisualSFM"),
    (r"sfm_data.*\.(json|bin)", "OpenMVG"),
    (r"reconstruction.*\.json", "OpenSfM, OpenDroneMap"),
    (r"meshroomcache|.*\.sfm|sfm\.abc|cameras\.abc", "Meshroom"),
    (r".*\.psx|.*cameras.*\.xml|doc\.xml", "Metashape"),
    (r".*\.rcproj|.*\.rspj|.*(cameras?|poses?|internal_external|registration).*\.csv", "RealityScan"),
    (r".*blocks?_?exchange.*\.xml", "ContextCapture"),
    (r"cameras.*\.npz|predictions.*\.npz|cam_dict_norm\.json", "NeuS, VGGT and others"),
    (r"cameras\.json", "3DGS, MVS programs"),
    (r"frame_\d+\.json", "3D Scanner App"),
    (r"metadata\.json", "Record3D"),
    (r".*_cam\.txt", "MVSNet"),
    (r"traj.*\.txt|.*\.tum|.*poses.*\.txt|groundtruth.*\.txt", "SLAM"),
    (r"(cameras|images)\.(bin|txt)\.gz", "COLMAP, to be unpacked"),
)
"""Names of files, whole and in small letters, and whose they are. The first that fits counts."""
FRAMES = {"cameras": "Polycam", "corrected_cameras": "Polycam", "pose": "ScanNet", "poses": "others"}
"""Folders with a file for each photo."""
PLACES = ("", "*/", "*/*/")
"""Where they are looked for in the scene's folder."""


def foreign_cameras(folder: Path) -> str:
    """What to say of cameras that another program has left beside photos, and that are not read; empty without any."""
    for place in PLACES:
        for path in sorted(folder.glob(f"{place}*")):
            whose = _whose(path)
            if whose:
                return (
                    f"{path} ({whose}) seems to hold cameras, and is not read: to use them, export a COLMAP model or a "
                    "transforms.json (nerfstudio) there, or convert it"
                )
    return ""


def _whose(path: Path) -> str:
    name = path.name.lower()
    if name in FRAMES:
        return FRAMES[name] if any(path.glob("*.json")) or any(path.glob("*.txt")) else ""
    if name == "metadata.json" and b'"poses"' not in path.read_bytes():
        return ""
    return next((whose for pattern, whose in KINDS if re.fullmatch(pattern, name)), "")
