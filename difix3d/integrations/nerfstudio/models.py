"""nerfstudio's models with one more output: the frame, fixed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nerfstudio.cameras.cameras import Cameras as NsCameras
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.models.nerfacto import NerfactoModel, NerfactoModelConfig
from nerfstudio.models.splatfacto import SplatfactoModel, SplatfactoModelConfig
from torch import Tensor

FIXED = "rgb_fixed"
"""Name of the output."""

Fix = Callable[[NsCameras, dict[str, Any]], Tensor]
"""A camera and what the model renders there in, the fixed frame [H, W, 3] out."""


class Outputs(dict[str, Any]):
    """A model's outputs, among which the fixed frame is made when it is asked for: it takes far longer than they."""

    def __init__(self, outputs: dict[str, Any], fixed: Callable[[], Tensor]):
        super().__init__(outputs)
        self[FIXED] = None
        self._fixed = fixed

    def __getitem__(self, name: str) -> Any:
        if name == FIXED and super().__getitem__(name) is None:
            self[FIXED] = self._fixed()
        return super().__getitem__(name)


class WithFixed:
    """Adds the fixed frame to a model's outputs.

    Attributes:
        fix: makes it; ``None``: there is no such output.
        measured: whether it is measured beside the render.
    """

    fix: Fix | None = None
    measured = False

    def get_outputs_for_camera(self, camera: NsCameras, obb_box: Any = None) -> dict[str, Any]:
        """As in nerfstudio, with :data:`FIXED`."""
        outputs = super().get_outputs_for_camera(camera, obb_box)  # type: ignore[misc]
        fix = self.fix
        return outputs if fix is None else Outputs(outputs, lambda: fix(camera, outputs))

    def get_image_metrics_and_images(
        self, outputs: dict[str, Any], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """As in nerfstudio; the fixed frame's have names that begin with ``fixed_``."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)  # type: ignore[misc]
        if self.measured and FIXED in outputs:
            instead = dict(outputs) | {"rgb": outputs[FIXED]}
            more, pictures = super().get_image_metrics_and_images(instead, batch)  # type: ignore[misc]
            metrics |= {f"fixed_{name}": value for name, value in more.items()}
            images |= {"fixed": pictures["img"]}
        return metrics, images


class DifixNerfactoModel(WithFixed, NerfactoModel):
    """Nerfacto, with the fixed frame."""


class DifixSplatfactoModel(WithFixed, SplatfactoModel):
    """Splatfacto, with the fixed frame."""

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """nerfstudio's. To load a checkpoint makes new parameters; here the optimizers, which would go on with the old
        ones, get them, and their moments with them."""
        optimizers = training_callback_attributes.optimizers
        for name, new in self.gauss_params.items() if optimizers is not None else ():
            optimizer = optimizers.optimizers[name]
            (old,) = optimizer.param_groups[0]["params"]
            if old is not new:
                optimizer.param_groups[0]["params"] = optimizers.parameters[name] = [new]
                if old in optimizer.state:
                    optimizer.state[new] = optimizer.state.pop(old)
        return super().get_training_callbacks(training_callback_attributes)


@dataclass
class DifixNerfactoModelConfig(NerfactoModelConfig):
    """Nerfacto's options."""

    _target: type = field(default_factory=lambda: DifixNerfactoModel)


@dataclass
class DifixSplatfactoModelConfig(SplatfactoModelConfig):
    """Splatfacto's options."""

    _target: type = field(default_factory=lambda: DifixSplatfactoModel)
