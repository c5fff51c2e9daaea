"""Same as ``difix3d train-difix``: see ``python scripts/train_difix.py --help``."""

from difix3d.cli import run

if __name__ == "__main__":
    run("train-difix")
