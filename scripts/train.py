"""Same as ``difix3d train``: see ``python scripts/train.py --help``."""

from difix3d.cli import dispatch

if __name__ == "__main__":
    dispatch("train")
