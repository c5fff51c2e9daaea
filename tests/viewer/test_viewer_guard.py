"""Who may talk to the viewer."""

import http.client
import logging
import os
import socket
from urllib.parse import urlsplit

import pytest
import viser
import websockets.exceptions
from fake_browser import FakeBrowser, until
from websockets.sync.client import connect

from difix3d.errors import UserError
from difix3d.viewer.guard import Guard, OneLine, free_port


def dial(viewer, **headers):
    """Opens a connection as a page would, with these headers; closes it. Its own Host goes last and wins."""
    port, host = viewer.server.get_port(), headers.pop("Host", None)
    url = f"ws://{host}" if host else f"ws://127.0.0.1:{port}"
    with (
        socket.create_connection(("127.0.0.1", port)) as wire,
        connect(url, sock=wire, additional_headers=headers, subprotocols=[f"viser-v{viser.__version__}"]),
    ):
        pass


def get(viewer, path="/", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", viewer.server.get_port(), timeout=20)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.body = response.read().decode(errors="replace")
    return response


@pytest.fixture
def viewer(serve):
    return serve()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "192.168.0.7", socket.gethostname()])
def test_its_own_pages_are_served(viewer, name):
    port = viewer.server.get_port()
    dial(viewer)
    dial(viewer, Host=f"{name}:{port}", Origin=f"http://{name}:{port}")
    assert get(viewer, Host=f"{name}:{port}").status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:1", "null", "", "file://", "http://["])
def test_other_pages_are_refused(viewer, origin):
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        dial(viewer, Origin=origin)
    assert refused.value.response.status_code == 403
    assert b"may not use this viewer" in refused.value.response.body
    assert get(viewer, Origin=origin).status == 403
    assert not viewer.sessions


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "["])
def test_names_that_were_made_to_point_here_are_refused(viewer, name):
    """DNS rebinding: the page's origin and the host agree then."""
    answer = get(viewer, Host=f"{name}:8080", Origin=f"http://{name}:8080")
    assert answer.status in (400, 403)
    assert not viewer.sessions


def test_a_proxy_can_be_allowed(serve):
    viewer = serve(origins=("https://machine.example",))
    dial(viewer, Host="machine.example", Origin="https://machine.example")
    dial(viewer, Origin="https://machine.example")
    with pytest.raises(websockets.exceptions.InvalidStatus):
        dial(viewer, Origin="https://other.example")
    for wrong in ("machine.example", "*", "ftp://machine", "https://machine.example/page"):
        with pytest.raises(UserError, match="is no origin"):
            Guard("127.0.0.1", (wrong,))


def test_from_elsewhere_a_browser_brings_the_token_once(serve):
    viewer = serve(host="0.0.0.0")
    assert "/?token=" in viewer.url
    assert get(viewer).status == 403
    assert "Open the address that the viewer has printed" in get(viewer).body
    assert get(viewer, "/?token=wrong").status == 403
    parts = urlsplit(viewer.url)
    first = get(viewer, f"{parts.path}?{parts.query}")
    assert first.status == 303
    cookie = first.getheader("Set-Cookie").split(";")[0]
    assert get(viewer, Cookie=cookie).status == 200
    dial(viewer, Cookie=cookie)
    with pytest.raises(websockets.exceptions.InvalidStatus):
        dial(viewer, Cookie=cookie[:-1])


def test_clients_that_are_no_browsers_cost_a_line_not_a_traceback(viewer, capfd, caplog):
    logger = logging.getLogger("websockets.server")
    for kept in [item for item in logger.filters if isinstance(item, OneLine)]:
        kept._next = 0.0
    port = viewer.server.get_port()
    rng = os.urandom
    for number in range(30):
        with socket.create_connection(("127.0.0.1", port)) as wire:
            wire.sendall((b"", rng(200), b"GET / HTTP/1.1\r\n", b"\x16\x03\x01" + rng(90))[number % 4] + b"\r\n\r\n")
    browser = FakeBrowser(viewer.url)
    until(lambda: viewer.sessions)
    browser._socket.socket.sendall(rng(500))
    until(lambda: not viewer.sessions)
    assert "Traceback" not in capfd.readouterr().err
    assert sum("faulty connections" in record.getMessage() for record in caplog.records) <= 2
    assert not any(record.exc_info for record in caplog.records if record.name == "websockets.server")
    FakeBrowser(viewer.url)
    until(lambda: viewer.sessions)


def test_a_port_or_host_that_cannot_be_had_is_said_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) != port
    for host in ("203.0.113.7", "no such name", "x" * 300):
        with pytest.raises(UserError, match="The viewer cannot listen on .*--host 127.0.0.1"):
            free_port(host, 8080)


def test_without_ports_left_it_is_said(monkeypatch):
    def taken(*_):
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket.socket, "bind", taken)
    with pytest.raises(UserError, match="port 65535 .Address already in use"):
        free_port("127.0.0.1", 65535)


def test_a_viser_that_starts_otherwise_is_not_run_unguarded():
    with pytest.raises(UserError, match="starts its server in a way"), Guard("127.0.0.1").watching():
        pass
