from dataclasses import replace

import pytest
import torch

from difix3d.difix import DifixFixer, load_difix
from difix3d.difix.architecture import random_difix
from difix3d.difix.fixer import batches
from difix3d.difix.load import fix_together
from difix3d.geometry.holes import without_holes
from difix3d.types import Degraded, View


@pytest.fixture(scope="module")
def pipe(shared):
    return load_difix(shared / "golden" / "tiny_difix_ref", "cpu").optimize(compile=False)


def item(camera, size=(40, 48), references=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(*size, 3, generator=generator)
    photos = tuple(View(camera, image.flip(i % 2), f"photo {i}", i) for i in range(references))
    return Degraded(camera, image, torch.ones(size), torch.ones(size), photos)


def test_batches_equal_single_images_and_the_pipeline(toy_scene):
    pipe = random_difix(dtype=torch.float64).optimize(compile=False)  # random weights amplify rounding errors
    camera = toy_scene.cameras[0]
    items = [item(camera, seed=seed) for seed in range(5)]
    singly, together = (list(DifixFixer(pipe, batch=size)(iter(items))) for size in (1, 4))
    for one, other, degraded in zip(singly, together, items, strict=True):
        assert one.shape == (40, 48, 3)
        assert torch.allclose(one, other, atol=1e-5)
        image, photo = (x.permute(2, 0, 1)[None] for x in (degraded.rgb, degraded.references[0].image))
        assert torch.allclose(one, pipe.fix(image, photo[None])[0].permute(1, 2, 0), atol=1e-5)


def test_groups_have_one_size_and_one_number_of_references(toy_scene):
    camera = toy_scene.cameras[0]
    small, large, bare = item(camera), item(camera, (64, 64)), item(camera, references=0)
    groups = list(batches([small, small, large, bare, small, small, small], 2))
    assert [len(group) for group in groups] == [2, 1, 1, 2, 1]


def test_references_of_another_size_are_fitted(toy_scene, pipe):
    camera = toy_scene.cameras[0]
    small, large = item(camera), item(camera, (64, 80))
    mixed = Degraded(camera, small.rgb, small.alpha, small.depth, large.references)
    assert next(DifixFixer(pipe)([mixed])).shape == (40, 48, 3)


def test_it_looks_at_as_many_photos_as_it_is_told(toy_scene, pipe):
    offered = item(toy_scene.cameras[0], references=3)
    shown = {}
    for count in (0, 1, 3):
        fewer = replace(offered, references=offered.references[:count])
        one, other = (next(DifixFixer(pipe, references=count)([x])) for x in (offered, fewer))
        assert torch.equal(one, other)
        shown[count] = one
    assert not torch.equal(shown[1], shown[0])
    assert not torch.equal(shown[1], shown[3])


def test_the_stream_is_lazy_and_an_abandoned_one_cleans_up(toy_scene, pipe):
    asked = []

    def renders():
        for seed in range(4):
            asked.append(seed)
            yield item(toy_scene.cameras[0], seed=seed)

    stream = DifixFixer(pipe, offload=True)(renders())
    next(stream)
    assert len(asked) < 4
    stream.close()
    assert pipe.device.type == "cpu"


@pytest.mark.gpu
def test_the_model_is_on_the_gpu_only_while_it_fixes(toy_scene, shared):
    pipe = load_difix(shared / "golden" / "tiny_difix_ref", "cpu").optimize(compile=False)
    stream = DifixFixer(pipe, "cuda", offload=True)([item(toy_scene.cameras[0])])
    next(stream)
    assert pipe.device.type == "cuda"
    assert list(stream) == []
    assert pipe.device.type == "cpu"


def test_the_small_weights_see_holes_filled_and_others_do_not(toy_scene, pipe, monkeypatch):
    """What published weights make of it is not known."""
    full = item(toy_scene.cameras[0])
    alpha = full.alpha.clone()
    alpha[:, :24] = 0
    away = replace(full.camera, c2w=full.camera.c2w @ torch.diag(torch.tensor([-1.0, 1, -1, 1])))
    holed = replace(full, rgb=full.rgb * alpha[..., None], alpha=alpha, reference_depths=(full.depth,), near=away)
    for model, filled in ((load_difix("mini", "cpu"), True), (pipe, False)):
        monkeypatch.setattr(model, "fix", lambda images, *_, **__: images)
        fixed = next(DifixFixer(model, anchor_colors=False)([holed]))
        assert torch.equal(fixed, without_holes(holed).rgb if filled else holed.rgb)
        assert bool(fixed[:, :12].mean() > 0.3) == filled


@pytest.mark.parametrize(("room", "batch"), [(100, 4), (8.1, 4), (7.9, 2), (4.1, 2), (3.9, 1), (0.1, 1)])
def test_as_many_frames_are_fixed_at_a_time_as_half_of_a_gpus_free_memory_takes(monkeypatch, room, batch):
    fixer = DifixFixer(random_difix())
    free = int(room * fixer.needs[1] * 96 * 64)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    fix_together(fixer, 96 * 64, torch.device("cpu"))
    assert fixer.batch == 1
    fix_together(fixer, 96 * 64, torch.device("cuda"))
    assert fixer.batch == batch
