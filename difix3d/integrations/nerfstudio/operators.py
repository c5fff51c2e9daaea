"""torchvision beside a torch that was built for CPUs."""

import torch

SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[torch.library.Library] = []


def define_missing() -> None:
    """Makes torchvision importable; before transformers and others look for it.

    Its wheel on PyPI for Linux expects a CUDA build of torch: beside another one its own operators are not loaded, and
    it ends in an error where it describes two of them. Nothing here calls these, so that their names are enough. Where
    torchvision is whole (macOS, CUDA, a wheel for CPUs) nothing is changed.

    Raises:
        ImportError: there is no torchvision.
    """
    try:
        import torchvision
    except RuntimeError:  # operator torchvision::nms does not exist
        if torch.version.cuda is not None:
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(name + SIGNATURE)
        _libraries.append(library)  # they last as long as it does
        import torchvision  # noqa: F401
