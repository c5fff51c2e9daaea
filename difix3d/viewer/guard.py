"""Who may talk to the viewer: pages that it served itself, under a name of this machine; from elsewhere with a token.

Any page that is open in the same browser can reach a server of this machine, and one whose name is made to point here
(DNS rebinding) even counts as the server's own. So the names in Host and Origin are checked, before anything else.
"""

import ipaddress
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import websockets.asyncio.server
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from difix3d.errors import UserError

LAST_PORT = 65_535
TRIED_PORTS = 100
PATIENCE = 10.0
"""Seconds that a server may take to answer for the first time."""
QUIET_SECONDS = 10.0
"""Between two lines about clients that are no browsers."""

_starting = threading.Lock()


class Guard:
    """Looks at each request before the server does.

    Args:
        host: address that the viewer listens on.
        origins: further places whose pages may use it, as of a proxy: ``https://machine.example``.

    Attributes:
        token: what the first request from a browser has to bring; empty if only this machine can reach the viewer.

    Raises:
        UserError: an origin is none.
    """

    def __init__(self, host: str, origins: tuple[str, ...] = ()):
        for origin in origins:
            parts = _parts(origin)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
                raise UserError(f"{origin!r} is no origin", "One is like https://machine.example or http://name:8080")
        self.origins = {origin.rstrip("/").lower() for origin in origins}
        self.names = {"localhost", socket.gethostname().lower(), f"{socket.gethostname().lower()}.local", host.lower()}
        self.names |= {urlsplit(origin).hostname or "" for origin in self.origins}
        self.token = "" if _is_loopback(host) else secrets.token_urlsafe(16)
        self._cookie = f"difix3d-{secrets.token_hex(4)}"  # cookies of all ports of a machine lie together

    def refusal(self, request: Request) -> str:
        """Why a request is not answered; empty if it is."""
        host = request.headers.get("Host", "").lower()
        name = _parts(f"//{host}").hostname or ""
        if name not in self.names and not _is_address(name):
            return f"This viewer is not called {name!r}. Start it with --host or --allow-origin for that name."
        origin = request.headers.get("Origin")
        if origin is not None and origin.lower() not in self.origins and _parts(origin.lower()).netloc != host:
            return f"Pages of {origin!r} may not use this viewer. --allow-origin lets them."
        if self.token and not secrets.compare_digest(self._brought(request), self.token):
            return "Open the address that the viewer has printed: it holds a token."
        return ""

    def _brought(self, request: Request) -> str:
        try:
            cookies = SimpleCookie(request.headers.get("Cookie", ""))
        except CookieError:
            return ""
        return cookies[self._cookie].value if self._cookie in cookies else ""

    def answer(self, request: Request) -> Response | None:
        """A response in place of the server's own, or ``None`` for that."""
        if self.token and parse_qs(_parts(request.path).query).get("token") == [self.token]:
            cookie = f"{self._cookie}={self.token}; HttpOnly; SameSite=Lax; Path=/"
            return _response(HTTPStatus.SEE_OTHER, "", {"Location": "/", "Set-Cookie": cookie})
        refusal = self.refusal(request)
        return _response(HTTPStatus.FORBIDDEN, refusal + "\n", {}) if refusal else None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While viser's server is started: it asks this guard first, from then on.

        viser (1.1) has no hook for that, so that the function that it starts its server with is exchanged meanwhile.

        Raises:
            UserError: viser did not call it: nothing would be guarded.
        """
        started = []
        serve = websockets.asyncio.server.serve

        def guarded(*args: Any, process_request: Callable[..., Any] | None = None, **options: Any) -> Any:
            def process(connection: Any, request: Request) -> Any:
                answer = self.answer(request)
                return answer if answer is not None or process_request is None else process_request(connection, request)

            started.append(True)
            return serve(*args, process_request=process, **options)

        with _starting:
            websockets.asyncio.server.serve = guarded  # type: ignore[assignment, misc]
            try:
                yield
            finally:
                websockets.asyncio.server.serve = serve  # type: ignore[misc]
        if not started:
            raise UserError(
                "This version of viser starts its server in a way that difix3d does not know",
                "Any web page could use the viewer",
                "Install viser 1.1",
            )


class OneLine(logging.Filter):
    """Clients that are no browsers (scanners, broken connections): a line now and then, in place of tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0
        self._count = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        self._count += 1
        now = time.monotonic()
        if now < self._next:
            return False
        error = record.exc_info[1] if record.exc_info else None
        text = f"{record.getMessage()}{f' ({error})' if error else ''}".splitlines()[0]
        record.msg, record.args = f"viewer: {self._count} faulty connections, the last: {text}", ()
        record.exc_info = record.exc_text = None
        self._next, self._count = now + QUIET_SECONDS, 0
        return True


def free_port(host: str, port: int) -> int:
    """The port, or the next one that is free; 0 stays 0.

    Raises:
        UserError: the host is no address of this machine, or none of the ports can be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise _no_server(host, port, str(error)) from None
    reason = ""
    for number in range(port, min(port + TRIED_PORTS, LAST_PORT) + 1):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address[0], number, *address[2:]))
                return number
            except OSError as error:
                reason = error.strerror or str(error)
    raise _no_server(host, port, reason)


def wait_for_answer(host: str, port: int) -> None:
    """Until the server answers, so that its address can be printed; at most for :data:`PATIENCE`."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        connection = HTTPConnection(address, port, timeout=max(0.1, end - time.monotonic()))
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()


def _no_server(host: str, port: int, reason: str) -> UserError:
    return UserError(
        f"The viewer cannot listen on {host}, port {port} ({reason})",
        "The host has to be an address of this machine, and the port free",
        "Try --host 127.0.0.1, and --port 0 for any free port",
    )


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host.lower() == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _response(status: HTTPStatus, text: str, headers: dict[str, str]) -> Response:
    content = text.encode()
    headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(content)), **headers}
    return Response(status.value, status.phrase, Headers(headers), content)
