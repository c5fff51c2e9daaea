"""torchvision beside a torch that was built for CPUs."""

from importlib.util import find_spec
from typing import Any

SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[Any] = []


def define_missing() -> None:
    """Makes torchvision importable, if there is one: where it is installed, transformers and others import it.

    Its wheel on PyPI for Linux expects a CUDA build of torch: beside another one its own operators are not loaded, and
    it ends in an error where it describes two of them. Nothing here calls these, so that their names are enough. Where
    torchvision is whole (macOS, CUDA, a wheel for CPUs) nothing is changed.
    """
    if find_spec("torchvision") is None:
        return
    import torch

    if torch.version.cuda is not None:
        return
    try:
        import torchvision
    except RuntimeError:  # operator torchvision::nms does not exist
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(name + SIGNATURE)
        _libraries.append(library)  # they last as long as it does
        import torchvision  # noqa: F401
