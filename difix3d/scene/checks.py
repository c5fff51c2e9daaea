"""What is wrong with the cameras of a capture: put right with a word where only one reading is possible, else named."""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int

from difix3d.errors import UserError
from difix3d.geometry.lens import PARAMETERS, intrinsics, is_pinhole, undistorted
from difix3d.geometry.normalize import ASIDE, remoteness
from difix3d.geometry.poses import FROM_OPENGL
from difix3d.scene.capture import Capture, refuse_repeated
from difix3d.types import Lens

log = logging.getLogger(__name__)

RIGID = 0.01
"""By how much R^T R of a pose may miss the identity: files round."""
ABSURD = 1e20
"""Of that size are no numbers of poses and cameras."""
NARROWEST = 1e-3
"""Degrees that a camera sees at least: an eye at the best telescopes sees more."""
WIDEST = 170.0
"""Degrees that a camera without a fisheye lens may see; a fisheye may see 360."""
KEPT = 0.6
"""Share of a photo's width that its undistorted picture must keep if no word is said."""
FACTORS = (1.5, 2, 3, 4, 6, 8, 1 / 2, 1 / 4, 1 / 8)
"""By which photos are often made smaller (or larger) after their cameras were found."""
LOST = 100.0
"""Photos whose cameras are so many times as far out as most are not used."""
UNSEEN, MANY, SEEN = 0.05, 0.7, 0.9
"""Shares of the points in view: of any photo where cameras look elsewhere, and where all is well; of two photos where
cameras look right."""
LIKELY = 1 / 3
"""Share of the cameras that see a point, on average, if a guess of what is wrong deserves to be told."""
SAMPLE = 1000
"""Points and cameras that are looked at, at most."""
WORLDS: tuple[Callable[[Float[np.ndarray, "P 3"]], Float[np.ndarray, "P 3"]], ...] = (
    lambda points: points * [1, -1, -1],
    lambda points: points[:, [0, 2, 1]] * [1, -1, 1],
    lambda points: points[:, [0, 2, 1]] * [1, 1, -1],
    lambda points: points[:, [1, 0, 2]] * [1, 1, -1],
)
"""Turns between the worlds that programs use: y down, y up, z up, and nerfstudio's."""


def checked(capture: Capture) -> Capture:
    """The capture with rigid poses, and intrinsics of the right image size.

    Raises:
        UserError: fewer than two photos, two poses for one, poses that are no rotation and position, impossible
            intrinsics.
    """
    if len(capture.names) < 2:
        raise UserError(
            f"{capture.folder} has {len(capture.names)} photos with a camera",
            "A reconstruction needs at least 2",
            "Add photos, or check that the model is complete",
        )
    refuse_repeated(capture.folder, capture.names)
    known = np.array([(np.abs(lens.params) < ABSURD).all() for lens in capture.lenses])  # NaN is not
    _refuse(
        capture,
        ~((np.abs(capture.c2w) < ABSURD).all((1, 2)) & known),
        "a pose or camera with NaN or infinity",
        f"Numbers of {ABSURD:g} or more are taken for that",
        "Leave them out of the model, or repair them",
    )
    capture = replace(capture, c2w=_rigid(capture), lenses=_of_the_photos(capture))
    _check_views(capture)
    _say_cut(capture)
    return _turned(capture)


def _refuse(capture: Capture, bad: Bool[np.ndarray, "N"], fact: str, limit: str, cure: str) -> None:
    if bad.any():
        first = capture.names[int(np.argmax(bad))]
        raise UserError(f"{bad.sum()} of {len(bad)} photos of {capture.folder} have {fact}, first {first}", limit, cure)


def _rigid(capture: Capture) -> Float[np.ndarray, "N 4 4"]:
    """The nearest rigid poses; a scale in the rotation is taken out, for it does not change what a camera sees."""
    rotation, position = capture.c2w[:, :3, :3], capture.c2w[:, :3, 3]
    with np.errstate(all="ignore"):  # absurd numbers overflow, to an error that is not small
        scale = np.cbrt(np.abs(np.linalg.det(rotation)))
        unit = rotation / np.where(scale > 0, scale, 1.0)[:, None, None]
        error = np.abs(unit.transpose(0, 2, 1) @ unit - np.eye(3)).max((1, 2))
    _refuse(
        capture,
        ~(error < RIGID),
        "a pose that is not rigid",
        "Its three axes must be at right angles and of one length",
        "Leave them out of the model, or repair them",
    )
    _refuse(
        capture,
        np.linalg.det(unit) < 0,
        "a mirrored pose (determinant -1)",
        "A pose turns and moves; it does not mirror",
        "From a left-handed program (Unity, Unreal) multiply each matrix by diag(1, 1, -1, 1): from the left, and "
        "negate z of the points, if the world is left-handed; from the right if only the axes of the cameras are",
    )
    scaled = np.abs(scale**2 - 1) > RIGID
    if scaled.any():
        first = int(np.argmax(scaled))
        log.warning(
            "%s: %d of %d poses have a scale in their rotation, first %s by %.3g: taken out, positions stay",
            capture.folder,
            scaled.sum(),
            len(scaled),
            capture.names[first],
            scale[first],
        )
    u, _, vh = np.linalg.svd(unit)
    poses = np.tile(np.eye(4), (len(unit), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = u @ vh, position
    return poses


def in_place(capture: Capture, train: Int[np.ndarray, "T"]) -> tuple[Bool[np.ndarray, "N"], Bool[np.ndarray, "N"]]:
    """Which cameras count for the middle and the size of the scene, and which photos are used; a word if not all.

    A camera a hundred times as far out as most is not where its photo was taken: structure from motion failed there. It
    would be trained on, or measured, in vain.

    Raises:
        UserError: none of the training photos is left.
    """
    remote = remoteness(capture.c2w[:, :3, 3], capture.points)
    near, used = remote <= ASIDE, remote <= LOST
    lost = np.isin(np.arange(len(remote)), train) & ~used
    if lost.sum() == len(train):
        _refuse(capture, lost, "a camera far off all others, and no other photo is trained on", "", "Change the split")
    for out, fact in ((~used, "not used"), (used & ~near, "not counted for the size of the scene")):
        if out.any():
            first = int(np.argmax(np.where(out, remote, 0)))
            log.warning(
                "%s: %d of %d cameras stand far off, %s first (%.0f times as far out as most): %s",
                capture.folder,
                out.sum(),
                len(out),
                capture.names[first],
                remote[first],
                fact,
            )
    return near, used


def _of_the_photos(capture: Capture) -> list[Lens]:
    """The lenses, in pixels of the photos' size: principal points that all lie on the diagonal, far from the middle,
    tell that the intrinsics are those of photos of another size."""
    known = [lens for lens in dict.fromkeys(capture.lenses) if lens.model in PARAMETERS]
    offset = {lens: np.divide(intrinsics(lens)[2:], (0.5 * lens.width, 0.5 * lens.height)) for lens in known}
    factors = {lens: _factor(*middle) for lens, middle in offset.items()}
    if factors and all(factors.values()):
        log.warning(
            "%s: the principal points lie at %.3g times the middle of the photos: taken for intrinsics of photos so "
            "many times as large; give w and h of these photos to have it exact",
            capture.folder,
            factors[known[0]],
        )
        return [_scaled(lens, 1 / (factors.get(lens) or 1.0)) for lens in capture.lenses]
    at_the_edge = [
        name
        for name, lens in zip(capture.names, capture.lenses, strict=True)
        if lens in offset and np.abs(offset[lens] - 1).max() > 0.95
    ]
    if at_the_edge:
        log.warning(
            "%s: the principal points of %d of %d photos lie at the edge or outside, first %s: right for parts that "
            "were cut out of photos only; cx and cy are pixels from the top left corner",
            capture.folder,
            len(at_the_edge),
            len(capture.names),
            at_the_edge[0],
        )
    return capture.lenses


def _factor(x: float, y: float) -> float | None:
    """What both are times the middle, if they agree and are far from it; one of :data:`FACTORS` if near to that."""
    factor = 0.5 * (x + y)
    if factor <= 0 or abs(x - y) > 0.05 * factor or 0.75 < factor < 1.35:
        return None
    return next((float(n) for n in FACTORS if abs(factor / n - 1) < 0.05), float(factor))


def _scaled(lens: Lens, scale: float) -> Lens:
    names = PARAMETERS[lens.model].split()
    in_pixels = ("f", "fx", "fy", "cx", "cy")
    params = [value * scale if name in in_pixels else value for name, value in zip(names, lens.params, strict=True)]
    return replace(lens, params=tuple(params))


def _check_views(capture: Capture) -> None:
    """Refuses focal lengths that no camera has."""
    for lens in dict.fromkeys(capture.lenses):
        if lens.model not in PARAMETERS:
            continue
        for focal, side, name in zip(intrinsics(lens)[:2], (lens.width, lens.height), ("width", "height"), strict=True):
            wide = "FISHEYE" in lens.model or lens.model in ("EUCM", "DIVISION", "SIMPLE_DIVISION", "FOV")
            most = 360.0 if wide else WIDEST
            angle = np.degrees(side / focal if wide else 2 * np.arctan2(side, 2 * focal)) if focal > 0 else np.inf
            if not NARROWEST <= angle <= most:
                photo = capture.names[capture.lenses.index(lens)]
                raise UserError(
                    f"The camera of {photo} in {capture.folder} has a focal length of {focal:g} at a {name} of {side}",
                    f"It is in pixels and above 0; a {lens.model} camera sees {NARROWEST:g} to {most:g} degrees",
                    "Correct it: a focal length in shares of the width, or in millimetres, must be changed into pixels",
                )


def _say_cut(capture: Capture) -> None:
    """A word if undistorted photos keep little of the photos."""
    distorted = {lens for lens in capture.lenses if lens.model in PARAMETERS and not is_pinhole(lens)}
    kept = {lens: undistorted(lens)[4] / lens.width for lens in distorted}
    little = [name for name, lens in zip(capture.names, capture.lenses, strict=True) if kept.get(lens, 1.0) < KEPT]
    if little:
        log.warning(
            "%s: %d of %d photos keep less than %g %% of their width when they are undistorted, first %s (%.0f %%): "
            "check the calibration",
            capture.folder,
            len(little),
            len(capture.names),
            100 * KEPT,
            little[0],
            100 * kept[capture.lenses[capture.names.index(little[0])]],
        )


def _turned(capture: Capture) -> Capture:
    """The capture with its cameras turned about x, if only so they see the points; a word if they do not see them."""
    finite = capture.points[np.isfinite(capture.points).all(1)]
    if len(finite) == 0 or any(lens.model not in PARAMETERS for lens in capture.lenses):
        return capture
    rng = np.random.default_rng(0)
    points = finite[rng.permutation(len(finite))[:SAMPLE]]
    some = rng.permutation(len(capture.names))[:SAMPLE]
    c2w, lenses = capture.c2w[some], [capture.lenses[i] for i in some]
    seen = _seen_by(c2w, lenses, points)
    now = float((seen > 0).mean())
    if now >= MANY:
        return capture
    if now < UNSEEN and (_seen_by(c2w @ FROM_OPENGL, lenses, points) > 1).mean() >= SEEN:
        log.warning(
            "%s: the photos see the points only if their cameras are turned about x, and so they are: the poses seem "
            "to be in OpenCV's axes (y down, z ahead) where OpenGL's (y up, z back) belong, or the other way round",
            capture.folder,
        )
        return replace(capture, c2w=capture.c2w @ FROM_OPENGL)
    guess = _guess(c2w, lenses, points, at_least=max(LIKELY * len(c2w), 3 * seen.mean()))
    if guess or now < UNSEEN:
        log.warning(
            "%s: %.0f %% of the points are in view of any photo: %s",
            capture.folder,
            100 * now,
            guess or "poses, points or focal lengths are wrong",
        )
    return capture


def _guess(
    c2w: Float[np.ndarray, "N 4 4"], lenses: list[Lens], points: Float[np.ndarray, "P 3"], *, at_least: float
) -> str | None:
    """What may be wrong with poses or points, if they would be in view of so many cameras on average without it."""
    inverse = np.linalg.inv(c2w)
    inverses = [inverse, FROM_OPENGL @ inverse, inverse @ FROM_OPENGL, FROM_OPENGL @ inverse @ FROM_OPENGL]
    inverted = [_seen_by(poses, lenses, points) for poses in inverses]
    turned = [_seen_by(c2w, lenses, turn(points)) for turn in WORLDS]
    best = max(*inverted, *turned, key=np.mean)
    if best.mean() < at_least or (best > 1).mean() < SEEN:
        return None
    if any(best is seen for seen in inverted):
        return "the matrices seem to go from world to camera; invert them"
    return "the points seem to lie in a world with other axes than the poses; export both from one program"


def _seen_by(
    c2w: Float[np.ndarray, "N 4 4"], lenses: list[Lens], points: Float[np.ndarray, "P 3"]
) -> Int[np.ndarray, "P"]:
    """How many of the cameras see each point, distortion left aside."""
    counts = np.zeros(len(points), np.int64)
    for pose, lens in zip(np.linalg.inv(c2w), lenses, strict=True):
        fx, fy, cx, cy = intrinsics(lens)
        x, y, z = (points @ pose[:3, :3].T + pose[:3, 3]).T
        with np.errstate(all="ignore"):
            u, v = fx * x / z + cx, fy * y / z + cy
        counts += (z > 0) & (u > 0) & (u < lens.width) & (v > 0) & (v < lens.height)
    return counts
