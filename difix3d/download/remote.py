"""A file on a web server, read like one on the disk: by HTTP ranges, and on through connections that break."""

import base64
import hashlib
import http.client
import io
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from difix3d.console import Bar, console
from difix3d.errors import UserError
from difix3d.files import beside

CHUNK = 1 << 20
ATTEMPTS = 6
"""Requests in a row that may fail before it is given up; any byte that arrives starts the count again."""

BACK_OFF = 1.0
"""Seconds before the second attempt; doubled before each further one."""

TIMEOUT = 30.0
_BROKEN = (OSError, http.client.HTTPException)  # URLError and time-outs are OSErrors


class RemoteFile(io.RawIOBase):
    """Seekable and read-only; reading on from where the last read ended stays on one connection."""

    def __init__(self, url: str, response: http.client.HTTPResponse, size: int, cure: str):
        self._url = url
        self._size = size
        self._cure = cure
        self._version = _version(response)
        self._response: http.client.HTTPResponse | None = response
        self._at = self._position = 0  # of the connection; of the reader

    @classmethod
    def open(cls, url: str, size: int | None, cure: str) -> io.BufferedReader | None:
        """The file, or ``None`` if its server has no ranges.

        Args:
            url: of the file.
            size: bytes that it should have, if known.
            cure: what the user can do if the server cannot be reached.

        Raises:
            UserError: the server cannot be reached, or the size is another.
        """
        response = request(url, 0, cure, attempts=3)
        if response.status != 206:
            response.close()
            return None
        actual = int(response.headers["Content-Range"].rsplit("/", 1)[-1])
        check_size(url, actual, size)
        return io.BufferedReader(cls(url, response, actual, cure), CHUNK)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer) -> int:
        wanted = min(len(buffer), self._size - self._position)
        for attempt in range(ATTEMPTS):
            if wanted <= 0:
                return 0
            try:
                data = self._connection().read(wanted)
            except _BROKEN:
                data = b""
            if data:
                buffer[: len(data)] = data
                self._position = self._at = self._position + len(data)
                return len(data)
            self._disconnect()
            time.sleep(BACK_OFF * 2**attempt)
        where = f"at byte {self._position:,} of {self._size:,}"
        raise UserError(f"{self._url} broke off {ATTEMPTS} times {where}", cure=self._cure)

    def close(self) -> None:
        self._disconnect()
        super().close()

    def _connection(self) -> http.client.HTTPResponse:
        """A response whose next byte is the reader's."""
        if self._response is not None and self._at != self._position:
            self._disconnect()
        if self._response is None:
            self._response, self._at = request(self._url, self._position, self._cure), self._position
            if self._response.status != 206 or _version(self._response) != self._version:
                raise UserError(f"{self._url} changed while it was read", cure="Start again")
        return self._response

    def _disconnect(self) -> None:
        if self._response is not None:
            self._response.close()
        self._response = None


def request(url: str, start: int, cure: str, attempts: int = ATTEMPTS) -> http.client.HTTPResponse:
    """Asks for a file from the byte ``start`` on, several times if need be.

    Raises:
        UserError: the server cannot be reached or refuses.
    """
    question = urllib.request.Request(url, headers={"Range": f"bytes={start}-", "User-Agent": "difix3d"})
    for attempt in range(attempts):
        try:
            return urllib.request.urlopen(question, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise _unreachable(url, f"{error.code} {error.reason}", cure) from error
            reason: object = f"{error.code} {error.reason}"
        except _BROKEN as error:
            reason = getattr(error, "reason", error)
        if attempt + 1 < attempts:
            time.sleep(BACK_OFF * 2**attempt)
    raise _unreachable(url, reason, cure)


def fetch_whole(url: str, path: Path, size: int | None, sha256: str | None, cure: str) -> None:
    """Fetches a file from a server without ranges: from the start again if the connection breaks.

    Checks the size, the SHA-256 if there is one, and the MD5 that Google's servers send.

    Raises:
        UserError: no connection, not enough space, or a file that is not the one expected.
    """
    part = beside(path)  # a browser may keep its own NAME.part there
    try:
        for attempt in range(ATTEMPTS):
            response = request(url, 0, cure)
            length = response.headers["Content-Length"]
            expected = int(length) if length else size
            check_size(url, expected, size)
            if expected and expected > shutil.disk_usage(path.parent).free:
                raise UserError(
                    f"{path.parent} has no room for {expected / 1e9:.2f} GB",
                    "The server gives the whole archive only",
                    "Free some space or choose another --data-dir",
                )
            with response, part.open("wb") as sink:
                digests = _copy(response, sink, path.name, expected)
            if expected is None or part.stat().st_size == expected:
                break
            time.sleep(BACK_OFF * 2**attempt)
        else:
            limit = "Its server cannot go on in the middle of a file"
            raise UserError(f"{url} broke off {ATTEMPTS} times", limit, cure)
        md5 = _goog_md5(response)
        if (sha256 and digests[0] != sha256) or (md5 and digests[1] != md5):
            limit = "The file is damaged or was replaced"
            raise UserError(f"{url} has another checksum than it should", limit, "Start again")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _copy(response: http.client.HTTPResponse, sink, name: str, total: int | None) -> tuple[str, str]:
    """Copies until the end or until the connection breaks; SHA-256 and MD5 of what came."""
    digests = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with progress(name, total) as advance:
        while True:
            try:
                chunk = response.read(CHUNK)
            except _BROKEN:
                chunk = b""
            if not chunk:
                return digests[0].hexdigest(), digests[1].hexdigest()
            sink.write(chunk)
            for digest in digests:
                digest.update(chunk)
            advance(len(chunk))


def check_size(url: str, actual: int | None, expected: int | None) -> None:
    if expected is not None and actual != expected:
        raise UserError(
            f"{url} has {actual:,} bytes" if actual is not None else f"{url} does not say its size",
            f"{expected:,} are expected, so that it is another file than it was",
            "Update difix3d, or fetch the scene by hand",
        )


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar of bytes on a terminal, one line at the start elsewhere; yields the function that moves it on."""
    if not console.is_terminal:
        console.print(f"downloading {label}" + (f", {total / 1e6:,.1f} MB" if total else ""))
    with Bar(label, total, of="bytes") as bar:
        yield bar.advance


def _version(response: http.client.HTTPResponse) -> tuple[str | None, str | None, str]:
    """What tells whether two answers come from the same file."""
    headers = response.headers
    return headers["ETag"], headers["Last-Modified"], (headers["Content-Range"] or "").rsplit("/", 1)[-1]


def _goog_md5(response: http.client.HTTPResponse) -> str | None:
    for entry in ",".join(response.headers.get_all("x-goog-hash") or []).split(","):
        kind, _, value = entry.strip().partition("=")
        if kind == "md5":
            return base64.b64decode(value).hex()
    return None


def _unreachable(url: str, reason: object, cure: str) -> UserError:
    return UserError(f"{url} cannot be read: {reason}", "The scene has to come from there or from your disk", cure)
