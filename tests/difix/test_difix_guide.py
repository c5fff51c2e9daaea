"""The guide of small networks (alpha, warped references), and how the decoder's pictures are mixed."""

from dataclasses import replace

import pytest
import torch

from difix3d.difix import DifixFixer, DifixPipeline
from difix3d.difix.step import blend
from difix3d.difix_training.config import MiniConfig
from difix3d.difix_training.start import mini_difix
from difix3d.distill.references import References
from difix3d.errors import UserError
from difix3d.geometry.holes import without_holes
from difix3d.geometry.warp import guide
from difix3d.scene import Views


@pytest.fixture
def pipe():
    torch.manual_seed(0)
    made = mini_difix(MiniConfig((32,) * 4, (16,) * 4, layers=2, latent=8))
    with torch.no_grad():  # else all start from the render
        made.vae.decoder.conv_out.weight.normal_(std=0.1)
    return made


def blend_in_loops(decoded, images):
    """Pixel by pixel, over those pictures that are there."""
    out = torch.zeros_like(decoded[:, :3])
    for b in range(len(images)):
        for y in range(images.shape[2]):
            for x in range(images.shape[3]):
                pictures = [decoded[b, :3, y, x], images[b, :3, y, x]]
                weights = [decoded[b, 3, y, x].exp(), decoded[b, 4, y, x].exp()]
                for layer in range(images.shape[1] // 4 - 1):
                    if images[b, 7 + 4 * layer, y, x] == 1:
                        pictures.append(images[b, 4 + 4 * layer : 7 + 4 * layer, y, x])
                        weights.append(decoded[b, 5 + layer, y, x].exp())
                out[b, :, y, x] = sum(w * p for w, p in zip(weights, pictures, strict=True)) / sum(weights)
    return out


def test_blend_equals_its_slow_twin_with_gradients():
    generator = torch.Generator().manual_seed(0)
    decoded = torch.randn(2, 7, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    images = torch.rand(2, 12, 4, 5, generator=generator, dtype=torch.float64)
    for alpha in (7, 11):
        images[:, alpha] = (images[:, alpha] > 0.5).double()
    fast, slow = blend(decoded, images), blend_in_loops(decoded, images)
    assert torch.allclose(fast, slow)
    weights = torch.rand(fast.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad((out * weights).sum(), decoded)[0] for out in (fast, slow)]
    assert torch.allclose(*gradients)


def test_the_guide_is_looked_at_and_may_be_missing(pipe):
    image, guides = torch.rand(2, 3, 40, 44), torch.rand(2, 9, 40, 44).round()
    bare, empty = pipe.fix(image), torch.zeros(2, 9, 40, 44)
    empty[:, 0] = 1
    assert torch.equal(bare, pipe.fix(image, guide=empty))
    assert not torch.allclose(bare, pipe.fix(image, guide=torch.zeros(2, 9, 40, 44)))  # alpha counts
    assert not torch.allclose(bare, pipe.fix(image, guide=guides))
    singly = torch.cat([pipe.fix(image[i : i + 1], guide=guides[i : i + 1]) for i in range(2)])
    assert torch.allclose(pipe.fix(image, guide=guides), singly, atol=1e-5)


def test_tiles_carry_their_part_of_the_guide(pipe):
    image, guides = torch.rand(1, 3, 320, 160), torch.rand(1, 9, 320, 160).round()
    tiled = pipe.fix(image, guide=guides, tile=256)
    top = pipe.fix(image[:, :, :224], guide=guides[:, :, :224])  # two tiles that share 128 rows
    assert torch.allclose(tiled[:, :, :64], top[:, :, :64], atol=1e-5)


def test_saved_and_loaded_it_fixes_alike(pipe, tmp_path):
    image, guides = torch.rand(1, 3, 32, 40), torch.rand(1, 9, 32, 40).round()
    pipe.save_pretrained(tmp_path)
    again = DifixPipeline.from_pretrained(tmp_path)
    assert (again.vae.guide, again.vae.layers, again.vae.foreground) == (9, 2, False)
    assert torch.allclose(pipe.fix(image, guide=guides), again.fix(image, guide=guides), atol=1e-5)
    assert torch.allclose(pipe.fix(image, guide=guides), again.optimize().fix(image, guide=guides), atol=1e-5)


def test_the_fixer_carries_the_references_into_the_render(toy_scene, truth, pipe):
    camera = toy_scene.cameras[2]
    references = References(toy_scene.cameras, toy_scene.train.tolist(), truth)
    degraded = references.degraded(camera, truth(camera), Views(toy_scene).__getitem__)
    (fixed,) = DifixFixer(pipe)([degraded])
    seen = guide(degraded, 2)
    assert seen[4].mean() > 0.3
    filled = without_holes(degraded).rgb.permute(2, 0, 1)
    expected = pipe.fix(filled[None], guide=seen[None])[0].permute(1, 2, 0)
    assert torch.allclose(fixed, expected, atol=1e-5)
    (alone,) = DifixFixer(pipe)([replace(degraded, references=(), reference_depths=())])
    assert not torch.equal(fixed, alone)


def test_coverage_is_that_before_a_backdrop_for_networks_that_know_it(toy_scene, truth, pipe, tmp_path):
    """Those of before see a backdrop as covered, as they did."""
    camera = toy_scene.cameras[2]
    degraded = References(toy_scene.cameras, [0, 1], truth).degraded(
        camera, truth(camera), Views(toy_scene).__getitem__
    )
    degraded = replace(degraded, near=None)  # so that its holes stay, as with a backdrop
    with_backdrop = replace(degraded, foreground=torch.zeros_like(degraded.alpha))
    assert torch.equal(next(DifixFixer(pipe)([with_backdrop])), next(DifixFixer(pipe)([degraded])))
    pipe.vae.see_foreground()
    knowing = next(DifixFixer(pipe, anchor_colors=False)([with_backdrop]))
    seen = guide(with_backdrop, 2)
    assert not seen[0].any()
    expected = pipe.fix(degraded.rgb.permute(2, 0, 1)[None], guide=seen[None])[0].permute(1, 2, 0)
    assert torch.allclose(knowing, expected, atol=1e-5)
    assert not torch.allclose(knowing, next(DifixFixer(pipe, anchor_colors=False)([degraded])))
    pipe.save_pretrained(tmp_path)
    assert DifixPipeline.from_pretrained(tmp_path).vae.foreground


def test_wrong_inputs_are_named(pipe):
    image = torch.rand(1, 3, 32, 32)
    with pytest.raises(UserError, match=r"The guide is \(1, 5, 32, 32\).*\(1, 9, 32, 32\)"):
        pipe.fix(image, guide=torch.zeros(1, 5, 32, 32))
    with pytest.raises(UserError, match="carried into the render"):
        pipe(image=image, ref_image=image)
