from dataclasses import replace

import pytest
import torch

from difix3d.distill import DistillConfig, judge
from difix3d.distill.pseudo import PseudoViews, draw, pack, unpack
from difix3d.errors import UserError
from difix3d.limits import check_limits
from difix3d.training.config import TrainConfig
from difix3d.types import Cameras


@pytest.fixture
def pseudo():
    sizes = [(6, 8), (6, 8), (4, 5)]
    return PseudoViews(
        cameras=Cameras(
            torch.eye(4).repeat(3, 1, 1), torch.eye(3).repeat(3, 1, 1), torch.ones(3).int(), torch.ones(3).int()
        ),
        images=tuple(torch.full((*size, 3), 51 * i, dtype=torch.uint8) for i, size in enumerate(sizes)),
        confidence=tuple(torch.full(size, 255, dtype=torch.uint8) for size in sizes),
        reference=torch.tensor([4, -1, 2]),
        weight=0.3,
        step=500,
    )


def probe_with(gains):
    """A trial whose gain in dB follows from the weight."""
    return lambda pseudo: [20.0, 30.0] if pseudo is None else [20 + gains[pseudo.weight], 30 + gains[pseudo.weight]]


@pytest.mark.parametrize(
    ("gains", "decision", "weight", "gain"),
    [
        ({0.3: 1.0}, "keep", 0.3, 1.0),
        ({0.3: -0.04}, "keep", 0.3, -0.04),
        ({0.3: -0.2, 0.075: -0.01}, "lower", 0.075, -0.01),
        ({0.3: -2.0, 0.075: -0.5}, "roll back", None, -0.5),
        ({0.3: float("nan"), 0.075: float("nan")}, "roll back", None, None),
    ],
)
def test_decisions(pseudo, gains, decision, weight, gain):
    kept, verdict = judge(pseudo, probe_with(gains), DistillConfig(tolerance=0.05))
    assert verdict.decision == decision
    assert (kept.weight if kept else None) == weight
    assert verdict.without == [20.0, 30.0]
    if gain is not None:
        assert verdict.gain == pytest.approx(gain)


def test_without_a_photo_to_spare_nothing_is_checked(pseudo):
    kept, verdict = judge(pseudo, None, DistillConfig())
    assert kept is pseudo
    assert verdict.decision == "unchecked"
    assert verdict.gain is None


def test_views_without_a_usable_pixel_are_refused_and_never_drawn(pseudo):
    import numpy as np

    dark = tuple(torch.zeros_like(weights) for weights in pseudo.confidence)
    kept, verdict = judge(replace(pseudo, confidence=dark), probe_with({}), DistillConfig())
    assert kept is None
    assert verdict.decision == "refuse"
    half = replace(pseudo, confidence=(dark[0], *pseudo.confidence[1:]))
    drawn = {draw(half, 1, np.random.default_rng(seed))[0] for seed in range(20)}
    assert drawn == {1, 2}


def test_views_survive_a_checkpoint(pseudo):
    again = unpack(pack(pseudo) | {"gaussians.means": torch.zeros(1)})
    assert (again.weight, again.step) == (0.3, 500)
    assert torch.equal(again.reference, pseudo.reference)
    for a, b in zip(again.images + again.confidence, pseudo.images + pseudo.confidence, strict=True):
        assert torch.equal(a, b)
    assert unpack({}) is None


def test_a_batch_has_one_size(pseudo):
    import numpy as np

    for seed in range(20):
        views = [pseudo.view(i, "cpu") for i in draw(pseudo, 3, np.random.default_rng(seed))]
        assert len({view.image.shape for view in views}) == 1
        assert len(views) == 3
        assert all(view.weight == 0.3 and view.index == -1 for view in views)
    assert float(pseudo.view(1, "cpu").image.max()) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("change", "steps", "expected"),
    [
        ({}, 30_000, list(range(3000, 30_000, 2000))),
        ({}, 2000, [500, 750, 1000, 1250, 1500, 1750]),
        ({"mode": "once"}, 2000, [500]),
        ({"mode": "off"}, 2000, []),
        ({"start": 0, "every": 1}, 5, [0, 1, 2, 3, 4]),
        ({}, 1, [0]),
        ({}, 0, []),
    ],
)
def test_schedules(change, steps, expected):
    assert list(replace(DistillConfig(), **change).schedule(steps)) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"references": 4}, r"--distill.references is 4. It must be 1 to 3"),
        ({"novel_prob": 1.5}, r"--distill.novel-prob is 1.5. It must be 0 to 1"),
        ({"num_held_out": 0}, r"--distill.num-held-out is 0. It must be 1 or more"),
        ({"min_alpha": float("nan")}, r"--distill.min-alpha is nan"),
    ],
)
def test_bad_options(change, message):
    with pytest.raises(UserError, match=message):
        check_limits(TrainConfig(distill=DistillConfig(**change)))
