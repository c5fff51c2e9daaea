"""Clients that send nonsense, or leave at any moment: the viewer goes on serving, quietly, and keeps nothing of them.

``DIFIX3D_CLIENTS=1000 pytest tests/viewer/test_viewer_hostile.py`` tries that many.
"""

import logging
import math
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import websockets
from fake_browser import CAMERA, FakeBrowser, opened, until

from difix3d.viewer.guard import OneLine

CLIENTS = int(os.environ.get("DIFIX3D_CLIENTS", "0"))
CAMERAS = (
    {"position": "here"},
    {"wxyz": []},
    {"fov": "wide"},
    {"image_width": None},
    {"fov": math.nan},
    {"fov": 0.0},
    {"position": [math.inf, 0.0, 0.0]},
    {"position": [1e300, 0.0, 0.0]},
    {"wxyz": [0.0, 0.0, 0.0, 0.0]},
    {"image_width": 10**9, "image_height": 10**9},
    {"image_width": 0},
    {"image_height": -5},
    {"look_at": [0.0, -3.0, 0.5]},
)


def raw(viewer, number):
    """Bytes that are no request of HTTP, or the beginning of one."""
    with socket.create_connection(("127.0.0.1", viewer.server.get_port())) as wire:
        wire.sendall(
            (b"", os.urandom(200), b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"\x16\x03\x01", b"A" * 70_000)[number % 5]
        )


def frames(viewer, number):
    """Frames that are no messages, too long, or broken off."""
    with opened(viewer.url) as client:
        if number % 3 == 0:
            client.socket.sendall(b"\x82\xff" + b"\x7f" * 8 + os.urandom(100))  # 9 exabytes are to follow
        else:
            client.send((os.urandom(300), bytes(20_000_000))[number % 3 - 1])


def messages(viewer, number):
    """Messages of a right form with contents that make no sense."""
    with opened(viewer.url) as client:
        contents = [CAMERA | CAMERAS[number % len(CAMERAS)], {"type": "Nothing"}, {"type": "ViewerCameraMessage"}]
        contents += [{"type": "GuiUpdateMessage", "uuid": "none", "updates": {"value": [[]]}}, [1], "x", None]
        contents += [
            {"type": "GuiUpdateMessage", "uuid": uuid, "updates": {"value": {"a": 1}}} for uuid in handles(viewer)
        ]
        client.send(msgspec.msgpack.encode(contents[0]))
        time.sleep(0.2)  # that it is drawn
        for content in contents:
            client.send(msgspec.msgpack.encode(content))


def handles(viewer):
    """Of controls of some client, so that a message reaches what listens to them."""
    return [
        uuid
        for session in list(viewer.sessions.values())
        for uuid in list(session.client.gui._gui_input_handle_from_uuid)
    ][:4]


def leaving(viewer, number):
    """A browser that goes while its picture is drawn."""
    browser = FakeBrowser(viewer.url)
    if number % 2:
        browser.move((0.1 * number % 3, -2.0, 0.4))
    browser.drop()


def strangers(viewer, number):
    """Pages of others."""
    headers = ({"Origin": "https://evil.example"}, {"Origin": "null"})[number % 2]
    with pytest.raises(websockets.exceptions.InvalidStatus), opened(viewer.url, additional_headers=headers):
        pass


KINDS = (raw, frames, messages, leaving, strangers)


def come(viewer, clients):
    """So many hostile clients, of all kinds in turn, who may be shown the door."""
    for number in range(clients):
        with suppress(websockets.ConnectionClosed, OSError):
            KINDS[number % len(KINDS)](viewer, number // len(KINDS))


def held():
    """What a program may have too many of: threads (but for viser's pool, which has 32 at most), and open files."""
    files = Path("/proc/self/fd")
    threads = [thread for thread in threading.enumerate() if not thread.name.startswith("ThreadPoolExecutor")]
    return len(threads), len(list(files.iterdir())) if files.exists() else 0


@pytest.mark.parametrize("clients", [25, pytest.param(CLIENTS or 400, marks=pytest.mark.slow)])
def test_hostile_clients_change_nothing(serve, join, capfd, caplog, clients):
    for kept in [item for item in logging.getLogger("websockets.server").filters if isinstance(item, OneLine)]:
        kept._next = 0.0
    viewer = serve()
    stays, session = join(viewer)
    come(viewer, len(KINDS))
    until(lambda: len(viewer.sessions) == 1)
    before = held()
    come(viewer, clients)
    until(lambda: list(viewer.sessions.values()) == [session])
    until(lambda: all(now <= then + 2 for now, then in zip(held(), before, strict=True)))
    seen = stays.received
    stays.move((1.0, -2.0, 0.3))
    until(lambda: stays.received > seen)
    join(viewer)
    assert "Traceback" not in capfd.readouterr().err
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [record.getMessage() for record in lines if record.exc_info]
    assert len(lines) <= 2 + clients / 10


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_browsers_that_come_and_go_leave_nothing(serve, join, times):
    viewer = serve()
    join(viewer)
    before = None
    for number in range(times):
        browser = FakeBrowser(viewer.url)
        until(lambda: len(viewer.sessions) == 2)
        browser.drop() if number % 2 else browser.close()
        until(lambda: len(viewer.sessions) == 1)
        before = before or held()
    until(lambda: all(now <= then + 2 for now, then in zip(held(), before, strict=True)))
