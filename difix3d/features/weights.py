"""Where the weights of the feature networks come from, and that they are the published ones.

A file is looked for in the folder that the environment variable ``DIFIX3D_WEIGHTS`` names, then in torch hub's cache
(``$TORCH_HOME/hub/checkpoints``, shared with torchvision and pytorch-fid), and downloaded there if it is in neither.
"""

import hashlib
import http.client
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from difix3d.console import console
from difix3d.errors import UserError
from difix3d.files import check_file

VARIABLE = "DIFIX3D_WEIGHTS"
TIMEOUT = 20.0
"""Seconds without an answer from the server after which it is given up."""

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights.

    Attributes:
        name: of the file in torch hub's cache and in the user's folder.
        url: where it is published.
        sha256: what the file's SHA-256 begins with.
        smaller: names of copies in the user's folder that hold only what is needed, perhaps in half precision; their
            hashes are not known, so that only keys and shapes are checked.
    """

    name: str
    url: str
    sha256: str
    smaller: tuple[str, ...] = ()


def _torch_hub(name: str, folder: str, *smaller: str) -> WeightFile:
    """torch hub's convention: the name ends in the beginning of the hash."""
    return WeightFile(name, folder + name, name.removesuffix(".pth").rpartition("-")[2], smaller)


PYTORCH = "https://download.pytorch.org/models/"
PYTORCH_FID = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
PERCEPTUAL_SIMILARITY = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/"

VGG16 = _torch_hub("vgg16-397923af.pth", PYTORCH, "vgg16_features_fp16.pth")
ALEXNET = _torch_hub("alexnet-owt-7be5be79.pth", PYTORCH, "alexnet_features_fp32.pth")
INCEPTION = _torch_hub("pt_inception-2015-12-05-6726825d.pth", PYTORCH_FID)
LPIPS_VGG = WeightFile(
    "lpips_lin_v0.1_vgg.pth",
    PERCEPTUAL_SIMILARITY + "vgg.pth",
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
)
LPIPS_ALEX = WeightFile(
    "lpips_lin_v0.1_alex.pth",
    PERCEPTUAL_SIMILARITY + "alex.pth",
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
)


def locate(file: WeightFile) -> Path:
    """The file on this disk, downloaded if need be; also where torch hub's is damaged.

    Raises:
        UserError: it is nowhere and cannot be downloaded, or the user's own is not the published one.
    """
    if own := os.environ.get(VARIABLE):
        folder = Path(own)
        if not folder.is_dir():
            raise UserError(f"{VARIABLE} is {own}, which is no folder", "", "Correct it, or unset it")
        for name in (file.name, *file.smaller):
            if (folder / name).exists():
                return folder / name if name in file.smaller else _checked(folder / name, file)
    path = Path(torch.hub.get_dir()) / "checkpoints" / file.name
    if path.parts[0] == "~":
        raise UserError("There is no home folder to keep weights in", "", f"Set HOME, TORCH_HOME or {VARIABLE}")
    if path.exists() and not _sha256(path).startswith(file.sha256):
        console.print(f"{path} is damaged: its SHA-256 is not the published one")
        _download(file, path)
    elif not path.exists():
        _download(file, path)
    return path


def _download(file: WeightFile, path: Path) -> None:
    """Into torch hub's cache: under a temporary name, and checked, before it gets its own."""
    console.print(f"downloading {file.url} to {path}")
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torch hub sets none: behind a firewall it would wait for minutes
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(file.url, str(path), file.sha256, progress=console.is_terminal)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise UserError(
            f"{file.name} is not whole on this machine and cannot be downloaded from {file.url} ({error})",
            "The feature networks need their published weights",
            f"Download it elsewhere and set {VARIABLE} to the folder that holds it under that name",
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _sha256(path: Path) -> str:
    check_file(path)
    sha256 = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            sha256.update(chunk)
    return sha256.hexdigest()


def _checked(path: Path, file: WeightFile) -> Path:
    digest = _sha256(path)
    if not digest.startswith(file.sha256):
        raise UserError(
            f"{path} has the SHA-256 {digest[:16]}...",
            f"The published file's begins with {file.sha256[:16]}",
            f"Delete it and get it again from {file.url}",
        )
    return path


def load(file: WeightFile, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The named tensors of a file in float32; what else it holds (a classifier) is left out.

    Code in the file is never run (``weights_only``).

    Args:
        shapes: what has to be there.

    Raises:
        UserError: the file is not to be had, not readable, or something in it is missing or of another shape.
    """
    path = locate(file)
    check_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged file, torch raises what its unpickler stumbles upon
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} cannot be read ({reason})", "It is a whole file of tensors", f"Get it again from {file.url}"
        ) from error
    found = {key: tuple(value.shape) for key, value in state.items()} if isinstance(state, dict) else {}
    wrong = [
        f"{key} is {found.get(key, 'missing')}, not {shape}" for key, shape in shapes.items() if found.get(key) != shape
    ]
    if wrong:
        raise UserError(
            f"{path} does not fit: {wrong[0]}" + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""),
            f"It has to hold the tensors of {file.name}",
            f"Get it from {file.url}",
        )
    return {key: state[key].float() for key in shapes}


def fill(network: Network, file: WeightFile) -> Network:
    """The network with the weights of the file, frozen, in evaluation mode. Raises what :func:`load` raises."""
    # batch normalisation counts its training batches: older files lack that, and nothing reads it
    shapes = {k: tuple(v.shape) for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    network.load_state_dict(load(file, shapes), strict=False)
    return network.requires_grad_(False).eval()
