"""The containers that carry everything between the modules. Shapes are checked under the tests (jaxtyping, beartype).

Conventions (``docs/conventions.md``): poses are camera to world, OpenCV axes (x right, y down, z forward); the centre
of the top-left pixel lies at (0.5, 0.5); images are float in 0..1, height before width, channels last; quaternions are
wxyz.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from difix3d.places import safe_names


@dataclass(frozen=True)
class Cameras:
    """N pinhole cameras.

    Lens distortion is a property of a photo, not of a camera that renders: photos are undistorted when they are decoded
    (:class:`Photo`), so that everything behind the scene loader sees pinhole cameras only.

    Attributes:
        c2w: camera to world, rigid, OpenCV axes.
        K: intrinsics in pixels.
        width, height: image size of each camera in pixels; on the host, wherever the poses are, so that nothing that
            asks for a size waits for a GPU.
    """

    c2w: Float[Tensor, "N 4 4"]
    K: Float[Tensor, "N 3 3"]
    width: Int[Tensor, "N"]
    height: Int[Tensor, "N"]

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def __getitem__(self, index: int | slice | Tensor | np.ndarray | list[int]) -> "Cameras":
        """A selection of the cameras; an integer keeps the batch dimension (N = 1)."""
        if isinstance(index, (int, np.integer)):
            first = range(len(self))[int(index)]
            index = slice(first, first + 1)  # which no GPU is asked or told
        if isinstance(index, slice):
            return Cameras(self.c2w[index], self.K[index], self.width[index], self.height[index])
        here = torch.as_tensor(index, device="cpu")
        there = here.to(self.c2w.device, non_blocking=True)
        return Cameras(self.c2w[there], self.K[there], self.width[here], self.height[here])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) common to all cameras; ValueError if they differ."""
        sizes = set(zip(self.width.tolist(), self.height.tolist(), strict=True))
        if len(sizes) != 1:
            raise ValueError(f"the cameras have {len(sizes)} different image sizes; index them one size at a time")
        return next(iter(sizes))

    @property
    def w2c(self) -> Float[Tensor, "N 4 4"]:
        """World to camera ("viewmats"), by the closed form for rigid transforms; differentiable."""
        rotation = self.c2w[:, :3, :3].transpose(1, 2)
        translation = -rotation @ self.c2w[:, :3, 3:]
        return torch.cat([torch.cat([rotation, translation], 2), self.c2w[:, 3:]], 1)

    @property
    def centers(self) -> Float[Tensor, "N 3"]:
        """Positions of the cameras in the world."""
        return self.c2w[:, :3, 3]

    @staticmethod
    def cat(parts: "Iterable[Cameras]") -> "Cameras":
        """All cameras of the parts, of which there is at least one, in order."""
        parts = list(parts)
        return Cameras(
            *(torch.cat([getattr(part, name) for part in parts]) for name in ("c2w", "K", "width", "height"))
        )

    def to(self, device: torch.device | str) -> "Cameras":
        here = self.c2w.device.type == "cpu"  # what comes from a GPU is waited for
        return replace(self, c2w=self.c2w.to(device, non_blocking=here), K=self.K.to(device, non_blocking=here))

    def resized(self, width: int, height: int) -> "Cameras":
        """The same cameras with another image size; the intrinsics are scaled along."""
        scale = torch.ones(self.K.shape, dtype=self.K.dtype)
        scale[:, 0], scale[:, 1] = (width / self.width)[:, None], (height / self.height)[:, None]
        size = {"width": torch.full_like(self.width, width), "height": torch.full_like(self.height, height)}
        return replace(self, K=self.K * scale.to(self.K.device, non_blocking=True), **size)

    def limited(self, side: int) -> "Cameras":
        """The cameras, all of one size, with images of at most ``side`` pixels on the long side."""
        width, height = self.size
        scale = min(1.0, side / max(width, height))
        return self.resized(max(1, round(width * scale)), max(1, round(height * scale)))


@dataclass(frozen=True)
class Lens:
    """How a photo's file was taken: its own size and COLMAP camera model, which may be distorted.

    Attributes:
        model: COLMAP's name of the camera model ("PINHOLE", "OPENCV", "SIMPLE_RADIAL", ...).
        params: the model's parameters in COLMAP's order, in pixels of ``width`` x ``height``.
        face: of a 360 photo ("EQUIRECTANGULAR"), the face of the cube around it that is cut out.
    """

    model: str
    params: tuple[float, ...]
    width: int
    height: int
    face: str = "front"


@dataclass(frozen=True)
class Photo:
    """Where one captured image comes from.

    Attributes:
        name: its name in the model ("left/0001.jpg"); what ``split.json`` and reports call it.
        path: the image file.
        lens: the camera the file was taken with; ``None`` if the file is an undistorted image of the camera already.
        mask: file whose zero pixels do not count, or ``None``.
        turn, mask_turn: the EXIF orientation that the pixels of the photo and of the mask are turned by when they are
            read; 1: as stored.
    """

    name: str
    path: Path
    lens: Lens | None = None
    mask: Path | None = None
    turn: int = 1
    mask_turn: int = 1


@dataclass(frozen=True)
class Scene:
    """A set of photos with known cameras, in the normalised world.

    Attributes:
        name: short name, for folders and reports.
        cameras: one for each photo, at the size that it is trained at.
        photos: where the pixels come from, in the same order.
        points, colors: the sparse points and their colours (0..255); P may be 0.
        observations: pairs (point, photo): which photo sees which point; empty if unknown.
        train, test: indices into the cameras; disjoint.
        from_input: similarity that takes a point of the user's world to the normalised one.
        extent: radius of the camera centres about their mean, times 1.1 (3DGS's "cameras_extent"); those far off are
            left aside.
        alpha: whether photos have alpha: they show an object, and nothing around it.
    """

    name: str
    cameras: Cameras
    photos: tuple[Photo, ...]
    points: Float[np.ndarray, "P 3"]
    colors: UInt8[np.ndarray, "P 3"]
    observations: Int[np.ndarray, "O 2"]
    train: Int[np.ndarray, "T"]
    test: Int[np.ndarray, "E"]
    from_input: Float[np.ndarray, "4 4"]
    extent: float
    alpha: bool = False

    @cached_property
    def places(self) -> list[str]:
        """For each photo where pictures of it go, below a folder of the run: a path without a suffix.

        Photos' names come out of files of anybody, and may lead out of the folder or differ in their suffix only.
        """
        return safe_names([photo.name for photo in self.photos])

    def some_train(self, most: int) -> list[int]:
        """Training photos, evenly spread over all: every one, or so many at most."""
        return self.train[:: max(1, -(-len(self.train) // most))].tolist()


@dataclass(frozen=True)
class View:
    """One camera and what it should see.

    Attributes:
        camera: a single camera.
        image: the target, 0..1; with an alpha it is multiplied by it: what is seen over black.
        mask: pixels that count, or ``None`` for all.
        alpha: what is there (1) and what is empty (0), or ``None``: all is there. Other than masks, it is a target.
        confidence: weight of each pixel in 0..1, or ``None`` for 1.
        weight: factor of this view's loss.
        index: position in the scene's cameras; -1 for views that are not of the scene.
        place: where pictures of a photo go (:attr:`Scene.places`); empty for other views.
    """

    camera: Cameras
    image: Float[Tensor, "H W 3"]
    name: str
    index: int = -1
    mask: Bool[Tensor, "H W"] | None = None
    confidence: Float[Tensor, "H W"] | None = None
    weight: float = 1.0
    place: str = ""
    alpha: Float[Tensor, "H W"] | None = None

    def to(self, device: torch.device | str) -> "View":
        """The same view with all its tensors there."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, (Cameras, Tensor))}
        return replace(self, **moved)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Gaussians:
    """A splat model, as optimised: before the activations.

    Attributes:
        means: positions in the world; float64 only on the way from and to files whose world is far from its origin.
        quats: rotations, wxyz, of any length (normalised when rendered).
        scales: natural logarithms of the standard deviations along the axes, in world units.
        opacities: logits.
        sh0, shN: spherical-harmonics coefficients of degree 0, and of degrees 1..D (K = (D + 1)^2).
    """

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    scales: Float[Tensor, "N 3"]
    opacities: Float[Tensor, "N"]
    sh0: Float[Tensor, "N 1 3"]
    shN: Float[Tensor, "N R 3"]

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def sh_degree(self) -> int:
        """Highest degree of the stored coefficients."""
        return round((1 + self.shN.shape[1]) ** 0.5) - 1

    @property
    def device(self) -> torch.device:
        return self.means.device

    @staticmethod
    def cat(parts: "Iterable[Gaussians]") -> "Gaussians":
        """All Gaussians of the parts, of which there is at least one, in order; of one degree."""
        fields = zip(*(part.as_dict().values() for part in parts), strict=True)
        return Gaussians(*(torch.cat(field) for field in fields))

    def as_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ("means", "quats", "scales", "opacities", "sh0", "shN")}

    def map(self, function: Any) -> "Gaussians":
        """A new model with ``function`` applied to each tensor: ``gaussians.map(lambda x: x[keep])``."""
        return Gaussians(**{name: function(value) for name, value in self.as_dict().items()})

    def to(self, device: torch.device | str) -> "Gaussians":
        return self.map(lambda tensor: tensor.to(device))


@dataclass(frozen=True)
class Render:
    """What a rasteriser returns for B cameras.

    Attributes:
        rgb: colours, over the background; not clamped.
        alpha: coverage in 0..1.
        depth: expected distance along the optical axis, divided by alpha, in world units; 0 where nothing is seen.
        info: what gsplat's densification strategies read: ``means2d`` [B,N,2] (whose ``.grad`` is in pixels,
            ``.absgrad`` beside it if asked for), ``radii`` [B,N,2], ``width``, ``height``, ``n_cameras``,
            ``gaussian_ids``.
        background: the colour behind everything; ``None`` for black.
        foreground: coverage, in 0..1, by what is nearer than a backdrop; ``None`` if there is none.
    """

    rgb: Float[Tensor, "B H W 3"]
    alpha: Float[Tensor, "B H W 1"]
    depth: Float[Tensor, "B H W 1"] | None = None
    info: dict[str, Any] = field(default_factory=dict)
    background: Float[Tensor, "3"] | None = None
    foreground: Float[Tensor, "B H W 1"] | None = None

    @property
    def depth_map(self) -> Float[Tensor, "H W"]:
        """The depth that the first camera sees."""
        assert self.depth is not None
        return self.depth[0, ..., 0]


RenderFn = Callable[[Cameras], Render]
"""A model, rendered for cameras of one size: RGB, alpha and depth."""


@dataclass(frozen=True)
class Degraded:
    """A render to be cleaned, and what a fixer may know about it.

    Attributes:
        camera: the single camera it was rendered from.
        rgb: the render, 0..1; of scenes whose photos have alpha over black, as the references are.
        alpha: coverage in 0..1.
        depth: expected distance along the optical axis in world units; 0 where nothing is seen.
        references: captured views that show the same part of the scene, the best first; may be empty.
        reference_depths: depth maps of the model from the references' cameras, at any size of the same aspect.
        foreground: coverage, in 0..1, by what is nearer than a backdrop; ``None`` if there is none.
        near: the captured cameras nearest to it; ``None`` if they are not known.
    """

    camera: Cameras
    rgb: Float[Tensor, "H W 3"]
    alpha: Float[Tensor, "H W"]
    depth: Float[Tensor, "H W"]
    references: tuple[View, ...] = ()
    reference_depths: tuple[Float[Tensor, "_ _"], ...] = ()
    foreground: Float[Tensor, "H W"] | None = None
    near: Cameras | None = None

    @property
    def coverage(self) -> Float[Tensor, "H W"]:
        """By the model without its backdrop: what is not covered was seen by no photo, or is far off."""
        return self.alpha if self.foreground is None else self.foreground


@runtime_checkable
class Fixer(Protocol):
    """Cleans renders: takes a stream of them and gives the clean images (0..1, the size of the render) in its order.

    Streams, so that the next renders can be made while the last ones are cleaned, and progress can be shown. One with a
    true ``fills_holes`` fills holes of renders before it cleans them: frames between those that it gets need it, too.
    """

    def __call__(self, degraded: Iterable[Degraded]) -> Iterator[Float[Tensor, "H W 3"]]: ...
