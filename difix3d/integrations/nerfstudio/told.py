"""What people can put right, said without the traceback that nerfstudio's commands would print."""

from collections.abc import Iterator
from contextlib import contextmanager

from nerfstudio.utils.rich_utils import CONSOLE

from difix3d.errors import UserError


def say(text: str) -> None:
    """Prints a line of ours among nerfstudio's, as it is."""
    CONSOLE.print(f"difix3d: {text}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def told() -> Iterator[None]:
    """Within, a :class:`UserError` ends the program by one paragraph and the status 2."""
    try:
        yield
    except UserError as error:
        say(str(error))
        raise SystemExit(2) from None
