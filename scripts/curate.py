"""Same as ``difix3d curate``: see ``python scripts/curate.py --help``."""

from difix3d.cli import run

if __name__ == "__main__":
    run("curate")
