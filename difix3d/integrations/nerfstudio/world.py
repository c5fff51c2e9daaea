"""nerfstudio's data as a scene: its cameras, in its own normalised world, and ours."""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras as NsCameras
from nerfstudio.cameras.cameras import CameraType

from difix3d.errors import UserError
from difix3d.geometry.normalize import transform_poses
from difix3d.geometry.poses import FROM_OPENGL
from difix3d.scene.capture import Capture
from difix3d.scene.load import scene_of_capture
from difix3d.scene.pathfile import read_path
from difix3d.types import Cameras, Lens, Scene


@dataclass(frozen=True)
class World:
    """A scene whose photos are those that nerfstudio trains on and evaluates, and the way there.

    nerfstudio scales the cameras into a cube of its own; distances of distillation are in units of our normalised
    world, where nine cameras of ten stand within one unit of their middle.

    Attributes:
        scene: photos of the train split, then of the evaluation split; its user's world is that of the data's files.
            It has no alpha: nerfstudio puts photos over a colour before they are compared, and so do we.
        from_nerfstudio: similarity from nerfstudio's world to the scene's.
        index: of each photo of the scene in the data set of its split.
    """

    scene: Scene
    from_nerfstudio: Float[np.ndarray, "4 4"]
    index: tuple[int, ...]

    @cached_property
    def scale(self) -> float:
        """How many units of the scene one of nerfstudio's is."""
        return float(np.cbrt(np.linalg.det(self.from_nerfstudio[:3, :3])))

    def to_nerfstudio(self, cameras: Cameras) -> NsCameras:
        """Cameras of the scene as nerfstudio's, without distortion."""
        c2w = transform_poses(np.linalg.inv(self.from_nerfstudio), cameras.c2w.double().cpu().numpy()) @ FROM_OPENGL
        K, device = cameras.K, cameras.c2w.device
        return NsCameras(
            camera_to_worlds=torch.from_numpy(c2w[:, :3]).float().to(device),
            fx=K[:, 0, 0, None],
            fy=K[:, 1, 1, None],
            cx=K[:, 0, 2, None],
            cy=K[:, 1, 2, None],
            width=cameras.width[:, None].to(device),
            height=cameras.height[:, None].to(device),
            camera_type=CameraType.PERSPECTIVE,
        )

    def to_scene(self, cameras: NsCameras) -> Cameras:
        """nerfstudio's cameras as pinhole cameras of the scene; their distortion is left out."""
        c2w = transform_poses(self.from_nerfstudio, opencv(cameras))
        return Cameras(torch.from_numpy(c2w).float(), intrinsics(cameras), *sizes(cameras))

    def read_path(self, file: Path) -> Cameras:
        """The cameras of a path file: nerfstudio's own (of ``ns-viewer``, for ``ns-render``) are in its world.

        Raises:
            UserError: what is wrong with the file.
        """
        to_user = np.linalg.inv(self.scene.from_input) @ self.from_nerfstudio
        return read_path(file, self.scene, from_nerfstudio=to_user).cameras


def read_world(train: Any, held_out: Any, name: str) -> World:
    """The scene of nerfstudio's data sets.

    Args:
        train, held_out: its data sets (``InputDataset``); photos that are in both are trained on.
        name: of the scene.

    Raises:
        UserError: a camera of a kind that we do not render, or photos that are not as their cameras say.
    """
    parts = [_Photos(train), _Photos(held_out)]
    known = set(parts[0].files)
    chosen = [(0, i) for i in range(len(parts[0].files))]
    chosen += [(1, i) for i, file in enumerate(parts[1].files) if file not in known]
    files = [parts[part].files[i] for part, i in chosen]
    folder = Path(os.path.commonpath([str(file.parent) for file in files]))
    points = train.metadata.get("points3D_xyz")
    colors = train.metadata.get("points3D_rgb")
    capture = Capture(
        folder=folder,
        names=[file.relative_to(folder).as_posix() for file in files],
        files=files,
        c2w=np.stack([parts[part].c2w[i] for part, i in chosen]),
        lenses=[parts[part].lens(i) for part, i in chosen],
        masks=[parts[part].masks[i] for part, i in chosen],
        points=np.zeros((0, 3)) if points is None else points.double().cpu().numpy(),
        colors=np.zeros((0, 3), np.uint8) if points is None else colors.cpu().numpy().astype(np.uint8),
        observations=np.zeros((0, 2), np.int64),
    )
    split = np.array([part for part, _ in chosen])
    scene = scene_of_capture(name, capture, np.flatnonzero(split == 0), np.flatnonzero(split == 1))
    outputs = train._dataparser_outputs
    forward = np.eye(4)
    forward[:3] = outputs.dataparser_transform.double().numpy() * outputs.dataparser_scale
    here = scene.from_input
    return World(replace(scene, from_input=here @ forward, alpha=False), here, tuple(i for _, i in chosen))


class _Photos:
    """The photos of one of nerfstudio's data sets: files, poses (OpenCV axes), lenses and masks."""

    def __init__(self, dataset: Any):
        self.files = [Path(file) for file in dataset.image_filenames]
        masks = dataset._dataparser_outputs.mask_filenames
        self.masks: list[Path | None] = [None] * len(self.files) if masks is None else [Path(mask) for mask in masks]
        self.cameras = dataset.cameras
        self.c2w = opencv(self.cameras)
        self._K = intrinsics(self.cameras).double().numpy()
        self._size = [side.tolist() for side in sizes(self.cameras)]

    def lens(self, index: int) -> Lens:
        """The camera of a photo by COLMAP's models."""
        K, kind = self._K[index], CameraType(int(self.cameras.camera_type[index]))
        params = (K[0, 0], K[1, 1], K[0, 2], K[1, 2])
        all_distortion = self.cameras.distortion_params
        distortion = np.zeros(6) if all_distortion is None else all_distortion[index].double().cpu().numpy()
        width, height = self._size[0][index], self._size[1][index]
        k1, k2, k3, k4, p1, p2 = (float(value) for value in distortion)
        if kind is CameraType.FISHEYE and not (p1 or p2):
            return Lens("OPENCV_FISHEYE", (*params, k1, k2, k3, k4), width, height)
        if kind is not CameraType.PERSPECTIVE or k4:
            raise UserError(
                f"The photo {self.files[index]} has a camera of nerfstudio's type {kind.name}"
                + (f" with k4 = {k4:g}" if kind is CameraType.PERSPECTIVE else ""),
                "Novel views are made for PERSPECTIVE (k1, k2, k3, p1, p2) and FISHEYE (k1 to k4) cameras",
                "Undistort the photos first, or train with --pipeline.distill.mode off",
            )
        if not distortion.any():
            return Lens("PINHOLE", params, width, height)
        if k3:
            return Lens("FULL_OPENCV", (*params, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0), width, height)
        return Lens("OPENCV", (*params, k1, k2, p1, p2), width, height)


def opencv(cameras: NsCameras) -> Float[np.ndarray, "N 4 4"]:
    """The poses with OpenCV axes, in nerfstudio's world."""
    c2w = np.tile(np.eye(4), (len(cameras), 1, 1))
    c2w[:, :3] = cameras.camera_to_worlds.detach().double().cpu().numpy()
    return c2w @ FROM_OPENGL


def intrinsics(cameras: NsCameras) -> Float[torch.Tensor, "N 3 3"]:
    """The intrinsics in pixels."""
    K = torch.eye(3).repeat(len(cameras), 1, 1)
    for row, column, name in ((0, 0, "fx"), (1, 1, "fy"), (0, 2, "cx"), (1, 2, "cy")):
        K[:, row, column] = getattr(cameras, name)[:, 0].cpu()
    return K


def sizes(cameras: NsCameras) -> tuple[torch.Tensor, torch.Tensor]:
    """Widths and heights in pixels."""
    return cameras.width[:, 0].long().cpu(), cameras.height[:, 0].long().cpu()
