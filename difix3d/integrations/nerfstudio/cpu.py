"""nerfstudio's commands on a machine without CUDA, to try things out.

``python -m difix3d.integrations.nerfstudio.cpu train difix3d --machine.device-type cpu ...`` is ``ns-train difix3d``
with three adaptations, which nothing else makes: torchvision's missing operators are defined (its usual wheel expects a
CUDA build of torch), Splatfacto's tensors stay where they are, and its rasterisation is ours.
"""

import sys
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from difix3d.difix.operators import define_missing
from difix3d.errors import UserError
from difix3d.render import rasterize
from difix3d.render.strategies import strategy_info
from difix3d.types import Cameras, Gaussians

COMMANDS = {
    "train": "nerfstudio.scripts.train",
    "eval": "nerfstudio.scripts.eval",
    "render": "nerfstudio.scripts.render",
    "export": "nerfstudio.scripts.exporter",
    "viewer": "nerfstudio.scripts.viewer.run_viewer",
}
"""By what follows ``ns-`` in their names."""


def adapt() -> None:
    """Makes nerfstudio run without CUDA; before it is imported.

    Raises:
        UserError: there is a GPU.
    """
    if torch.cuda.is_available():
        raise UserError(
            "This machine has a CUDA device", "Here nerfstudio is run without one", "Use ns-train and its sisters"
        )
    define_missing()
    torch.Tensor.cuda = lambda self, *_args, **_options: self  # type: ignore[method-assign]
    vars(import_module("nerfstudio.models.splatfacto"))["rasterization"] = rasterization


def rasterization(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    near_plane: float,
    far_plane: float,
    render_mode: str,
    sh_degree: int | None,
    absgrad: bool,
    rasterize_mode: str,
    **_others: Any,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """gsplat's function of this name, as Splatfacto calls it: colours (and depth), alpha, and what densifiers read."""
    if sh_degree is None:
        raise UserError("--pipeline.model.sh-degree is 0", "Without CUDA it is at least 1")
    gaussians = Gaussians(means, quats, scales.log(), opacities.logit(), colors[:, :1], colors[:, 1:])
    one = torch.ones(1, dtype=torch.long)
    cameras = Cameras(torch.linalg.inv(viewmats), Ks, width * one, height * one)
    out = rasterize(
        gaussians,
        cameras,
        sh_degree=sh_degree,
        antialiased=rasterize_mode == "antialiased",
        depth=render_mode == "RGB+ED",
        absgrad=absgrad,
        near=near_plane,
        far=far_plane,
    )
    image = out.rgb if out.depth is None else torch.cat([out.rgb, out.depth], -1)
    return image, out.alpha, strategy_info(out.info)


def main() -> None:
    """Runs the command of that name."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        raise SystemExit(f"usage: python -m difix3d.integrations.nerfstudio.cpu {{{','.join(COMMANDS)}}} ...")
    try:
        adapt()
    except UserError as error:
        raise SystemExit(f"difix3d: {error}") from None
    sys.argv = [f"ns-{name}", *sys.argv[2:]]
    import_module(COMMANDS[name]).entrypoint()


if __name__ == "__main__":
    main()
