"""Same as ``difix3d download``: see ``python scripts/download.py --help``."""

from difix3d.cli import dispatch

if __name__ == "__main__":
    dispatch("download")
