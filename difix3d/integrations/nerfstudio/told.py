"""What people can put right, said without the traceback that nerfstudio's commands would print."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nerfstudio.utils.rich_utils import CONSOLE

from difix3d.errors import UserError


def say(text: str) -> None:
    """Prints a line of ours among nerfstudio's, as it is."""
    CONSOLE.print(f"difix3d: {text}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def told() -> Iterator[None]:
    """Within, a :class:`UserError` ends the program by one paragraph and the status 2.

    In other threads than the main one (the viewer's) it is raised as it is: to end these would end nothing.
    """
    try:
        yield
    except UserError as error:
        if threading.current_thread() is not threading.main_thread():
            raise
        say(str(error))
        raise SystemExit(2) from None
