"""Weights of the Hugging Face hub: only data, and byte for byte what the hub says they are."""

import hashlib
import inspect
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from huggingface_hub import ModelCard, snapshot_download, try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE, HF_HUB_OFFLINE
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open

from difix3d import files
from difix3d.console import Bar
from difix3d.errors import UserError
from difix3d.places import cache_folder

MINI = "mini"
"""The name of the small weights that come with the package, for which nothing has to be downloaded."""
PROMPTS = "prompt_embeds.safetensors"
FILES = ["*/config.json", "*/*_config.json", "*/model.safetensors", "*/diffusion_pytorch_model*.safetensors*"]
FILES += ["tokenizer/*.json", "tokenizer/*.txt", "README.md", "LICENSE*", PROMPTS]
CHUNK = 1 << 22
PATIENCE = 10.0
"""Seconds, at most, until the hub's first word; its own client would wait for it without an end."""

logger = logging.getLogger(__name__)


def fetch(source: str | Path, **hub: Any) -> Path:
    """The folder itself, or the one that a hub id is downloaded to; the licence is shown at the first download.

    ``mini`` is the folder in the package.
    """
    inspect.signature(snapshot_download).bind(str(source), **hub)  # a misspelt option is a TypeError for folders too
    if source == MINI:
        return Path(__file__).parent / MINI
    files.check_name(Path(source))
    if Path(source).exists():
        return Path(source)
    where = {key: hub[key] for key in ("cache_dir", "revision") if key in hub}
    if HF_HUB_CACHE.startswith("~") and "cache_dir" not in hub:
        raise UserError(f"There is no home folder to keep {source} in", "", "Set HOME or HF_HOME to a folder")
    wanted: dict[str, Any] = {"allow_patterns": FILES, "ignore_patterns": ["*.fp16.*"], **hub}
    try:
        silent = not (HF_HUB_OFFLINE or hub.get("local_files_only") or _answers(hub.get("endpoint") or ENDPOINT))
        if silent:
            wanted["local_files_only"] = True
        known = try_to_load_from_cache(str(source), "unet/config.json", **where)
        folder = Path(snapshot_download(str(source), **wanted))
        if damaged := next(_damaged(folder), None):
            logger.warning("%s is damaged: %s is downloaded again", damaged, source)
            folder = Path(snapshot_download(str(source), **wanted | {"force_download": True}))
            damaged = next(_damaged(folder), None)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        if silent:
            reason = f"no answer within {PATIENCE:g} s"
        elif isinstance(error, RepositoryNotFoundError):
            reason = "it has no such repository, or not for you"
        raise UserError(
            f"{source} is no file or folder here, and the hub does not give it ({reason})",
            "Weights are a folder (scheduler/ text_encoder/ tokenizer/ unet/ vae/), a .pkl checkpoint or a hub id",
            "Check the spelling and the network, name another id, or download it elsewhere and pass the folder",
        ) from error
    if damaged:
        raise UserError(
            f"{damaged} is not what the hub says, and was not when it was downloaded again",
            "Its length and its SHA-256 are compared",
            "Try it again later, or download it elsewhere and pass the folder",
        )
    if not isinstance(known, str):
        card = folder / "README.md"
        licence = ModelCard.load(card).data.get("license") if card.exists() else None
        page = f"https://huggingface.co/{source}"
        logger.warning("%s: weights under their own licence (%s), see %s", source, licence or "not named", page)
    return folder


def _answers(url: str) -> bool:
    """Whether a server says anything, or fails, within reasonable time."""
    try:
        urlopen(Request(url, method="HEAD"), timeout=PATIENCE).close()
    except HTTPError:
        return True
    except OSError as error:
        return not isinstance(getattr(error, "reason", error), TimeoutError)
    return True


def _damaged(folder: Path) -> Iterator[Path]:
    """Files of a snapshot that were not downloaded whole."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not ((file.suffix != ".safetensors" or _is_long_enough(file)) and _is_published(file)):
            yield file


def _is_long_enough(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    try:
        with safe_open(file, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


def _is_published(file: Path) -> bool:
    """Whether a file has the hash that the hub gave for it.

    The hub's cache keeps it under that name: the SHA-256 of large files, Git's hash of small ones; where a system has
    no links there are no such names, and nothing is known. What was found right is noted in our own cache, by its size
    and time, so that gigabytes are read once.
    """
    blob = file.resolve()
    if not file.is_symlink() or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        return True
    state = blob.stat()
    seen = f"{blob} {state.st_size} {state.st_mtime_ns}"
    with suppress(OSError, UserError):
        if _note(blob.name).read_text() == seen:
            return True
    digest = hashlib.sha256() if len(blob.name) == 64 else hashlib.sha1(b"blob %d\0" % state.st_size)
    with blob.open("rb") as stream, Bar(f"checking {file.name}", state.st_size, of="bytes") as bar:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            bar.advance(len(chunk))
    if digest.hexdigest() != blob.name:
        return False
    with suppress(OSError, UserError):
        files.write_text(_note(blob.name), seen)
    return True


def _note(name: str) -> Path:
    return cache_folder() / "weights" / name
