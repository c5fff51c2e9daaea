"""The result of training as a folder that everyone can load, with a model card; and its way to a hub."""

import os
import shutil
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from safetensors.torch import load_file, save_file

from difix3d.difix.pipeline import DifixPipeline
from difix3d.difix_training.config import TrainDifixConfig
from difix3d.difix_training.start import SCRATCH
from difix3d.errors import UserError


def export(pipe: DifixPipeline, folder: Path, card: str, half: bool = False) -> None:
    """Writes the model and its card; a folder of that name is replaced only once the new one is whole.

    Args:
        half: write numbers of 16 bits; the pipeline itself stays as it is.

    Raises:
        UserError: the disk is full or cannot be written to; the old folder is untouched then.
    """
    partial, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    try:
        pipe.save_pretrained(partial)
        for path in partial.rglob("*.safetensors") if half else ():
            save_file({key: value.half() for key, value in load_file(path).items()}, path, {"format": "pt"})
        (partial / "README.md").write_text(card, encoding="utf-8")
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(folder, old)
        os.replace(partial, folder)
    except OSError as error:
        raise UserError(
            f"The model cannot be written to {folder} ({error})",
            "The checkpoints of the run are untouched",
            "Free some disk space and go on with --resume",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def model_card(config: TrainDifixConfig, step: int, pairs: dict[str, int], scores: dict[str, float]) -> str:
    """The text of the card: how the model came to be, and what it does on the test pairs."""
    scratch, layers = config.fixer == SCRATCH, config.mini.layers
    licence = "apache-2.0" if scratch else "other"
    hub = not scratch and not Path(config.fixer).exists()
    sees = f"with {config.references or 'no'} reference photo(s) beside each"
    use = "pipe(image=render, ref_image=photo).images[0]"
    if scratch and layers:
        sees = f"looking at reference photos that the rendered depth carries into the render, in {layers} layers"
        use = "fixed = pipe.fix(renders, guide=guides)  # see difix3d.geometry.warp.guide"
    head = ["library_name: diffusers", f"license: {licence}", "pipeline_tag: image-to-image"]
    head += [f"base_model: {config.fixer}"] if hub else []
    head += ["tags: [difix, difix3d, novel-view-synthesis, gaussian-splatting]"]
    height, width = config.resolution
    loss, optim = config.loss, config.optim
    origin = "from scratch" if scratch else f"from `{Path(config.fixer).name if not hub else config.fixer}`"
    rights = (
        ""
        if scratch
        else "\nThe weights it was trained from come with a licence of their own, which goes on to apply.\n"
    )
    rows = "\n".join(
        f"| {name} | {scores[f'{key}_before']:.{digits}f} | {scores[f'{key}_after']:.{digits}f} |"
        for name, key, digits in (("PSNR (dB)", "psnr", 2), ("LPIPS (VGG)", "lpips", 3))
        if f"{key}_after" in scores
    )
    table = f"\n| test pairs | render | fixed |\n|---|---|---|\n{rows}\n" if rows else "\nIt was not validated.\n"
    return f"""---
{chr(10).join(head)}
---
# A Difix

Cleans renders of 3D reconstructions in one diffusion step, {sees}. Trained {origin} with [difix3d](https://pypi.org/project/difix3d/).
{rights}
```python
from difix3d.difix import load_difix
pipe = load_difix("THIS_FOLDER_OR_HUB_ID")
{use}
```

## Training
- {pairs.get("train", 0):,} pairs; {step:,} steps of {config.batch_size} x {config.accumulate} pairs per process
- crops of {height} x {width} pixels
- losses: L2 x {loss.l2:g}, LPIPS (VGG) x {loss.lpips:g}, Gram x {loss.gram:g} from step {loss.gram_start:,}
- AdamW: learning rate {optim.lr:g} ({optim.schedule}), weight decay {optim.weight_decay:g}
- EMA {optim.ema or "off"}, seed {config.seed}

## What it does, on {pairs.get("test", 0):,} pairs that it was not trained on
{table}"""


def push(folder: Path, repository: str, private: bool) -> str:
    """Uploads the folder to a hub repository, which is made if need be. Returns its address.

    Raises:
        UserError: the hub says no, or cannot be reached.
    """
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Trained with difix3d")
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        raise UserError(
            f"{folder} cannot be uploaded to {repository} ({str(error).splitlines()[0]})",
            "It needs a token that may write to that repository",
            "Log in by `hf auth login` and upload the folder by `hf upload`: it is complete",
        ) from error
    return f"https://huggingface.co/{repository}"
