"""The controls of a client's picture."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import viser

from difix3d.errors import UserError
from difix3d.images import to_uint8
from difix3d.types import View
from difix3d.viewer.pictures import LAYERS

Renderer = Literal["server", "browser (splats)"]
Fixing = Literal["off", "on", "split"]

RENDERERS: tuple[Renderer, ...] = get_args(Renderer)
FIXING: tuple[Fixing, ...] = get_args(Fixing)
LEAST, LARGEST = 160, 1920
"""Long side of a picture in pixels: what may be asked for."""


class ViewTab:
    """What is shown, how large, and whether it is fixed.

    Args:
        client: whose.
        why_no_fixer: why the fixer cannot be used; empty if it can.
        trust: whether the fixer at first leaves alone what photos agree with.
        side: long side of the pictures at rest, in pixels.
        changed: is called when the picture changes.
    """

    def __init__(
        self, client: viser.ClientHandle, *, why_no_fixer: str, trust: bool, side: int, changed: Callable[[], None]
    ):
        gui: Any = client.gui  # mypy takes viser's values for read-only
        self.renderer = gui.add_dropdown(
            "Renderer", RENDERERS, hint="server: the exact picture; browser: fluid on a weak server, without layers"
        )
        self.layer = gui.add_dropdown("Layer", LAYERS)
        self.side = gui.add_slider(
            "Pixels", LEAST, LARGEST, 1, side, hint="Long side of the picture when the camera rests"
        )
        with gui.add_folder("Fixer"):
            self.fixing = gui.add_dropdown("Fixer", FIXING, visible=not why_no_fixer)
            self.share = gui.add_slider(
                "Divider", 0.0, 1.0, 0.005, 0.5, visible=False, hint="Or drag the white grip in the picture"
            )
            self.trust = gui.add_checkbox(
                "Keep what photos agree with",
                trust,
                visible=not why_no_fixer,
                hint="Off: every fixed pixel, as in the paper",
            )
            if why_no_fixer:
                gui.add_markdown(f"{why_no_fixer}. Give one by `--fixer WEIGHTS`: a hub id, a folder or a checkpoint.")
            self._reference_title = gui.add_markdown("", visible=False)
            self._reference = gui.add_image(np.zeros((2, 2, 3), np.uint8), visible=False)
        self.status = gui.add_markdown("")
        self._shown: int | None = None
        for handle in (self.renderer, self.layer, self.side, self.fixing, self.share, self.trust):
            handle.on_update(lambda _: changed())
        self.fixing.on_update(lambda _: setattr(self.share, "visible", self.fixing.value == "split"))

    def long_side(self) -> int:
        """Of the picture at rest, in pixels.

        Raises:
            UserError: the browser asks for more than the server gives; the slider goes back.
        """
        asked = self.side.value
        if not LEAST <= asked <= LARGEST:
            self.side.value = LARGEST if asked > LARGEST else LEAST
            raise UserError(f"The browser asks for pictures of {asked} pixels", f"They have {LEAST} to {LARGEST}")
        return int(asked)

    def show_reference(self, photo: View | None) -> None:
        """The photo that the fixer looked at, beside the picture; ``None`` for none."""
        if photo is None:
            self._reference_title.visible = self._reference.visible = False
            return
        if photo.index != self._shown:
            stride = max(1, max(photo.image.shape[:2]) // 480)
            self._reference.image = to_uint8(photo.image[::stride, ::stride])
            self._reference_title.content = f"Reference photo: {photo.name}"
            self._shown = photo.index
        self._reference_title.visible = self._reference.visible = True

    def next_of(self, handle: Any) -> None:
        """The next option of a drop-down, for hot keys."""
        options = handle.options
        handle.value = options[(options.index(handle.value) + 1) % len(options)]
