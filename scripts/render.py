"""Same as ``difix3d render``: see ``python scripts/render.py --help``."""

from difix3d.cli import run

if __name__ == "__main__":
    run("render")
