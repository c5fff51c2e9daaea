"""Changes carried from key frames: before a wall, where everything can be worked out by hand, and against the twin."""

import pytest
import torch

from difix3d import native
from difix3d.geometry import carry as module
from difix3d.geometry.carry import Key, carry, carry_twin, share_seen
from difix3d.types import Cameras, Degraded

SIZE, FOCAL = (20, 30), 30.0


def camera(x=0.0, *, turned=0.0, size=SIZE):
    """Looks along z; a wall at z = 3 moves by 10 pixels for each unit of x."""
    height, width = size
    angle = torch.tensor(turned)
    c2w = torch.eye(4)
    c2w[0, 0] = c2w[2, 2] = angle.cos()
    c2w[0, 2], c2w[2, 0] = angle.sin(), -angle.sin()
    c2w[0, 3] = x
    focal = FOCAL * width / SIZE[1]
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Cameras(c2w[None], K[None], torch.tensor([width]), torch.tensor([height]))


def wall(z=3.0):
    return torch.full(SIZE, z)


def noise(seed=0, size=SIZE):
    return torch.randn(*size, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["fast", "twin"])
def run(request):
    return carry if request.param == "fast" else carry_twin


def test_a_still_camera_gets_the_change_itself(run):
    change = noise()
    carried, seen = run([Key(camera(), wall(), change)], [1.0], wall(), camera())
    torch.testing.assert_close(carried, change, atol=1e-4, rtol=0)
    assert seen.all()


def test_a_change_stays_on_its_surface(run):
    change = noise()
    carried, seen = run([Key(camera(), wall(), change)], [1.0], wall(), camera(1.0))
    torch.testing.assert_close(carried[:, :20], change[:, 10:], atol=1e-4, rtol=0)
    assert seen[:, :20].all()
    assert not seen[:, 21:].any()
    for beyond, column in enumerate(range(20, 30)):  # in no key frame: what is at the edge of that goes on, and fades
        fading = max(0.0, 1 - (beyond + 0.5) / 3)
        torch.testing.assert_close(carried[:, column], change[:, -1] * fading, atol=1e-4, rtol=0)


def test_what_a_key_frame_has_at_a_place_counts_more_than_the_edge_of_another(run):
    far = Key(camera(-2.0), wall(), noise())  # its edge lies at the frame's tenth pixel
    here = Key(camera(), wall(9.0), torch.ones(*SIZE, 3))  # sees another surface
    carried, _ = run([far, here], [1.0, 1.0], wall(), camera())
    torch.testing.assert_close(carried[:, 11:], torch.ones(20, 19, 3), atol=1e-3, rtol=0)


def test_what_is_behind_a_key_frame_is_left_alone(run):
    carried, seen = run([Key(camera(), wall(), noise())], [1.0], wall(), camera(turned=3.1))
    assert not seen.any()
    assert (carried == 0).all()


def test_two_key_frames_count_by_their_weights(run):
    first, second = noise(1), noise(2)
    keys = [Key(camera(), wall(), first), Key(camera(), wall(), second)]
    carried, _ = run(keys, [3.0, 1.0], wall(), camera())
    torch.testing.assert_close(carried, (3 * first + second) / 4, atol=1e-4, rtol=0)


def test_what_stands_in_front_keeps_its_change_to_itself(run):
    """A post that only one key frame sees past: behind it, that one alone counts."""
    post = wall()
    post[:, 10:20] = 1.0
    hidden, free = Key(camera(), post, torch.ones(*SIZE, 3)), Key(camera(), wall(), torch.full((*SIZE, 3), -1.0))
    carried, seen = run([hidden, free], [1.0, 1.0], wall(), camera())
    assert seen.all()
    torch.testing.assert_close(carried[:, 10:20], torch.full((20, 10, 3), -1.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(carried[:, :10], torch.zeros(20, 10, 3), atol=1e-3, rtol=0)


def test_where_no_key_frame_sees_the_surface_the_change_at_that_place_counts(run):
    """Fog has a depth of no surface: without it, its changes would come and go with the key frames."""
    carried, seen = run([Key(camera(), wall(9.0), torch.ones(*SIZE, 3))], [0.25], wall(), camera())
    assert not seen.any()
    torch.testing.assert_close(carried, torch.ones(*SIZE, 3), atol=1e-4, rtol=0)


def test_what_is_behind_the_model_turns_with_the_camera_and_does_not_move(run):
    change, nothing = noise(), torch.zeros(SIZE)
    moved, seen = run([Key(camera(), nothing, change)], [1.0], nothing, camera(2.0))
    assert seen.all()
    torch.testing.assert_close(moved, change, atol=1e-2, rtol=0)
    turned, seen = run([Key(camera(), nothing, change)], [1.0], nothing, camera(turned=0.3))
    assert 0.6 < seen.float().mean() < 0.75  # it sees 0.93 radians, of which 0.3 are new
    assert (turned[:, :15] - change[:, :15]).abs().mean() > 0.5


def test_frames_of_other_sizes(run):
    large = (40, 60)
    ramp = torch.linspace(0, 1, 60).view(1, 60, 1).expand(40, 60, 3).contiguous()
    carried, seen = run([Key(camera(size=large), torch.full(large, 3.0), ramp)], [1.0], wall(), camera())
    assert seen.all()
    torch.testing.assert_close(carried[0, :, 0], torch.linspace(0.5 / 59, 58.5 / 59, 30), atol=1e-4, rtol=0)


@pytest.mark.skipif(native.find_compiler() is None, reason="needs a C++ compiler")
def test_the_fast_path_agrees_with_its_twin():
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        depths = [2 + torch.rand(size, generator=generator) for size in (SIZE, (31, 47), (24, 33))]
        depths[0][:5] = 0
        depths[1][:, :9] = 0
        xs = (torch.rand(3, generator=generator) - 0.5).tolist()
        keys = [
            Key(camera(x, turned=x / 3, size=tuple(depth.shape)), depth, noise(5, tuple(depth.shape)))
            for x, depth in zip(xs, depths, strict=True)
        ]
        depth = 2 + torch.rand(SIZE, generator=generator)
        fast, seen = carry(keys[1:], [0.3, 0.7], depth, keys[0].camera)
        slow, expected = carry_twin(keys[1:], [0.3, 0.7], depth, keys[0].camera)
        assert (seen != expected).float().mean() < 0.005  # a border between pixels, by rounding
        different = (fast - slow).abs().amax(-1) > 1e-3
        assert different.float().mean() < 0.005


def test_without_a_compiler_the_twin_runs(monkeypatch):
    monkeypatch.setattr(module.native, "load", lambda: None)
    change = noise()
    carried, _ = carry([Key(camera(), wall(), change)], [1.0], wall(), camera())
    torch.testing.assert_close(carried, change, atol=1e-4, rtol=0)


def frame(x=0.0, depth=None, alpha=1.0, size=SIZE):
    depth = torch.full(size, 3.0) if depth is None else depth
    return Degraded(camera(x, size=size), torch.zeros(*size, 3), torch.full(size, alpha), depth)


def test_the_share_that_another_frame_sees():
    assert share_seen(frame(), frame()) == 1
    assert share_seen(frame(1.0), frame()) == pytest.approx(2 / 3, abs=0.04)
    assert share_seen(frame(9.0), frame()) == 0
    assert share_seen(frame(), frame(depth=wall(9.0))) == 0
    assert share_seen(frame(size=(40, 60)), frame()) == 1
    assert share_seen(frame(9.0, alpha=0.1), frame()) == 1  # there is no surface to be seen
    assert share_seen(frame(9.0, depth=torch.zeros(SIZE)), frame()) == 1
