"""Weights of the hub: only data, shown with their licence, and byte for byte what the hub says they are."""

import hashlib
import json
import logging
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from difix3d.difix import DifixPipeline, load_difix
from difix3d.difix import hub as hub_module
from difix3d.errors import UserError

UNET = "unet/diffusion_pytorch_model.safetensors"


def _published(name, content):
    """The hash that the hub gives: of Git LFS for weights, of Git for what is small."""
    git = hashlib.sha1(b"blob %d\0" % len(content) + content)
    return (hashlib.sha256(content) if name.endswith(".safetensors") else git).hexdigest()


@pytest.fixture
def server(golden, tmp_path, monkeypatch):
    """A hub of one repository on this machine. ``damaged`` says how many times the UNet comes with a flipped bit."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, commit = golden / "tiny_difix_ref", "0" * 40
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    names = [{"rfilename": name} for name in files]
    hashes = {name: _published(name, content) for name, content in files.items()}
    tree = [
        {"type": "file", "path": name, "size": len(content), "oid": hashes[name]}
        | ({"lfs": {"size": len(content), "oid": hashes[name], "pointerSize": 9}} if len(hashes[name]) == 64 else {})
        for name, content in files.items()
    ]

    class Handler(BaseHTTPRequestHandler):
        damaged, asked = 0, 0

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            if "me/difix" not in self.path:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            name = self.path.partition(f"/resolve/{commit}/")[2]
            about = tree if "/tree/" in self.path else {"id": "me/difix", "sha": commit, "siblings": names}
            content = files[name] if name else json.dumps(about).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashes.get(name)}"')
            self.end_headers()
            if self.command == "HEAD":
                return
            Handler.asked += bool(name)
            if name == UNET and Handler.damaged:
                Handler.damaged -= 1
                content = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
            self.wfile.write(content)

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    Handler.words = {"endpoint": f"http://127.0.0.1:{listening.server_port}", "cache_dir": tmp_path / "hub"}
    yield Handler
    listening.shutdown()


def test_a_bit_that_flipped_on_the_way(server, caplog):
    server.damaged = 1
    pipe = DifixPipeline.from_pretrained("me/difix", **server.words)
    assert f"{UNET} is damaged: me/difix is downloaded again" in caplog.text
    assert isinstance(pipe, DifixPipeline)
    asked = server.asked
    caplog.clear()
    DifixPipeline.from_pretrained("me/difix", **server.words)
    assert server.asked == asked
    assert "damaged" not in caplog.text


def test_a_hub_that_gives_other_bytes_than_it_says(server):
    server.damaged = 9
    with pytest.raises(UserError, match=rf"{UNET} is not what the hub says.*downloaded again"):
        DifixPipeline.from_pretrained("me/difix", **server.words)


def test_a_copy_that_changed_since(server, caplog):
    """Its time tells; what has not changed is not read again."""
    folder = hub_module.fetch("me/difix", **server.words)
    blob = (folder / UNET).resolve()
    content = blob.read_bytes()
    blob.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    assert hub_module.fetch("me/difix", **server.words) == folder
    assert f"{UNET} is damaged" in caplog.text
    assert (folder / UNET).read_bytes() == content


@pytest.fixture
def hub(monkeypatch, golden, tmp_path):
    """A hub with one repository; ``calls`` holds what was asked of it."""
    cached, calls = [], []

    def snapshot_download(repo_id, **kwargs):
        calls.append((repo_id, kwargs))
        if repo_id != "nvidia/difix_ref":
            raise LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder.\nMore.")
        folder = tmp_path / "snapshot"
        if not folder.exists():
            folder.mkdir()
            for path in (golden / "tiny_difix_ref").iterdir():
                (folder / path.name).symlink_to(path)
            (folder / "README.md").write_text("---\nlicense: some-licence\n---\n")
        cached.append(repo_id)
        return str(folder)

    monkeypatch.setattr(hub_module, "snapshot_download", snapshot_download)
    monkeypatch.setattr(hub_module, "_answers", lambda url: True)
    monkeypatch.setattr(hub_module, "try_to_load_from_cache", lambda repo, *_, **__: "file" if repo in cached else None)
    return calls


def test_a_hub_id_is_downloaded_without_code_and_its_licence_is_shown_once(hub, caplog):
    with caplog.at_level(logging.WARNING, logger="difix3d"):
        pipe = DifixPipeline.from_pretrained("nvidia/difix_ref", trust_remote_code=True, revision="main")
        load_difix("nvidia/difix_ref", device="cpu")
    assert isinstance(pipe, DifixPipeline)
    assert [record.message for record in caplog.records if "licence" in record.message] == [
        "nvidia/difix_ref: weights under their own licence (some-licence), see https://huggingface.co/nvidia/difix_ref"
    ]
    assert hub[0][1]["revision"] == "main"
    assert "trust_remote_code" not in hub[0][1]
    from fnmatch import fnmatch

    for name, wanted in {
        "unet/diffusion_pytorch_model.safetensors": True,
        "vae/config.json": True,
        "scheduler/scheduler_config.json": True,
        "tokenizer/merges.txt": True,
        "vae/autoencoder_kl.py": False,
        "pipeline.py": False,
        "unet/diffusion_pytorch_model.bin": False,
        "sd_turbo.safetensors": False,
    }.items():
        assert any(fnmatch(name, pattern) for pattern in hub[0][1]["allow_patterns"]) is wanted, name


def test_a_damaged_copy_of_the_hub_s_is_downloaded_again(hub, golden, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "copy"
    shutil.copytree(golden / "tiny_difix_ref", folder)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])

    def snapshot_download(repo_id, **options):
        if options.get("force_download"):
            file.write_bytes(whole)
        return str(folder)

    monkeypatch.setattr(hub_module, "snapshot_download", snapshot_download)
    monkeypatch.setattr(hub_module, "_answers", lambda url: True)
    DifixPipeline.from_pretrained("nvidia/difix_ref")
    assert f"{file} is damaged: nvidia/difix_ref is downloaded again" in caplog.text


def test_without_a_home_nothing_is_downloaded(hub, monkeypatch):
    monkeypatch.setattr(hub_module, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
    with pytest.raises(UserError, match="no home folder to keep nvidia/difix_ref in.*HF_HOME"):
        DifixPipeline.from_pretrained("nvidia/difix_ref")
    assert not hub


def test_offline_or_unknown(hub):
    with pytest.raises(UserError, match=r"nobody/nothing is no file or folder here, and the hub .*pass the folder"):
        DifixPipeline.from_pretrained("nobody/nothing")


def test_a_name_that_is_neither_path_nor_id():
    with pytest.raises(UserError, match="no file or folder here"):
        DifixPipeline.from_pretrained("a/b/c d")


def test_a_repository_that_the_hub_does_not_have(server):
    with pytest.raises(UserError, match=r"the hub does not give it \(it has no such repository, or not for you\)"):
        hub_module.fetch("nobody/nothing", **server.words)


def test_a_hub_that_says_nothing(server, monkeypatch):
    """As behind a firewall that lets packets vanish: what was downloaded is used, for the rest nobody waits long."""
    monkeypatch.setattr(hub_module, "PATIENCE", 0.2)
    folder = hub_module.fetch("me/difix", **server.words)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        words = server.words | {"endpoint": f"http://127.0.0.1:{mute.getsockname()[1]}"}
        assert hub_module.fetch("me/difix", **words) == folder
        with pytest.raises(UserError, match=r"the hub does not give it \(no answer within 0.2 s\)"):
            hub_module.fetch("nobody/nothing", **words)
