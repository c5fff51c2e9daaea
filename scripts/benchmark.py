"""Same as ``difix3d benchmark``: see ``python scripts/benchmark.py --help``."""

from difix3d.cli import dispatch

if __name__ == "__main__":
    dispatch("benchmark")
