"""The interactive viewer, in a browser: it shows a model, and a training as it goes.

Beside nerfstudio an older viser is installed than the viewer needs; with it all else works, and this package says what
to do.
"""

from importlib.metadata import version

from packaging.version import Version

from difix3d.errors import UserError

NEEDED = "1.1"

if Version(version("viser")) < Version(NEEDED):  # before what is written for it is imported
    raise UserError(
        f"The viewer cannot start with viser {version('viser')}",
        f"It needs viser {NEEDED} or newer; nerfstudio 1.1 wants 0.2.7",
        "Install difix3d without [nerfstudio] in an environment of its own, or look at the run with ns-viewer",
    )

from difix3d.viewer.server import Viewer, watch  # noqa: E402
from difix3d.viewer.training_tab import Monitor  # noqa: E402
from difix3d.viewer.viewer_model import ViewerModel, model_of_ply, model_of_run  # noqa: E402

__all__ = ["Monitor", "Viewer", "ViewerModel", "model_of_ply", "model_of_run", "watch"]
