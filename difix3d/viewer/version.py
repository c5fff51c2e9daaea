"""The viser that the viewer is written for: beside nerfstudio an older one is installed, with which all else works."""

from importlib.metadata import version

from packaging.version import Version

from difix3d.errors import UserError

NEEDED = "1.1"


def check_viser() -> None:
    """Refuses an older viser.

    Raises:
        UserError: what to install, and what that means for nerfstudio.
    """
    found = version("viser")
    if Version(found) < Version(NEEDED):
        raise UserError(
            f"The viewer cannot start with viser {found}",
            f"It needs viser {NEEDED} or newer; nerfstudio 1.1 wants 0.2.7",
            "Install difix3d without [nerfstudio] in an environment of its own, or look at the run with ns-viewer",
        )
