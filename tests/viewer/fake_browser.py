"""A browser without a screen: speaks viser's protocol, so that the server can be tested in milliseconds."""

import socket
import threading
import time
from contextlib import suppress

import msgspec
import viser
import websockets
from websockets.sync.client import connect

CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": [1.0, 0.0, 0.0, 0.0],
    "position": [0.0, -3.0, 0.5],
    "fov": 0.8,
    "near": 0.01,
    "far": 1000.0,
    "image_height": 64,
    "image_width": 96,
    "look_at": [0.0, 0.0, 0.0],
    "up_direction": [0.0, 0.0, 1.0],
}


class FakeBrowser:
    """Connects, says where its camera is, and counts what it is sent.

    Args:
        url: of the viewer.
        position, look_at: of the camera; z is up.
        size: (width, height) of the canvas.
    """

    def __init__(self, url, position=(0.0, -3.0, 0.5), look_at=(0.0, 0.0, 0.0), size=(96, 64)):
        self.size, self.received = size, 0
        self._socket = opened(url, open_timeout=20)
        threading.Thread(target=self._listen, daemon=True).start()
        self.move(position, look_at)

    def send(self, message):
        self._socket.send(msgspec.msgpack.encode(message))

    def move(self, position, look_at=(0.0, 0.0, 0.0), fov=0.8, wxyz=None):
        import numpy as np
        import viser.transforms as tf

        if wxyz is None:
            forward = np.array(look_at, float) - position
            forward /= np.linalg.norm(forward)
            right = np.cross(forward, [0.0, 0.0, 1.0])
            right /= np.linalg.norm(right)
            wxyz = tf.SO3.from_matrix(np.stack([right, np.cross(forward, right), forward], 1)).wxyz.tolist()
        place = {"wxyz": wxyz, "position": list(map(float, position)), "fov": fov, "look_at": list(map(float, look_at))}
        self.send(CAMERA | place | {"image_width": self.size[0], "image_height": self.size[1]})

    def set(self, handle, value):
        """As if the user had changed a control."""
        self.send({"type": "GuiUpdateMessage", "uuid": handle._impl.uuid, "updates": {"value": value}})

    def close(self):
        self._socket.close()

    def drop(self):
        """As if the cable were pulled."""
        self._socket.socket.shutdown(socket.SHUT_RDWR)

    def _listen(self):
        with suppress(websockets.ConnectionClosed, OSError):
            for message in self._socket:
                self.received += len(message)


def opened(url, **options):
    """A connection as viser's page makes it."""
    version = f"viser-v{viser.__version__}"
    return connect(url.replace("http", "ws"), subprotocols=[version], max_size=None, **options)


def until(condition, seconds=60.0):
    """Waits for it; fails when it takes longer."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def last(pictures, session):
    """The newest picture that a session sent: its pixels and depth."""
    return pictures[session.client.client_id][-1]
