"""Damaged files of every kind are read rightly or named; nothing else comes of them.

``DIFIX3D_FLIPS=1000 pytest tests/reliability/test_fuzz.py`` tries more of them.
"""

import logging
import os
from collections import Counter

import numpy as np
import pytest
import torch
from damaged import flipped, kinds

from difix3d.errors import UserError

FLIPS = int(os.environ.get("DIFIX3D_FLIPS", "20"))
NAMES = (
    *("cameras.txt", "images.txt", "points3D.txt", "cameras.bin", "images.bin", "points3D.bin"),
    *("transforms.json", "split.json", "sparse_pc.ply", "plain.ply", "offset.ply", "packed.ply", "a.splat"),
    *("point_cloud.offset.json", "a.spz", "packed a.spz", "config.yaml", "scene.json", "step_0000010.safetensors"),
    *("checksums.json", "metrics.json", "rounds.json", "evaluation.json", "path.json", "nerfstudio.json"),
    *("weights' unet/config.json", "weights' vae/config.json", "weights' scheduler/scheduler_config.json"),
    *("weights' prompt_embeds.safetensors", "a.bmp", "a.jpg", "a.png", "a.tif", "a.webp"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, toy_scene):
    return {kind.name: kind for kind in kinds(tmp_path_factory.mktemp("whole"), toy_scene)}


def test_every_kind_is_tried(whole):
    assert set(whole) == set(NAMES)
    for kind in whole.values():
        kind.file.write_bytes(kind.pack(kind.content))
        kind.read()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_flipped_bytes_are_named_or_harmless(whole, name, caplog):
    kind, wrong, found = whole[name], [], Counter()
    caplog.set_level(logging.CRITICAL)
    for seed in range(FLIPS):
        data = flipped(kind.content, np.random.default_rng([seed, NAMES.index(name)]))
        kind.file.write_bytes(kind.pack(data))
        try:
            result = kind.read()
        except UserError as error:
            found["named"] += 1
            wrong += [f"{seed}: an escape sequence is shown"] if "\x1b" in str(error) else []
            continue
        except Exception as error:  # every other is what is looked for
            wrong.append(f"{seed}: {type(error).__name__}: {error}")
            continue
        found["read"] += 1
        if not _sane(result):
            wrong.append(f"{seed}: read, but absurd")
    kind.file.write_bytes(kind.pack(kind.content))
    print(name, dict(found), len(wrong))
    assert not wrong, "\n".join(wrong)


def _sane(result: object) -> bool:
    """Whether numbers are finite, and of a size that programs go on with."""
    from difix3d.types import Gaussians, Scene

    if isinstance(result, Gaussians):
        return all(bool(tensor.isfinite().all()) for tensor in result.as_dict().values())
    if isinstance(result, Scene):
        cameras = result.cameras
        focal = torch.stack([cameras.K[:, 0, 0], cameras.K[:, 1, 1]])
        sides = torch.stack([cameras.width, cameras.height])
        finite = all(bool(tensor.isfinite().all()) for tensor in (cameras.c2w, cameras.K))
        return finite and bool((focal > 0).all()) and bool((focal < 1e6).all()) and bool((sides <= 10_000).all())
    return True
