"""Difix of your own: pairs from scenes, training, validation, publishing (docs/training_difix.md)."""
