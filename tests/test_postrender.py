import threading
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

from difix3d.postrender import PostRender
from difix3d.postrender.pipe import ahead
from difix3d.render import rasterize
from difix3d.scene import Views


@pytest.fixture
def model(toy_scene, truth):
    """PostRender of the toy scene with a given fixer."""

    def make(fixer, **options):
        return PostRender(truth, fixer, toy_scene, Views(toy_scene).__getitem__, **options)

    return make


def darken(degraded):
    for item in degraded:
        yield item.rgb * 0.5


def test_a_frame_is_what_the_fixer_makes_of_it(toy_scene, truth, model):
    camera = toy_scene.cameras[2]
    plain, fixed = truth(camera), model(darken, trust=False)(camera)
    assert torch.allclose(fixed.rgb, plain.rgb.clamp(0, 1) * 0.5)
    assert torch.equal(fixed.alpha, plain.alpha)
    assert torch.equal(fixed.depth, plain.depth)


def test_a_trusting_pass_keeps_what_photos_agree_with(toy_scene, truth, model):
    camera = toy_scene.cameras[2]
    plain = truth(camera).rgb.clamp(0, 1)
    trusting, paper = (model(darken, trust=trust)(camera).rgb for trust in (True, False))
    assert (trusting - plain).abs().mean() < 0.3 * (paper - plain).abs().mean()


def test_a_fixer_that_does_harm_is_not_trusted_even_where_no_photo_sees(toy_scene, truth, model):
    def inverted(degraded):
        for item in degraded:
            yield 1 - item.rgb

    post = model(inverted)
    assert post.mean_agreement < 0.3
    for index in (0, 2, 6):
        plain = truth(toy_scene.cameras[index]).rgb.clamp(0, 1)
        assert torch.equal(post(toy_scene.cameras[index]).rgb, plain)
    assert model(lambda degraded: (item.rgb for item in degraded)).mean_agreement == 1


def test_the_stream_gives_the_same_frames_in_order(toy_scene, model):
    seen = []

    def fixer(degraded):
        for item in degraded:
            seen.append(item.references[0].index)
            yield item.rgb.flip(-1)

    post = model(fixer)
    cameras = [toy_scene.cameras[i] for i in range(12)]
    frames = list(post.stream(cameras))
    assert set(seen) <= set(toy_scene.train.tolist())
    for frame, camera in zip(frames, cameras, strict=True):
        assert torch.equal(frame, post(camera).rgb[0])


def test_the_fixer_is_offered_three_photos_with_their_depth(toy_scene, model):
    counts = []

    def fixer(degraded):
        for item in degraded:
            counts.append(len({photo.index for photo in item.references}))
            assert all(depth.max() > 0 for depth in item.reference_depths)
            assert len(item.reference_depths) == len(item.references)
            yield item.rgb

    model(fixer)(toy_scene.cameras[2])
    assert set(counts) == {3}


def test_one_photo(toy_scene, truth):
    """Too few to judge anything: the fixer is trusted."""
    scene = replace(toy_scene, train=toy_scene.train[:1])
    post = PostRender(truth, darken, scene, Views(scene).__getitem__)
    assert post(scene.cameras[2]).rgb.isfinite().all()
    assert post.mean_agreement == 1


@pytest.mark.parametrize("trust", [False, True])
def test_around_an_object_the_background_stays_whatever_the_fixer_puts_there(cutout, middle, trust):
    given = []

    def bright(degraded):
        for item in degraded:
            given.append(item)
            yield torch.ones_like(item.rgb)

    render = partial(rasterize, middle, background=torch.tensor([0.3, 0.6, 0.9]))
    post = PostRender(render, bright, cutout, Views(cutout).__getitem__, trust=trust)
    camera = cutout.cameras[2]
    plain, fixed = render(camera), post(camera)
    empty = plain.alpha[0, ..., 0] == 0
    assert empty.float().mean() > 0.3
    assert torch.allclose(fixed.rgb[0][empty], torch.tensor([0.3, 0.6, 0.9]), atol=1e-6)
    assert torch.equal(next(post.stream([camera])), fixed.rgb[0])
    assert (given[0].rgb[empty] == 0).all()  # the fixer sees render and references over black
    assert all((photo.image[photo.alpha == 0] == 0).all() for photo in given[0].references)


def test_ahead_keeps_the_order_and_works_in_advance():
    made = []

    def items():
        for i in range(6):
            made.append(i)
            yield i

    stream = ahead(items(), 3)
    assert next(stream) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made == [0, 1, 2, 3]
    assert list(stream) == [1, 2, 3, 4, 5]


def test_ahead_raises_what_its_thread_raised_and_leaves_no_thread_behind():
    def items():
        yield 1
        raise ValueError("broken")

    stream = ahead(items(), 2)
    assert next(stream) == 1
    with pytest.raises(ValueError, match="broken"):
        next(stream)
    half = ahead(iter(range(100)), 2)
    next(half)
    half.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
