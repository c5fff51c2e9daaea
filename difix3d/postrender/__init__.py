"""The "+" of Difix3D+: every rendered frame passes through the fixer once more (section 4.3)."""

from difix3d.postrender.behind import MOST_MIXED, PostRender

__all__ = ["MOST_MIXED", "PostRender"]
