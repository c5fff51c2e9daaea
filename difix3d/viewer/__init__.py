"""The interactive viewer, in a browser: it shows a model, and a training as it goes."""

from difix3d.viewer.monitor import Monitor
from difix3d.viewer.server import Viewer, watch
from difix3d.viewer.viewer_model import ViewerModel, model_of_ply, model_of_run

__all__ = ["Monitor", "Viewer", "ViewerModel", "model_of_ply", "model_of_run", "watch"]
