"""Same as ``difix3d render``: see ``python scripts/render.py --help``."""

from difix3d.cli import dispatch

if __name__ == "__main__":
    dispatch("render")
