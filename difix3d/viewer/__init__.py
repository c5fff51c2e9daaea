"""The interactive viewer, in a browser: it shows a model, and a training as it goes."""

from difix3d.viewer.monitor import Monitor
from difix3d.viewer.server import Viewer, watch
from difix3d.viewer.stage import Stage, stage_of_ply, stage_of_run

__all__ = ["Monitor", "Stage", "Viewer", "stage_of_ply", "stage_of_run", "watch"]
