"""The controls of a client's picture: what is shown of the model, whether it is fixed, and the box it is cut to."""

from typing import Literal, get_args

import numpy as np
import torch
import viser
from jaxtyping import Float
from torch import Tensor

from difix3d.errors import UserError
from difix3d.gaussians import transform, write_ply
from difix3d.images import to_uint8
from difix3d.types import Gaussians, View
from difix3d.viewer.page import Page
from difix3d.viewer.pictures import LAYERS
from difix3d.viewer.viewer_model import Snapshot, bounds, result_path

Renderer = Literal["server", "browser (splats)"]
Fixing = Literal["off", "on", "split"]

RENDERERS: tuple[Renderer, ...] = get_args(Renderer)
FIXING: tuple[Fixing, ...] = get_args(Fixing)
LEAST, LARGEST = 160, 1920
"""Long side of a picture in pixels: what may be asked for."""
BODY = 0.02
"""Share of the Gaussians that the first box leaves out at each end of each axis: most models have far outliers."""
LARGEST_DOWNLOAD = 200 << 20
"""Bytes of a file that is also sent to the browser."""


class ViewTab:
    """What is shown, how large, and whether it is fixed.

    Args:
        page: whose.
        trust: whether the fixer at first leaves alone what photos agree with.
    """

    def __init__(self, page: Page, *, trust: bool):
        gui, model = page.gui, page.model
        side = 1280 if model.device.type == "cuda" else 640
        why_no_fixer = model.why_no_fixer if model.fixer is None else ""
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
            handle.on_update(lambda _: page.changed())
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


class Crop:
    """The controls of the box, and the model within it.

    Args:
        page: whose.
    """

    def __init__(self, page: Page):
        self._page = page
        self._model = page.model
        self._kept: tuple[tuple, Gaussians] | None = None
        low, high = self._body().numpy()
        gui = page.gui
        with gui.add_folder("Crop and export", expand_by_default=False):
            self.on = gui.add_checkbox("Crop", False, hint="Show and export only what lies within the box")
            self.low = gui.add_vector3("Lowest", low, step=0.01)
            self.high = gui.add_vector3("Highest", high, step=0.01)
            page.button("Box around the model", self._fit)
            self.name = gui.add_text("File", "export")
            page.button("Export .ply", self.export, icon=viser.Icon.DOWNLOAD)
        for handle in (self.on, self.low, self.high):
            handle.on_update(lambda _: self._outline())
            handle.on_update(lambda _: page.changed())

    @property
    def key(self) -> tuple | None:
        """Tells the boxes apart; ``None`` if there is none."""
        return (self.low.value, self.high.value) if self.on.value else None

    def apply(self, snapshot: Snapshot) -> Gaussians:
        """The model, or the part of it within the box if that is on."""
        box = self.key
        if box is None:
            return snapshot.gaussians
        key = (snapshot.number, *box)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, within(snapshot.gaussians, *box)
        return self._kept[1]

    def export(self) -> None:
        """Writes what is shown, in the user's world."""
        path = result_path(self._model.folder / "exports", self.name.value, ".ply")
        model = self.apply(self._model.snapshot)
        write_ply(transform(model, np.linalg.inv(self._model.scene.from_input), dtype=torch.float64), path)
        self._page.say(f"{len(model):,} Gaussians written to {path}")
        if path.stat().st_size <= LARGEST_DOWNLOAD:
            self._page.client.send_file_download(path.name, path.read_bytes())

    def _body(self) -> Float[Tensor, "2 3"]:
        """Lowest and highest corner of a box around the model without its outliers and its backdrop, on the CPU."""
        means = self._model.snapshot.gaussians.means.detach().cpu()
        means = means[means.isfinite().all(1)][:: max(1, len(means) // 100_000)]
        surfaces = self._model.settings.get("surfaces")
        if surfaces is not None and len(means):
            means = means[(means - means.median(0).values).norm(dim=1) < surfaces]
        if len(means) == 0:
            return torch.tensor([[-1.0] * 3, [1.0] * 3])
        return means.quantile(torch.tensor([BODY, 1 - BODY]).to(means), 0)

    def _fit(self) -> None:
        low, high = bounds(self._model.snapshot.gaussians)
        self.low.value, self.high.value = low.numpy(), high.numpy()

    def _outline(self) -> None:
        low, high = np.array(self.low.value), np.array(self.high.value)
        self._page.client.scene.add_box(
            "/crop",
            color=(255, 255, 255),
            dimensions=np.maximum(high - low, 1e-6),
            position=(low + high) / 2,
            wireframe=True,
            visible=self.on.value,
        )


def within(gaussians: Gaussians, low: tuple[float, float, float], high: tuple[float, float, float]) -> Gaussians:
    """The Gaussians whose means lie in a box."""
    means = gaussians.means
    inside = ((means >= torch.tensor(low).to(means)) & (means <= torch.tensor(high).to(means))).all(1)
    return gaussians.map(lambda tensor: tensor[inside])
