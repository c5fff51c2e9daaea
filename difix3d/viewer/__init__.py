"""The interactive viewer, in a browser: it shows a model, and a training as it goes."""

from difix3d.viewer.version import check_viser

check_viser()  # before what is written for it is imported

from difix3d.viewer.monitor import Monitor  # noqa: E402
from difix3d.viewer.server import Viewer, watch  # noqa: E402
from difix3d.viewer.viewer_model import ViewerModel, model_of_ply, model_of_run  # noqa: E402

__all__ = ["Monitor", "Viewer", "ViewerModel", "model_of_ply", "model_of_run", "watch"]
