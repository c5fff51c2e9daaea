"""One client's page: what all parts of its panel share, and how the client is told what happens."""

import logging
from collections.abc import Callable
from typing import Any

import viser

from difix3d.errors import UserError
from difix3d.viewer.viewer_model import ViewerModel

log = logging.getLogger(__name__)


class Page:
    """A browser and what it looks at; a line at the top of its panel for messages and errors: never a dead page.

    Args:
        client: the browser.
        viewer_model: what it looks at.
        changed: is called when the picture changes.

    Attributes:
        gui: of the client.
        overlays: node ``/overlays``, which all frustums hang below.
    """

    def __init__(self, client: viser.ClientHandle, viewer_model: ViewerModel, changed: Callable[[], None]):
        self.client = client
        self.model = viewer_model
        self.changed = changed
        self.gui: Any = client.gui  # mypy takes viser's values for read-only
        self.overlays = client.scene.add_frame("/overlays", show_axes=False)
        self._line = client.gui.add_markdown("", visible=False)
        self._is_error = False

    def say(self, text: str) -> None:
        """Shows a message."""
        self._show(escape(text), error=False)

    def error(self, error: BaseException) -> None:
        """Shows an error, until something succeeds or is said; the traceback of an unexpected one is logged."""
        text = str(error) or type(error).__name__
        if not isinstance(error, UserError):
            log.error("in the viewer", exc_info=error)
            text = f"{type(error).__name__}: {text}"
        self._show(f"**Error:** {escape(text)}", error=True)

    def clear_error(self) -> None:
        """Takes an error away; messages stay."""
        if self._is_error:
            self._line.visible = self._is_error = False

    def attempt(self, action: Callable[[], object]) -> None:
        """Does what a button asks for, and shows what goes wrong."""
        try:
            action()
        except Exception as error:
            self.error(error)

    def attempting(self, action: Callable[[], object]) -> Callable[[object], None]:
        """The same as a callback for viser."""
        return lambda _: self.attempt(action)

    def button(self, label: str, action: Callable[[], object], **options: Any) -> viser.GuiButtonHandle:
        """Adds a button, with viser's options."""
        button = self.client.gui.add_button(label, **options)
        button.on_click(self.attempting(action))
        return button

    def _show(self, text: str, *, error: bool) -> None:
        self._line.content = text
        self._line.visible = True
        self._is_error = error


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    for mark in "\\`*_{}[]<>#|":
        text = text.replace(mark, "\\" + mark)
    return text
