"""The downloader against a local server that cuts connections, has no ranges, or lies."""

import http.server
import io
import json
import shutil
import stat
import threading
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from difix3d.cli.download import download as command
from difix3d.download import remote
from difix3d.download.scenes import SCENES, Archive, PublicScene, download
from difix3d.errors import UserError

RNG = np.random.default_rng(0)
FILES = {
    f"{scene}/{folder}/{k}.jpg": RNG.bytes(40_000 // int(folder[7:] or 1))
    for scene in ("yard", "hall")
    for folder in ("images", "images_2", "images_4")
    for k in range(3)
} | {"yard/sparse/0/cameras.bin": b"cameras" * 1000, "hall/sparse/0/cameras.bin": b"other"}


def make_zip(files: dict[str, bytes], links: tuple[str, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_STORED if name.endswith(".jpg") else zipfile.ZIP_DEFLATED
            if name in links:
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, data)
    return buffer.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content`` at every path; ``cut``: bytes after which each connection breaks off."""

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.headers = content, True, {}
        self.cut: int | None = None
        self.sent = self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/scenes.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content, start = self.server.content, 0
        self.server.requests += 1
        if self.server.ranges and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        for key, value in self.server.headers.items():
            self.send_header(key, value)
        self.end_headers()
        end = len(content) if self.server.cut is None else min(len(content), start + self.server.cut)
        try:
            for at in range(start, end, 4096):
                self.wfile.write(content[at : min(at + 4096, end)])
                self.server.sent += min(4096, end - at)
        except OSError:
            pass

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(remote, "BACK_OFF", 0.001)
    monkeypatch.setattr(remote, "CHUNK", 4096)
    server = Server(make_zip(FILES))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def table(server: Server, **options) -> dict[str, PublicScene]:
    archive = Archive(server.url, "free", **options)
    return {"yard": PublicScene(archive, "yard/", "4"), "hall": PublicScene(archive, "hall/", "2")}


def check_yard(folder: Path, *image_folders: str) -> None:
    for name, data in FILES.items():
        scene, top, *_ = name.split("/")
        if scene == "yard" and (top == "sparse" or top in image_folders):
            assert folder.parent.joinpath(name).read_bytes() == data
    assert {path.name for path in folder.iterdir()} == {"sparse", ".download.json", *image_folders}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.endswith(".part")]


def test_fetches_only_the_scene(server, tmp_path):
    folder = download("yard", tmp_path / "data", scenes=table(server))
    assert folder == tmp_path / "data" / "yard"
    check_yard(folder, "images_4")
    assert download("yard", tmp_path / "data", scenes=table(server)) == folder
    assert not (tmp_path / "data" / "yard.partial").exists()


@pytest.mark.parametrize(
    ("images", "folders"), [("2", ["images_2"]), ("1", ["images"]), ("all", ["images", "images_2", "images_4"])]
)
def test_image_folders(server, tmp_path, images, folders):
    check_yard(download("yard", tmp_path, images, scenes=table(server)), *folders)


def test_more_image_folders_are_added(server, tmp_path):
    download("yard", tmp_path, "4", scenes=table(server))
    check_yard(download("yard", tmp_path, "2", scenes=table(server)), "images_2", "images_4")


def test_a_folder_of_the_users_own_is_left_alone(server, tmp_path):
    (tmp_path / "yard").mkdir()
    assert download("yard", tmp_path, scenes=table(server)) == tmp_path / "yard"
    assert not any((tmp_path / "yard").iterdir())
    assert server.requests == 0


def test_goes_on_when_connections_break(server, tmp_path):
    server.cut = 5000
    check_yard(download("yard", tmp_path, "all", scenes=table(server)), "images", "images_2", "images_4")
    assert server.requests > 20


def test_a_member_is_read_on_one_connection(server, tmp_path):
    download("yard", tmp_path, "all", scenes=table(server))
    assert server.requests < 12


def test_starts_again_where_it_was(server, tmp_path):
    partial = tmp_path / "yard.partial" / "images"
    partial.mkdir(parents=True)
    whole, damaged = "yard/images/0.jpg", "yard/images/1.jpg"
    (partial / "0.jpg").write_bytes(FILES[whole])
    (partial / "1.jpg").write_bytes(FILES[damaged][:-1] + b"?")
    before = (partial / "0.jpg").stat().st_mtime_ns
    folder = download("yard", tmp_path, "1", scenes=table(server))
    check_yard(folder, "images")
    assert (folder / "images" / "0.jpg").stat().st_mtime_ns == before


def test_what_an_earlier_call_began_and_this_one_does_not_want(server, tmp_path):
    (tmp_path / "yard.partial" / "images_2").mkdir(parents=True)
    (tmp_path / "yard.partial" / "images_2" / "0.jpg").write_bytes(FILES["yard/images_2/0.jpg"])
    check_yard(download("yard", tmp_path, "4", scenes=table(server)), "images_4")


def test_gives_up_when_nothing_comes(server, tmp_path):
    server.cut = 0
    with pytest.raises(UserError, match=r"broke off 6 times.*put the archive at"):
        download("yard", tmp_path, scenes=table(server))


def test_a_file_that_changes_meanwhile(server, tmp_path, monkeypatch):
    server.cut = 5000
    real, answers = Server.finish_request, iter(range(1000))

    def finish(self, *args):
        self.headers = {"ETag": f'"{next(answers)}"'}
        real(self, *args)

    monkeypatch.setattr(Server, "finish_request", finish)
    with pytest.raises(UserError, match="changed while it was read"):
        download("yard", tmp_path, scenes=table(server))


def test_without_ranges_the_archive_is_fetched(server, tmp_path):
    server.ranges = False
    check_yard(download("yard", tmp_path, scenes=table(server)), "images_4")
    assert (tmp_path / "scenes.zip").read_bytes() == server.content
    requests = server.requests
    download("hall", tmp_path, scenes=table(server))  # from the archive that is there now
    assert server.requests == requests


def test_without_ranges_a_broken_connection_starts_over(server, tmp_path):
    server.ranges, server.cut = False, 50_000
    with pytest.raises(UserError, match=r"broke off 6 times.*cannot go on in the middle"):
        download("yard", tmp_path, scenes=table(server))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_wrong_size(server, tmp_path, ranges):
    server.ranges = ranges
    with pytest.raises(UserError, match=r"has [\d,]+ bytes\. 1,234 are expected"):
        download("yard", tmp_path, scenes=table(server, size=1234))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"sha256": "0" * 64}, {}])
def test_wrong_checksum(server, tmp_path, options):
    server.ranges = False
    server.headers = {} if options else {"x-goog-hash": "crc32c=AAAAAA==,md5=AAAAAAAAAAAAAAAAAAAAAA=="}
    with pytest.raises(UserError, match="another checksum"):
        download("yard", tmp_path, scenes=table(server, **options))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_named(server, tmp_path):
    at = server.content.index(FILES["yard/images_4/1.jpg"]) + 100
    server.content = server.content[:at] + b"corrupted" + server.content[at + 9 :]
    with pytest.raises(UserError, match=r"damaged: .*yard/images_4/1\.jpg"):
        download("yard", tmp_path, scenes=table(server))
    assert not (tmp_path / "yard").exists()
    assert not list(tmp_path.rglob("1.jpg"))
    assert leftovers(tmp_path) == []


def test_not_a_zip(server, tmp_path):
    server.content = b"<html>not here</html>" * 100
    with pytest.raises(UserError, match=r"scenes\.zip is damaged"):
        download("yard", tmp_path, scenes=table(server))


@pytest.mark.parametrize("name", ["yard/../../evil", "yard//etc/evil", "yard/C:/evil", "yard/a\\..\\evil"])
def test_paths_that_lead_out(server, tmp_path, name):
    server.content = make_zip(FILES | {name: b"evil"})
    with pytest.raises(UserError, match="leads out of its folder"):
        download("yard", tmp_path / "data", scenes=table(server))
    assert not list(tmp_path.rglob("*evil*"))


def test_links(server, tmp_path):
    server.content = make_zip(FILES | {"yard/link": b"/etc/passwd"}, links=("yard/link",))
    with pytest.raises(UserError, match="a link"):
        download("yard", tmp_path, scenes=table(server))


def test_no_such_folder_in_the_archive(server, tmp_path):
    server.content = make_zip({"hall/a": b""})
    with pytest.raises(UserError, match="no files below yard/"):
        download("yard", tmp_path, scenes=table(server))


@pytest.mark.parametrize("ranges", [True, False])
def test_full_disk(server, tmp_path, monkeypatch, ranges):
    server.ranges = ranges
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(UserError, match=r"0\.00 GB|no room"):
        download("yard", tmp_path, scenes=table(server))
    assert list(tmp_path.iterdir()) == []


def test_unknown_name(tmp_path):
    with pytest.raises(UserError, match="Did you mean garden"):
        download("gardn", tmp_path)


def test_offline(server, tmp_path):
    scenes = table(server)
    server.server_close()
    with pytest.raises(UserError, match=r"cannot be read: .*put the archive at .*scenes\.zip or the unpacked"):
        download("yard", tmp_path, scenes=scenes)


def test_an_archive_at_hand_is_used(server, tmp_path):
    (tmp_path / "scenes.zip").write_bytes(server.content)
    check_yard(download("yard", tmp_path, scenes=table(server)), "images_4")
    assert server.requests == 0


def test_marker_tells_the_archive(server, tmp_path):
    folder = download("yard", tmp_path, scenes=table(server))
    assert json.loads((folder / ".download.json").read_text()) == {"archive": server.url, "images": ["images_4"]}


def test_command(capsys, tmp_path):
    command(["--list"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in SCENES)
    assert "licence" in listed
    (tmp_path / "garden").mkdir()
    command(["garden", "--data-dir", str(tmp_path)])
    assert str(tmp_path / "garden") in capsys.readouterr().out
    with pytest.raises(UserError, match="No scene is named"):
        command([])
