"""Same as ``difix3d curate``: see ``python scripts/curate.py --help``."""

from difix3d.cli import dispatch

if __name__ == "__main__":
    dispatch("curate")
