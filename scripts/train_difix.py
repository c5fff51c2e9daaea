"""Same as ``difix3d train-difix``: see ``python scripts/train_difix.py --help``."""

from difix3d.cli import dispatch

if __name__ == "__main__":
    dispatch("train-difix")
