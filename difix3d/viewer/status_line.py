"""What a client is told: in its panel, never as a dead page."""

import logging
from collections.abc import Callable

import viser

from difix3d.errors import UserError

log = logging.getLogger(__name__)


class StatusLine:
    """A line at the top of a client's panel, for messages and errors.

    Args:
        client: whose.
    """

    def __init__(self, client: viser.ClientHandle):
        self._line = client.gui.add_markdown("", visible=False)
        self._is_error = False

    def __call__(self, text: str) -> None:
        """Shows a message."""
        self._show(escape(text), error=False)

    def error(self, error: BaseException) -> None:
        """Shows an error, until something succeeds or is said; the traceback of an unexpected one is logged."""
        if not isinstance(error, UserError):
            log.error("in the viewer", exc_info=error)
        text = str(error) or type(error).__name__
        self._show(
            f"**Error:** {escape(text if isinstance(error, UserError) else f'{type(error).__name__}: {text}')}",
            error=True,
        )

    def clear_error(self) -> None:
        """Takes an error away; messages stay."""
        if self._is_error:
            self._line.visible = self._is_error = False

    def attempt(self, action: Callable[[], None]) -> None:
        """Does what a button asks for, and shows what goes wrong."""
        try:
            action()
        except Exception as error:
            self.error(error)

    def _show(self, text: str, *, error: bool) -> None:
        self._line.content = text
        self._line.visible = True
        self._is_error = error


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    for mark in "\\`*_{}[]<>#|":
        text = text.replace(mark, "\\" + mark)
    return text
