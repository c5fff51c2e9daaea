"""A box that the model is cut to, in one client's pictures and in what it exports."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import viser

from difix3d.gaussians import transform, write_ply
from difix3d.types import Gaussians
from difix3d.viewer.status_line import StatusLine
from difix3d.viewer.viewer_model import Snapshot, ViewerModel, bounds, result_path

BODY = 0.02
"""Share of the Gaussians that the first box leaves out at each end of each axis: most models have far outliers."""
LARGEST_DOWNLOAD = 200 << 20
"""Bytes of a file that is also sent to the browser."""


class Crop:
    """The controls of the box, and the model within it.

    Args:
        client: whose.
        viewer_model: what is cut.
        changed: is called when the picture changes.
        status_line: tells the client something.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        viewer_model: ViewerModel,
        changed: Callable[[], None],
        status_line: StatusLine,
    ):
        self._client = client
        self._model = viewer_model
        self._status_line = status_line
        self._kept: tuple[tuple, Gaussians] | None = None
        low, high = self._body()
        gui: Any = client.gui  # mypy takes viser's values for read-only
        with gui.add_folder("Crop and export", expand_by_default=False):
            self.on = gui.add_checkbox("Crop", False, hint="Show and export only what lies within the box")
            self.low = gui.add_vector3("Lowest", low, step=0.01)
            self.high = gui.add_vector3("Highest", high, step=0.01)
            fit = gui.add_button("Box around the model")
            self.name = gui.add_text("File", "export")
            export = gui.add_button("Export .ply", icon=viser.Icon.DOWNLOAD)
        for handle in (self.on, self.low, self.high):
            handle.on_update(lambda _: self._outline())
            handle.on_update(lambda _: changed())
        fit.on_click(lambda _: self._fit())
        export.on_click(lambda _: status_line.attempt(self.export))

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
        self._status_line(f"{len(model):,} Gaussians written to {path}")
        if path.stat().st_size <= LARGEST_DOWNLOAD:
            self._client.send_file_download(path.name, path.read_bytes())

    def _body(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """A box around the model without its outliers and its backdrop."""
        means = self._model.snapshot.gaussians.means.detach().cpu()
        means = means[means.isfinite().all(1)][:: max(1, len(means) // 100_000)]
        surfaces = self._model.settings.get("surfaces")
        if surfaces is not None and len(means):
            means = means[(means - means.median(0).values).norm(dim=1) < surfaces]
        if len(means) == 0:
            return (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)
        low, high = means.quantile(BODY, 0).tolist(), means.quantile(1 - BODY, 0).tolist()
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def _fit(self) -> None:
        low, high = bounds(self._model.snapshot.gaussians)
        self.low.value, self.high.value = low.numpy(), high.numpy()

    def _outline(self) -> None:
        low, high = np.array(self.low.value), np.array(self.high.value)
        self._client.scene.add_box(
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
