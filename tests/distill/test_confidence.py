"""What photos say of a fix, where the render, the fix and the photos are known exactly."""

import math
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch

from difix3d.distill import confidence as module
from difix3d.distill.confidence import ConfidenceConfig
from difix3d.distill.references import References
from difix3d.errors import UserError
from difix3d.limits import check_limits
from difix3d.scene import Views
from difix3d.training.config import TrainConfig
from difix3d.training.configfile import merge

SIZE = (40, 48)
CONFIG = ConfidenceConfig()
compare_with_photos = partial(module.compare_with_photos, config=CONFIG)
mean_agreement = partial(module.mean_agreement, config=CONFIG)
share_of_fix = partial(module.share_of_fix, config=CONFIG)


@pytest.fixture
def case(toy_scene, render):
    """A test camera of the toy scene: its exact render, with the photos beside it."""
    camera = toy_scene.cameras[2]
    references = References(toy_scene.cameras, toy_scene.train.tolist(), render)
    return references.degraded(camera, render(camera), Views(toy_scene).__getitem__)


def alone(item):
    """The same render where no photo sees it."""
    return replace(item, references=(), reference_depths=())


def confidence(evidence, size):
    """Of a round with only this view."""
    return module.confidence(evidence, size, mean_agreement([evidence]), CONFIG)


def solid(item):
    """Pixels that are surely there, away from the edges, where warps blur."""
    return item.alpha > 0.9


def repainted(evidence, change=0.5):
    """The same evidence of a fix that changed all colours by as much."""
    return replace(evidence, change=torch.full(SIZE, change))


def test_an_honest_fix_is_believed_but_does_not_teach_what_it_left_alone(case):
    evidence = compare_with_photos(case, case.rgb)
    seen = evidence.visible & solid(case)
    assert evidence.visible.float().mean() > 0.3
    assert mean_agreement([evidence]) > 0.99
    assert confidence(evidence, SIZE).max() == 0
    assert (confidence(repainted(evidence), SIZE)[seen] > 0.99).all()


def test_blur_is_no_change_of_colours(case):
    """Between its means over windows of 9 pixels, a picture that is only blurred hardly differs."""
    image = torch.rand(*SIZE, 3, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(image.permute(2, 0, 1), 3, 1, 1, count_include_pad=False).permute(1, 2, 0)
    item = replace(alone(case), rgb=image)
    assert (image - blurred).abs().mean() > 0.15
    assert confidence(compare_with_photos(item, blurred), SIZE).mean() < 0.25
    assert confidence(compare_with_photos(item, (image + 0.3).clamp(0, 1)), SIZE).mean() > 0.7


def test_moments_are_those_of_the_valid_pixels_in_each_window():
    """Against their definition, pixel by pixel; where a window has no valid pixel, both are 0."""
    generator = torch.Generator().manual_seed(0)
    image, valid = torch.rand(14, 21, 3, generator=generator), torch.rand(14, 21, generator=generator) > 0.6
    valid[:, :12] = False
    expected, reach = torch.zeros(2, 3, 14, 21), CONFIG.window // 2
    for row, column in product(range(14), range(21)):
        window = slice(max(row - reach, 0), row + reach + 1), slice(max(column - reach, 0), column + reach + 1)
        inside = image[window][valid[window]]
        if len(inside):
            expected[:, :, row, column] = torch.stack([inside.mean(0), inside.std(0, correction=0)])
    assert (expected == 0).any()
    assert torch.allclose(module._moments(image[None], valid[None], CONFIG.window)[0], expected, atol=1e-3)


@pytest.mark.parametrize("harm", ["colors", "dark", "noise"])
def test_a_fix_that_contradicts_the_photos_is_not(case, harm):
    item = case
    noise = torch.randn(*SIZE, 3, generator=torch.Generator().manual_seed(0))
    fixed = {"colors": item.rgb[..., [1, 2, 0]], "dark": item.rgb * 0.3, "noise": (item.rgb + noise).clamp(0, 1)}[harm]
    assert confidence(compare_with_photos(item, fixed), SIZE).max() == 0


def test_a_repair_of_a_broken_render_is_believed(case):
    item = case
    broken = replace(item, rgb=item.rgb * 0.3 + 0.5)
    evidence = compare_with_photos(broken, item.rgb)
    weights = confidence(evidence, SIZE)  # 48 pixels wide, the evidence is not reduced
    assert weights[evidence.visible & solid(item)].mean() > 0.9
    assert (weights[solid(item)] > 0.6).all()


def test_where_no_photo_sees_the_fix_loses_weight_with_its_change(case):
    item = case
    unseen = compare_with_photos(alone(item), item.rgb.flip(-1))
    assert not unseen.visible.any()
    assert confidence(unseen, SIZE).max() <= 1
    little, much = (confidence(repainted(unseen, change), SIZE).mean() for change in (0.2, 0.8))
    assert 0.3 < much < 0.7 * little


def test_a_trusting_blend_keeps_what_was_right_and_takes_what_was_wrong(case):
    item = case
    broken = replace(item, rgb=item.rgb * 0.2 + 0.4)
    wrong = share_of_fix(compare_with_photos(broken, item.rgb), SIZE, 1.0)
    spoilt = share_of_fix(compare_with_photos(item, broken.rgb), SIZE, 1.0)
    assert wrong[solid(item)].mean() > 0.7
    assert spoilt[solid(item)].mean() < 0.5 * wrong[solid(item)].mean()
    unseen = compare_with_photos(alone(item), item.rgb)
    assert torch.allclose(share_of_fix(unseen, SIZE, 0.8), torch.full(SIZE, 0.8))
    assert share_of_fix(unseen, SIZE, 0.5).max() == 0


def test_a_trusting_blend_takes_detail_that_photos_have_and_leaves_out_noise(case):
    """Neither changes the mean colours of a window."""
    item = case
    blur = torch.nn.functional.avg_pool2d(item.rgb.permute(2, 0, 1)[None], 5, 1, 2)[0].permute(1, 2, 0)
    noise = 0.1 * torch.randn(*SIZE, 3, generator=torch.Generator().manual_seed(0))
    detail = share_of_fix(compare_with_photos(replace(item, rgb=blur), item.rgb), SIZE, 1.0)
    grain = share_of_fix(compare_with_photos(item, item.rgb + noise), SIZE, 1.0)
    assert detail[solid(item)].mean() > 0.6
    assert grain[solid(item)].mean() < 0.3


def test_a_fixer_that_photos_contradict_elsewhere_is_left_out_here(case):
    """The agreement of one frame may be chance: black around an object agrees with whatever is dark."""
    evidence = compare_with_photos(case, case.rgb)
    assert share_of_fix(evidence, SIZE, 0.59).max() == 0
    assert share_of_fix(evidence, SIZE, 0.61).max() > 0


def test_where_photos_see_each_other_pixel_a_blend_has_no_stipples():
    """Between petals, where depth is of no clear surface, a photo sees a pixel and not the next one."""
    generator = torch.Generator().manual_seed(0)
    visible, nothing = torch.rand(40, 60, generator=generator) < 0.5, torch.zeros(40, 60)
    share = share_of_fix(module.Evidence(visible, nothing, nothing + 0.01, nothing), (40, 60), 1.0)
    assert share.diff(dim=0).abs().max() < 0.2
    assert share.diff(dim=1).abs().max() < 0.2
    assert share.mean() == pytest.approx(0.45, abs=0.05)


def test_a_fix_that_hardly_any_photo_sees_has_the_credit_of_its_round(case):
    item = case
    unseen = repainted(compare_with_photos(alone(item), item.rgb), 0.2)
    assert torch.allclose(
        module.confidence(unseen, SIZE, 0.8, CONFIG), torch.full(SIZE, 0.8 * math.exp(-0.2)), atol=2e-3
    )
    assert module.confidence(unseen, SIZE, 0.3, CONFIG).max() == 0
    harm = compare_with_photos(item, 1 - item.rgb)
    assert mean_agreement([harm]) < mean_agreement([harm, compare_with_photos(item, item.rgb)]) < 1
    assert mean_agreement([unseen]) == 1


def test_the_numbers_decide(case):
    """They come from a configuration, where a YAML file may change them."""
    evidence = compare_with_photos(case, 1 - case.rgb)
    lenient = replace(CONFIG, min_round_agreement=0.0, min_view_agreement=0.0, min_weight=0.0)
    assert confidence(evidence, SIZE).max() == 0
    assert module.confidence(evidence, SIZE, mean_agreement([evidence]), lenient).max() > 0
    config = merge(TrainConfig(), {"distill": {"confidence": {"min_weight": 0.1}}}, source="test")
    assert config.distill.confidence == replace(CONFIG, min_weight=0.1)
    with pytest.raises(UserError, match="window of the confidence is 8.*odd"):
        check_limits(merge(TrainConfig(), {"distill": {"confidence": {"window": 8}}}, source="test"))


@pytest.mark.gpu
@pytest.mark.parametrize("window", [1, 9])
def test_a_gpu_sums_windows_as_a_host_does(window):
    values = torch.rand(2, 3, 17, 23)
    expected = module._sums(values, window)
    torch.testing.assert_close(module._sums(values.cuda(), window).cpu(), expected, atol=1e-4, rtol=1e-5)
