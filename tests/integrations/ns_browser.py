"""A browser without a screen for viser 0.2.7, in which nerfstudio's viewer lives."""

import io
import threading
import time
from contextlib import suppress

import msgspec
import numpy as np
import websockets
from PIL import Image
from websockets.sync.client import connect


class Browser:
    """Connects, and keeps what it is sent.

    Attributes:
        messages: by the server, oldest first.
    """

    def __init__(self, port: int):
        self.messages: list[dict] = []
        self._socket = connect(f"ws://127.0.0.1:{port}", max_size=None, open_timeout=20)
        threading.Thread(target=self._listen, daemon=True).start()

    def of(self, kind: str) -> list[dict]:
        """The messages of a kind."""
        return [message for message in list(self.messages) if message["type"] == kind]

    def frustums(self) -> list[str]:
        return [message["name"] for message in self.of("CameraFrustumMessage")]

    def outputs(self) -> list[str]:
        """What the viewer offers to show."""
        offered = [message["updates"].get("options", []) for message in self.of("GuiUpdateMessage")]
        return next((options for options in reversed(offered) if "rgb" in options), [])

    def fly_to(self, frustum: str) -> None:
        """As if the user had clicked on a camera."""
        (position,) = [m["position"] for m in self.of("SetPositionMessage") if m["name"] == frustum][-1:]
        (wxyz,) = [m["wxyz"] for m in self.of("SetOrientationMessage") if m["name"] == frustum][-1:]
        self._send("ViewerCameraMessage", position=position, wxyz=wxyz, fov=0.8, aspect=1.2, look_at=[0.0] * 3,
                   up_direction=[0.0, 0.0, 1.0])  # fmt: skip

    def set(self, label: str, value: object) -> None:
        """As if the user had changed a control."""
        (handle,) = [message["id"] for message in list(self.messages) if message.get("label") == label]
        self._send("GuiUpdateMessage", id=handle, updates={"value": value})

    def picture(self) -> np.ndarray | None:
        """The newest, [H, W, 3]."""
        sent = self.of("BackgroundImageMessage")
        return np.asarray(Image.open(io.BytesIO(sent[-1]["rgb_bytes"]))) if sent else None

    def close(self) -> None:
        self._socket.close()

    def _send(self, kind: str, **fields: object) -> None:
        self._socket.send(msgspec.msgpack.encode({"type": kind, **fields}))

    def _listen(self) -> None:
        with suppress(websockets.ConnectionClosed, OSError):
            for window in self._socket:
                self.messages.extend(msgspec.msgpack.decode(window))


def until(condition, seconds=60.0):
    """Waits for it; fails when it takes longer."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
