"""Training a splat model."""

from difix3d.training.config import TrainConfig
from difix3d.training.trainer import Trainer

__all__ = ["TrainConfig", "Trainer"]
