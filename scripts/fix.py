"""Same as ``difix3d fix``: see ``python scripts/fix.py --help``."""

from difix3d.cli import dispatch

if __name__ == "__main__":
    dispatch("fix")
