"""Splatfacto runs of nerfstudio: their settings read as data, their tensors without unpickling anything else."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from difix3d.errors import UserError
from difix3d.files import check_file, load_json, read_json
from difix3d.gaussians.sound import sound, up_to_degree_3
from difix3d.gaussians.transform import transform
from difix3d.types import Gaussians

CONFIG, TRANSFORMS = "config.yml", "dataparser_transforms.json"
CHECKPOINTS, SUFFIX = "nerfstudio_models", ".ckpt"
LARGEST = 1_000_000
"""Bytes, at most, of the settings, and of what says which tensors a checkpoint holds."""
PREFIX = "_model.gauss_params."
WIDTHS = {"means": 3, "quats": 4, "scales": 3, "opacities": 1, "features_dc": 3}
"""Numbers of each splat, by nerfstudio's names; ``features_rest`` besides."""
ROWS = {0, 3, 8, 15, 24}
"""Rows of ``features_rest``, degrees 0 to 4."""
EXPORT = "Train again, or export the run by ns-export gaussian-splat"
WAS_APPLIED = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]]
"""What older versions of nerfstudio did to the worlds of COLMAP models without writing it down."""


@dataclass(frozen=True)
class NerfstudioRun:
    """Where things of a run are.

    Attributes:
        config: its ``config.yml``; the rest of the run lies beside it.
        method: nerfstudio's name of it.
        capture: the folder of the data.
        cameras: inside of it, the cameras as nerfstudio read them; ``None`` if their format is not one of ours.
        applied: from the world of the data before nerfstudio turned it to that of the cameras.
        antialiased: whether it is drawn so.
    """

    config: Path
    method: str
    capture: Path
    cameras: Path | None
    applied: Float[np.ndarray, "4 4"]
    antialiased: bool


def is_nerfstudio_run(path: Path) -> bool:
    """Whether a path is meant as the settings of a run of nerfstudio, or as one of its checkpoints."""
    return path.name == CONFIG or path.suffix == SUFFIX


def settings_of(path: Path) -> Path:
    """The settings of a run, by these or a checkpoint."""
    return path if path.name == CONFIG else path.parent.parent / CONFIG


def checkpoint_of(path: Path, step: int | None = None) -> Path:
    """The checkpoint of a run after a step, by the number in its name; the newest by default.

    Args:
        path: the run's settings; a checkpoint is itself.

    Raises:
        UserError: there is none.
    """
    folder = settings_of(path).parent / CHECKPOINTS
    if path.suffix == SUFFIX and step is None:
        return path
    found = sorted(folder.glob(f"step-*{SUFFIX}"))
    if not found:
        raise UserError(
            f"There is no step-*{SUFFIX} in {folder}",
            "nerfstudio saves it after --steps-per-save, or at the end",
            "Train on, or export the run by ns-export gaussian-splat",
        )
    chosen = found[-1] if step is None else folder / f"step-{step:09d}{SUFFIX}"
    if chosen not in found:
        names = ", ".join(file.stem.removeprefix("step-").lstrip("0") or "0" for file in found)
        raise UserError(
            f"There is no {chosen}",
            f"The run has checkpoints of these steps: {names}. nerfstudio keeps the newest only, unless it is told "
            "--save-only-latest-checkpoint False",
            "Choose one of these, or leave out --step for the newest",
        )
    return chosen


class _Data(yaml.SafeLoader):
    """YAML in which objects of Python are their values, and are never made."""


def _plain(loader: _Data, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return suffix or node.value


_Data.add_multi_constructor("tag:yaml.org,2002:python/", _plain)


def read_nerfstudio_run(path: Path) -> NerfstudioRun:
    """The settings of a run.

    Args:
        path: its ``config.yml``, or a checkpoint.

    Raises:
        UserError: there is none, or it is not what nerfstudio writes.
    """
    path = settings_of(path)
    check_file(path)
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        settings = yaml.load(path.read_text("utf-8"), Loader=_Data)
        manager, model = (settings["pipeline"][part] for part in ("datamanager", "model"))
        parser = manager["dataparser"]
        data = next(filter(None, (settings.get("data"), manager.get("data"), parser.get("data"))))
        kind, method = _text(parser["_target"]).rpartition(".")[2], _text(settings["method_name"])
        data = _path(data)
        capture = data.parent if data.suffix == ".json" else data
        cameras, applied = None, np.eye(4)
        if kind == "ColmapDataParser":
            cameras = _path(parser["colmap_path"])
        elif kind == "Nerfstudio":
            cameras = Path(data.name if data.suffix == ".json" else "transforms.json")
            applied[:3] = _applied(capture, capture / cameras)
        return NerfstudioRun(path, method, capture, cameras, applied, model.get("rasterize_mode") == "antialiased")
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}", cure="Pass the config.yml of a run of nerfstudio") from error
    except (yaml.YAMLError, OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration,
            RecursionError) as error:  # fmt: skip
        raise UserError(
            f"{path} cannot be read as settings of nerfstudio ({type(error).__name__}: {str(error)[:200]})",
            "It is what ns-train wrote, with data, pipeline.datamanager and pipeline.model",
            "Pass the config.yml of a run of Splatfacto, or export the run by ns-export gaussian-splat",
        ) from error


def _text(value: Any) -> str:
    """What must be text; a list of lists that aliases make endless would never end as one."""
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} stands for a name")
    return value


def _path(value: Any) -> Path:
    return Path(*map(_text, value if isinstance(value, list) else [value]))


def _applied(capture: Path, transforms: Path) -> Float[np.ndarray, "3 4"]:
    """How nerfstudio turned the world of the cameras before it wrote them."""
    content = load_json(transforms) if transforms.is_file() else {}
    written = content.get("applied_transform") if isinstance(content, dict) else None
    if written is None:
        written = WAS_APPLIED if (capture / "colmap" / "sparse" / "0").exists() else np.eye(4)[:3]
    return np.asarray(written, np.float64).reshape(3, 4)


def read_nerfstudio(path: Path) -> Gaussians:
    """The model of a run of Splatfacto, or of a method that is built on it.

    Args:
        path: its ``config.yml``, for the newest ``nerfstudio_models/step-*.ckpt`` beside it; or one of these.

    Returns:
        The model in the world of the cameras that nerfstudio read.

    Raises:
        UserError: the run is damaged, or of another method.
    """
    run = read_nerfstudio_run(path)
    checkpoint = checkpoint_of(path)
    splats = _tensors(checkpoint, run.method)
    count = len(splats["means"])
    model = Gaussians(
        means=splats["means"],
        quats=splats["quats"],
        scales=splats["scales"],
        opacities=splats["opacities"][:, 0],
        sh0=splats["features_dc"][:, None],
        shN=up_to_degree_3(splats["features_rest"].reshape(count, -1, 3)),
    )
    to_cameras = run.applied @ np.linalg.inv(_from_data(run.config.parent / TRANSFORMS))
    return transform(sound(model, checkpoint), to_cameras)


def _from_data(path: Path) -> Float[np.ndarray, "4 4"]:
    """The similarity from the data's world to nerfstudio's own."""
    content = read_json(path)
    try:
        scale, there = float(content["scale"]), np.eye(4)
        there[:3] = np.asarray(content["transform"], np.float64).reshape(3, 4)
        turn = there[:3, :3]
        if not (0 < scale < np.inf and np.isfinite(there).all() and np.linalg.det(turn) > 0):
            raise ValueError("no rotation, or no scale")
        if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3):
            raise ValueError("no rotation")
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error})",
            "It has a transform (rotation and translation, 3 x 4) and a scale",
            EXPORT,
        ) from error
    there[:3] *= scale
    return there


class _Passed:
    """Stands in for numpy's numbers, learning rates among a checkpoint's state of optimizers: nobody asks for them."""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, _: Any) -> None:
        pass


PASSED: list[Any] = [
    (_Passed, name)
    for name in (
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
    )
]


@contextmanager
def _only(allowed: list[Any]) -> Iterator[None]:
    """Within, ``torch.load`` makes just these objects; what others have allowed, under the same names, comes back."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with torch.serialization.safe_globals(allowed):
            yield
    finally:
        torch.serialization.add_safe_globals(others)


def _tensors(path: Path, method: str) -> dict[str, Tensor]:
    """The splats of a checkpoint by nerfstudio's names, as float32.

    Raises:
        UserError: it is damaged, holds other objects than tensors and plain values, or is of another method.
    """
    state = _state(path)
    named = {name: state.get(PREFIX + name) for name in (*WIDTHS, "features_rest")}
    splats = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if lost := named.keys() - splats.keys():
        raise UserError(
            f"{path} has no {', '.join(sorted(lost))}: it is of the method {method}",
            "Splats are read from runs of splatfacto and difix3d-splatfacto",
            "Render other runs by ns-render",
        )
    count, held = len(splats["means"]) if splats["means"].ndim else 0, path.stat().st_size
    for name, value in splats.items():
        rows = () if name in WIDTHS else value.shape[1:2]
        shape = (count, *rows, WIDTHS.get(name, 3))
        if tuple(value.shape) != shape or not {*rows} <= ROWS or value.numel() * value.itemsize > held:
            raise UserError(
                f"{path} has {name} of the shape {tuple(value.shape)}",
                f"Of {count:,} splats it is {shape}, with 0, 3, 8, 15 or 24 rows of features_rest, and in the file",
                EXPORT,
            )
    return {name: value.float().contiguous() for name, value in splats.items()}


def _state(path: Path) -> dict[str, Any]:
    """The state of the pipeline in a checkpoint."""
    check_file(path)
    try:
        with ZipFile(path) as archive:
            size = max((item.file_size for item in archive.infolist() if item.filename.endswith(".pkl")), default=0)
        if size > LARGEST:
            raise ValueError(f"its data.pkl has {size:,} bytes, of {LARGEST:,} at most")
        with _only(PASSED):
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["pipeline"]
        return {name.removeprefix("module."): value for name, value in state.items()}
    except Exception as error:  # of a damaged file, torch raises what its unpickler stumbles upon
        first = str(error).partition("\n")[0][:200]
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {first})",
            "A checkpoint is a whole file of tensors and plain values; other objects are never unpickled",
            EXPORT,
        ) from error
