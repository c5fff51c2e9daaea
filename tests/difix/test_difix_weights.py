"""Loading and saving: all of the weights or a clear refusal, and never code."""

import json
import os
import pickle
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from difix3d.difix import DifixPipeline, weights
from difix3d.difix.vae import SKIP_INIT
from difix3d.errors import UserError

VAE_FILE = "vae/diffusion_pytorch_model.safetensors"


def edit(folder: Path, name: str, change) -> Path:
    """Replaces a safetensors file by what ``change`` makes of its tensors."""
    state = load_file(folder / name)
    (folder / name).unlink()
    save_file(change(state), folder / name)
    return folder


@pytest.mark.parametrize("fused", [False, True])
def test_saved_and_loaded_again(golden, recorded, pictures, tmp_path, fused):
    pipe = DifixPipeline.from_pretrained(golden / "tiny_difix_ref")
    if fused:
        pipe.fuse()
    pipe.save_pretrained(tmp_path / "ours")
    again = DifixPipeline.from_pretrained(tmp_path / "ours")
    keys = load_file(tmp_path / "ours" / VAE_FILE).keys()
    assert any("lora" in key for key in keys) is not fused
    images, refs = pictures.smooth(1, 3, 40, 48), pictures.smooth(1, 1, 3, 40, 48, seed=1)
    torch.testing.assert_close(again.fix(images, refs), recorded.fix(images, refs), atol=2e-5, rtol=0)


class HostBytes(TorchDispatchMode):
    """Adds up what operations make in main memory."""

    made = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        given = {x.data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and not x.is_meta}
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and x.device.type == "cpu" and x.data_ptr() not in given:
                self.made += x.nbytes
        return result


@pytest.mark.parametrize("source", ["tiny_difix_ref", "tiny_model_1001.pkl"])
def test_tensors_go_from_their_file_to_the_device_one_by_one(golden, source):
    """Of UNet and VAE nothing is copied in main memory: not in the file's type, and not in that which is asked for."""
    with HostBytes() as here:
        parts = weights.load_parts(golden / source, golden / "tiny_sd_turbo", torch.bfloat16)
    with HostBytes() as there:
        away = weights.load_parts(golden / source, golden / "tiny_sd_turbo", torch.bfloat16, device="meta")
    moved = [value for part in ("unet", "vae", "text_encoder") for value in parts[part].state_dict().values()]
    networks = sum(value.nbytes for part in ("unet", "vae") for value in parts[part].state_dict().values())
    assert here.made - there.made >= sum(value.nbytes for value in moved)
    assert there.made < networks / 10 + sum(2 * value.nbytes for value in parts["text_encoder"].state_dict().values())
    assert {value.device.type for part in ("unet", "vae") for value in away[part].state_dict().values()} == {"meta"}


def test_class_names_do_not_matter(link_tree, golden, recorded):
    folder = link_tree(golden / "tiny_difix_ref")
    for name, changes in {
        "model_index.json": {"_class_name": "Cleaner", "vae": ["my_vae", "MyVAE"], "unet": ["my_unet", "MyUNet"]},
        "vae/config.json": {"_class_name": "MyVAE", "auto_map": {"AutoModel": "my_vae.MyVAE"}},
        "unet/config.json": {"_class_name": "MyUNet"},
        "scheduler/scheduler_config.json": {"_class_name": "MyScheduler"},
    }.items():
        values = json.loads((folder / name).read_text()) | changes
        (folder / name).unlink()
        (folder / name).write_text(json.dumps(values))
    (folder / "vae" / "my_vae.py").write_text("raise SystemExit('this code must not run')")
    pipe = DifixPipeline.from_pretrained(folder, trust_remote_code=True)
    assert all(torch.equal(value, recorded.vae.state_dict()[key]) for key, value in pipe.vae.state_dict().items())
    (folder / "model_index.json").unlink()
    DifixPipeline.from_pretrained(folder)


def test_shards(link_tree, golden, recorded):
    folder = link_tree(golden / "tiny_difix_ref")
    state = load_file(folder / VAE_FILE)
    (folder / VAE_FILE).unlink()
    keys = sorted(state)
    shards = {"a.safetensors": keys[::2], "b.safetensors": keys[1::2]}
    for name, part in shards.items():
        save_file({key: state[key] for key in part}, folder / "vae" / name)
    index = {"weight_map": {key: name for name, part in shards.items() for key in part}}
    (folder / (VAE_FILE + ".index.json")).write_text(json.dumps(index))
    pipe = DifixPipeline.from_pretrained(folder)
    assert all(torch.equal(pipe.vae.state_dict()[key], state[key]) for key in keys)


KEY = "decoder.skip_conv_2.base_layer.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {k: v for k, v in s.items() if k != KEY}, rf"1 missing keys: {KEY}"),
        (lambda s: s | {"decoder.extra": torch.zeros(1)}, r"1 unexpected keys: decoder\.extra"),
        (
            lambda s: s | {KEY: torch.zeros(64, 64, 1, 1)},
            rf"1 misshapen keys: {KEY} \(64, 64, 1, 1\) for \(64, 32, 1, 1\)",
        ),
        (lambda s: {k: v for k, v in s.items() if "skip_conv" not in k}, "12 missing keys: .* and 2 more"),
        (lambda s: {k: v for k, v in s.items() if "lora_A" not in k}, r"unexpected keys"),
    ],
)
def test_partly_matching_weights_are_refused(link_tree, golden, change, words):
    folder = edit(link_tree(golden / "tiny_difix_ref"), VAE_FILE, change)
    with pytest.raises(UserError, match=words):
        DifixPipeline.from_pretrained(folder)


def test_sd_turbo_is_no_difix(golden):
    with pytest.raises(UserError, match="4 missing keys: decoder.skip_conv_1.weight"):
        DifixPipeline.from_pretrained(golden / "tiny_sd_turbo")


@pytest.mark.parametrize(
    "name", ["unet/diffusion_pytorch_model.safetensors", VAE_FILE, "text_encoder/model.safetensors"]
)
def test_truncated_file(link_tree, golden, name):
    folder = link_tree(golden / "tiny_difix_ref")
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=f"{folder.name}.*cannot be read"):
        DifixPipeline.from_pretrained(folder)


def test_text_encoder_that_lacks_a_layer(link_tree, golden):
    folder = link_tree(golden / "tiny_difix_ref")
    edit(folder, "text_encoder/model.safetensors", lambda s: dict(list(s.items())[1:]))
    with pytest.raises(UserError, match="text_encoder does not fit"):
        DifixPipeline.from_pretrained(folder)


@pytest.mark.parametrize(
    "name", ["vae/config.json", VAE_FILE, "scheduler/scheduler_config.json", "tokenizer/vocab.json"]
)
def test_missing_file(link_tree, golden, name):
    folder = link_tree(golden / "tiny_difix_ref")
    (folder / name).unlink()
    with pytest.raises(UserError, match=name if "vocab" not in name else "tokenizer"):
        DifixPipeline.from_pretrained(folder)


def test_a_schedule_that_predicts_something_else(link_tree, golden):
    folder = link_tree(golden / "tiny_difix_ref")
    path = folder / "scheduler/scheduler_config.json"
    values = json.loads(path.read_text()) | {"prediction_type": "v_prediction"}
    path.unlink()
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="predicts v_prediction"):
        DifixPipeline.from_pretrained(folder)


class Payload:
    """Unpickling this creates a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_checkpoint_is_not_executed(golden, tmp_path, legacy):
    trap, file = tmp_path / "trap", tmp_path / "model.pkl"
    content = {"state_dict_unet": {}, "state_dict_vae": {}, "optimizer": Payload(trap)}
    if legacy:
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file)
    with pytest.raises(UserError, match=r"model\.pkl cannot be read"):
        DifixPipeline.from_pretrained(file, base=golden / "tiny_sd_turbo", trust_remote_code=True)
    assert not trap.exists()


def test_bad_checkpoints(golden, tmp_path):
    base, good = golden / "tiny_sd_turbo", golden / "tiny_model_1001.pkl"
    cut, other, part = tmp_path / "cut.pkl", tmp_path / "other.pkl", tmp_path / "part.pkl"
    cut.write_bytes(good.read_bytes()[:100_000])
    torch.save({"model": {}}, other)
    checkpoint = torch.load(good, weights_only=True)
    del checkpoint["state_dict_vae"]["decoder.conv_in.lora_A.vae_skip.weight"]
    del checkpoint["state_dict_unet"]["conv_in.bias"]
    torch.save(checkpoint, part)
    for file, words in (
        (cut, r"cut\.pkl cannot be read"),
        (tmp_path / "none.pkl", r"none\.pkl cannot be read"),
        (other, r"other\.pkl holds model"),
        (part, r"UNet of .*part\.pkl .* 1 missing keys: conv_in\.bias"),
    ):
        with pytest.raises(UserError, match=words):
            DifixPipeline.from_pretrained(file, base=base)


def test_pickles_made_to_take_long(golden, tmp_path):
    """Unpickled safely, which is done in Python, a megabyte of marks takes seconds and ten fill the memory."""
    marks = b"\x80\x02" + b"(" * 1_500_000 + b"."
    (tmp_path / "bare.pkl").write_bytes(marks)
    with zipfile.ZipFile(tmp_path / "zip.pkl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zip/data.pkl", marks)
        archive.writestr("zip/version", "3")
    start = time.process_time()
    for name, words in (
        ("bare.pkl", r"it is no file of torch\.save"),
        ("zip.pkl", r"its data\.pkl has 1,500,003 bytes"),
    ):
        with pytest.raises(UserError, match=rf"{name} cannot be read \({words}"):
            DifixPipeline.from_pretrained(tmp_path / name, base=golden / "tiny_sd_turbo")
    assert time.process_time() - start < 1
    good = torch.load(golden / "tiny_model_1001.pkl", weights_only=True)
    torch.save(good, tmp_path / "old.pkl", _use_new_zipfile_serialization=False)
    assert weights.read_checkpoint(tmp_path / "old.pkl").keys() == good.keys()


def test_training_starts_from_nearly_sd_turbo(golden):
    parts = weights.new_parts(golden / "tiny_sd_turbo", lora_rank=2)
    pipe = DifixPipeline(**parts)
    base = load_file(golden / "tiny_sd_turbo" / VAE_FILE)
    fused = pipe.fuse().vae.state_dict()
    for key, value in fused.items():
        expected = base[key] if key in base else torch.full_like(value, SKIP_INIT)
        torch.testing.assert_close(value, expected)


def test_push_to_hub(golden, monkeypatch, tmp_path):
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from diffusers.utils import hub_utils

    pushed = {}
    monkeypatch.setattr(hub_utils, "create_repo", lambda repo_id, **_: type("Repo", (), {"repo_id": repo_id}))
    monkeypatch.setattr(hub_utils, "load_or_create_model_card", lambda *_, **__: None)
    card = type("Card", (), {"save": lambda self, path: Path(path).write_text("")})()
    monkeypatch.setattr(hub_utils, "populate_model_card", lambda *_, **__: card)

    def upload(self, folder, repo_id, **_):
        pushed[repo_id] = DifixPipeline.from_pretrained(folder)

    monkeypatch.setattr(DiffusionPipeline, "_upload_folder", upload)
    pipe = DifixPipeline.from_pretrained(golden / "tiny_difix_ref")
    pipe.push_to_hub("me/my-difix")
    theirs = pushed["me/my-difix"].vae.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in pipe.vae.state_dict().items())


def test_a_misspelt_option(golden):
    with pytest.raises(TypeError, match="variant"):
        DifixPipeline.from_pretrained(golden / "tiny_difix_ref", variant="fp16")
