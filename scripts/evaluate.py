"""Same as ``difix3d evaluate``: see ``python scripts/evaluate.py --help``."""

from difix3d.cli import dispatch

if __name__ == "__main__":
    dispatch("evaluate")
