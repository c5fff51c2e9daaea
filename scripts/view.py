"""Same as ``difix3d view``: see ``python scripts/view.py --help``."""

from difix3d.cli import dispatch

if __name__ == "__main__":
    dispatch("view")
