"""Reads Difix's weights from a hub id, a folder or a checkpoint: all or nothing, and without running code of theirs.

Folders are in the layout of the published models, which is also what ``DifixPipeline.save_pretrained`` writes:
``scheduler/ text_encoder/ tokenizer/ unet/ vae/``, weights as safetensors. A small model may carry the embeddings of
its prompts, ``prompt_embeds.safetensors``, in place of text encoder and tokenizer. ``model_index.json`` is not read, so
that it does not matter which classes it names.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from packaging.version import Version
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from difix3d import files
from difix3d.difix.hub import PROMPTS, fetch
from difix3d.difix.vae import ADAPTER, DifixVAE
from difix3d.errors import UserError

State = dict[str, Tensor]
Place = torch.device | str
SD_TURBO = "stabilityai/sd-turbo"
LARGEST, LAYERS = 1_000_000, 100
"""What numbers of a configuration are at most, and those of layers."""
PICKLED = 1_000_000
"""Bytes of a checkpoint, at most, that name its tensors: those of a Difix with its optimizer are a third of it."""
LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How files of torch.save begin that are no zip archives: a pickled number of torch's."""
LISTED = 10  # keys of each kind that an error names


def load_parts(
    source: str | Path,
    base: str | Path = SD_TURBO,
    dtype: torch.dtype = torch.float32,
    device: Place = "cpu",
    **hub: Any,
) -> dict[str, Any]:
    """The parts of a :class:`DifixPipeline`; ``prompt_embeds`` too, where the folder has them.

    Args:
        source: hub id, folder, ``mini``, or ``.pkl`` checkpoint of the published trainer.
        base: hub id or folder of SD-Turbo; a checkpoint holds only what differs from it.
        device: each tensor goes from its file there, so that no part is ever whole in main memory beside it.
        hub: passed to ``huggingface_hub.snapshot_download`` (``revision``, ``cache_dir``, ``token``, ...).
    """
    if not is_checkpoint(source):
        folder = fetch(source, **hub)
        unet, vae = read_folder(folder / "unet"), read_folder(folder / "vae")
    else:
        checkpoint = read_checkpoint(Path(source))
        folder = fetch(base, **hub)
        unet, vae = checkpoint["state_dict_unet"], checkpoint["state_dict_vae"]
        vae = wrap_base(read_folder(folder / "vae"), vae) | vae
    rank = next((value.shape[0] for key, value in vae.items() if key.endswith(f"lora_A.{ADAPTER}.weight")), 0)
    with torch.device("meta"), _built_of(folder):
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel.from_config(read_json(folder / "unet" / "config.json")),
            "vae": DifixVAE.build(read_json(folder / "vae" / "config.json"), rank),
        }
    fill(parts["unet"], unet, f"The UNet of {source}", dtype, device)
    fill(parts["vae"], vae, f"The VAE of {source}", dtype, device)
    return parts | load_text_and_schedule(folder, dtype, device)


def is_checkpoint(source: str | Path) -> bool:
    """Whether weights are named by a file of the published trainer, not by a folder or hub id."""
    return Path(source).suffix in (".pkl", ".pt", ".pth")


def has_skips(folder: Path) -> bool:
    """Whether a folder's VAE is that of a Difix, not the plain one of SD-Turbo."""
    return any("skip_conv" in key for key in read_folder(folder / "vae"))


def new_parts(base: str | Path = SD_TURBO, lora_rank: int = 4, **hub: Any) -> dict[str, Any]:
    """The parts of an untrained Difix: SD-Turbo with fresh skips and LoRA, where training starts."""
    folder = fetch(base, **hub)
    with _built_of(folder):
        unet = UNet2DConditionModel.from_config(read_json(folder / "unet" / "config.json"))
        vae = DifixVAE.build(read_json(folder / "vae" / "config.json"), lora_rank)
    fresh = {key: value for key, value in vae.state_dict().items() if ADAPTER in key or "skip_conv" in key}
    fill(unet, read_folder(folder / "unet"), f"The UNet of {base}")
    fill(vae, wrap_base(read_folder(folder / "vae"), fresh) | fresh, f"The VAE of {base}")
    return {"unet": unet, "vae": vae} | load_text_and_schedule(folder)


def read_json(path: Path) -> dict[str, Any]:
    """A model's configuration: an object, of which no number asks for an absurd amount."""
    try:
        content = files.read_json(path)
        _check_numbers(content, path)
        return content
    except UserError as error:
        raise UserError(
            error.fact,
            "A Difix folder holds scheduler/, text_encoder/, tokenizer/, unet/ and vae/, each with its JSON",
            "Pass the folder that save_pretrained wrote or the hub gave, whole",
        ) from error


def _check_numbers(content: Any, path: Path, key: str = "") -> None:
    """Refuses what would build layers for hours, or fill the memory."""
    if isinstance(content, dict | list):
        for name, value in content.items() if isinstance(content, dict) else ((key, value) for value in content):
            _check_numbers(value, path, name)
    elif isinstance(content, int | float) and not abs(content) <= (LAYERS if "layers" in key else LARGEST):
        raise UserError(f"{path} has {key} = {content}")


@contextmanager
def _built_of(folder: Path) -> Iterator[None]:
    """Names the folder whose configuration the libraries cannot build a model of; what they raise is of many kinds."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"No model can be built as the configuration in {folder} says ({type(error).__name__}: {error})",
            "It is that of a Difix or of SD-Turbo",
            "Pass the folder that save_pretrained wrote or the hub gave, whole",
        ) from error


def read_folder(folder: Path) -> State:
    """All tensors of a model's folder, in one file or in shards."""
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    parts = [folder / "diffusion_pytorch_model.safetensors"]
    if index.exists():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise UserError(f"{index} has no weight_map", "It says in which file each tensor is", "Get it again")
        parts = [folder / name for name in sorted(set(shards.values()))]
    return {key: value for part in parts for key, value in read_tensors(part).items()}


def read_tensors(file: Path) -> State:
    files.check_file(file)
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read ({error})", "It is a whole safetensors file", "Get it again") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of the published trainer, as tensors and plain values only: pickled code is refused, never run."""
    if Version(torch.__version__) < Version("2.6"):  # weights_only could be tricked before: CVE-2025-32434
        raise UserError(f"{path} needs torch 2.6 or newer to be read safely", "", "Upgrade torch, or pass a folder")
    files.check_file(path)
    try:
        _check_pickle(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except UserError:
        raise
    except Exception as error:  # of a damaged file, torch raises what its unpickler stumbles upon
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})",
            "A checkpoint is a whole file of tensors and plain values; other objects are never unpickled",
            "Download it again from a source you trust",
        ) from error
    keys = set(checkpoint) if isinstance(checkpoint, dict) else set()
    parts = {"state_dict_unet", "state_dict_vae"}
    if not parts <= keys or not all(_is_state(checkpoint[part]) for part in parts):
        raise UserError(
            f"{path} holds {', '.join(sorted(map(str, keys))) or 'no dictionary'}",
            "A Difix checkpoint holds state_dict_unet and state_dict_vae",
            "Pass a checkpoint that a Difix trainer saved",
        )
    return checkpoint


def _check_pickle(path: Path) -> None:
    """Refuses what no trainer saved before torch unpickles it, which takes a second for each megabyte of marks."""
    if not is_zipfile(path):
        with path.open("rb") as file:
            whole = file.read(len(LEGACY)) == LEGACY
        size = 0
    else:
        with ZipFile(path) as archive:
            whole, size = True, max((i.file_size for i in archive.infolist() if i.filename.endswith(".pkl")), default=0)
    if not whole or size > PICKLED:
        raise UserError(
            f"{path} cannot be read ({f'its data.pkl has {size:,} bytes' if whole else 'it is no file of torch.save'})",
            f"A checkpoint is a whole file of tensors, and of at most {PICKLED:,} bytes that say what they are",
            "Download it again from a source you trust, or save its state_dict_unet and state_dict_vae alone",
        )


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, Tensor) for item in value.values())


def wrap_base(base: State, extra: State) -> State:
    """The plain VAE's keys as they are called once the LoRA in ``extra`` wraps their layers (``base_layer``)."""
    wrapped = {key.split(".lora_A.")[0] for key in extra if ".lora_A." in key}
    split = ((*key.rpartition("."), value) for key, value in base.items())
    return {f"{name}.base_layer.{leaf}" if name in wrapped else f"{name}.{leaf}": v for name, _, leaf, v in split}


def fill(model: nn.Module, state: State, what: str, dtype: torch.dtype = torch.float32, device: Place = "cpu") -> None:
    """Puts the tensors into the model; :class:`UserError` with the keys unless all of them fit."""
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    wrong = {
        "missing": sorted(shapes.keys() - state.keys()),
        "unexpected": sorted(state.keys() - shapes.keys()),
        "misshapen": [
            f"{key} {tuple(state[key].shape)} for {shape}"
            for key, shape in shapes.items()
            if key in state and tuple(state[key].shape) != shape
        ],
    }
    if any(wrong.values()):
        lists = [f"{len(keys)} {kind} keys: {listed(keys)}" for kind, keys in wrong.items() if keys]
        raise UserError(
            f"{what} does not fit the model: {'; '.join(lists)}",
            "All keys of the file and of the model must agree in name and shape",
            "Pass Difix weights (of another kind or size than these), whole",
        )
    model.load_state_dict({key: value.to(device, dtype) for key, value in state.items()}, assign=True)
    model.eval()


def listed(keys: list[str]) -> str:
    more = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return ", ".join(keys[:LISTED]) + more


def load_text_and_schedule(folder: Path, dtype: torch.dtype = torch.float32, device: Place = "cpu") -> dict[str, Any]:
    """Text encoder, tokenizer and noise schedule; the library's own classes, told to be as strict as :func:`fill`."""
    with _built_of(folder):
        scheduler = DDPMScheduler.from_config(read_json(folder / "scheduler" / "scheduler_config.json"))
    if scheduler.config.prediction_type != "epsilon":
        raise UserError(f"{folder} predicts {scheduler.config.prediction_type}", "Difix predicts epsilon")
    if (folder / PROMPTS).is_file():
        return {
            "scheduler": scheduler,
            "prompt_embeds": {k: v.to(dtype) for k, v in read_tensors(folder / PROMPTS).items()},
        }
    read_json(folder / "text_encoder" / "config.json")
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        loaded: Any = CLIPTextModel.from_pretrained(
            folder / "text_encoder", local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # as above
        raise UserError(f"The text encoder or tokenizer in {folder} cannot be read ({error})") from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    text_encoder, info = loaded
    if info["missing_keys"] or info["unexpected_keys"]:
        raise UserError(f"{folder / 'text_encoder'} does not fit the model: {info}")
    return {"scheduler": scheduler, "text_encoder": text_encoder.to(device, dtype), "tokenizer": tokenizer}
