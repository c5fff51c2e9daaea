"""The fixer of a run, by its name."""

from typing import Any

import torch

from difix3d.errors import UserError
from difix3d.types import Fixer

TOGETHER = (4, 2, 1)
"""Frames at a time on a GPU: 28.9, 30.3 and 33.0 ms each on an H200; eight take 28.3."""
ROOM = 0.5
"""Share of a GPU's free memory for these; renders and recordings need some, too."""


def resolve_fixer(name: str, device: torch.device) -> str:
    """``auto`` is the published weights on a GPU, and ``mini`` without, where those take minutes for a picture."""
    if name != "auto":
        return name
    return "nvidia/difix_ref" if device.type == "cuda" else "mini"


def load_fixer(
    name: str, device: torch.device, references: int = 1, *, anchor_colors: bool = True, frozen: bool = False
) -> Fixer | None:
    """Difix by hub id, folder or checkpoint, or ``mini``, ready to run; ``none`` is ``None``.

    Args:
        references: photos that it looks at beside each render.
        anchor_colors: keep the renders' colours.
        frozen: references do not look at the render; see ``DifixPipeline.optimize``.

    Raises:
        UserError: the weights cannot be had (it names the ways out, as nothing is ever trained silently without them),
            or not be frozen.
    """
    if name == "none":
        return None
    from difix3d.difix import DifixFixer, load_difix  # brings diffusers and transformers, which take seconds

    try:
        pipe = load_difix(name, device)
    except UserError as error:
        raise UserError(
            f"The fixer {name!r} cannot be loaded: {error.fact}",
            error.limit,
            "Pass --fixer mini (small weights in the package), --fixer FOLDER (downloaded elsewhere), --fixer with "
            "another hub id, or --fixer none (plain 3DGS)",
        ) from error
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"The GPU has no room for the fixer {name!r}",
            "The published weights take 1.9 GB in 16 bits, and 2 to 6 GB more while they fix",
            "Close other programs on the GPU, or pass --fixer mini (small weights in the package) or --fixer none",
        ) from error
    pipe.optimize(pipe.unet.dtype, frozen_references=frozen)
    return DifixFixer(pipe, device, references=references, anchor_colors=anchor_colors)


def fix_together(fixer: Any, pixels: int, device: torch.device) -> None:
    """Lets Difix fix several frames at a time on a GPU, as its memory allows, where nobody waits for a single one.

    Args:
        pixels: of a frame, or of a tile of it.
    """
    if device.type == "cuda":
        room = ROOM * torch.cuda.mem_get_info(device)[0]
        for count in TOGETHER:
            fixer.batch = count  # on which depends what it needs
            if fixer.needs[1] * pixels <= room:
                return
