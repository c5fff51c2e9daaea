"""When opacities are reset, and how many Gaussians there are by when."""

from dataclasses import replace

import pytest

from difix3d.training import Trainer
from difix3d.training.densify import Densifier, DensifyConfig
from difix3d.training.events import Stepped


@pytest.mark.parametrize(("every", "resets"), [(7, [7]), (5, [5, 10, 15]), (11, []), (0, [])])
def test_a_reset_leaves_densification_as_many_steps_to_mend_it(toy_scene, config, every, resets):
    """It makes all but transparent, and what was good takes long to come back."""
    densify = replace(config.densify, reset_every=every, start=2, every=100, stop=0.5)
    seen = []

    def look(event):
        if isinstance(event, Stepped) and trainer.gaussians.opacities.detach().sigmoid().max() < 0.0101:
            seen.append(event.step - 1)

    trainer = Trainer(replace(config, max_steps=40, densify=densify), toy_scene, [look])
    trainer.train()
    assert seen == resets


@pytest.mark.parametrize(("steps", "first"), [(7000, None), (30_000, 3000)])
def test_what_is_too_large_goes_from_the_first_reset_on(steps, first):
    strategy = Densifier(DensifyConfig(), max_steps=steps, extent=1.0).strategy
    assert strategy.reset_every == pytest.approx(first or steps + 1)
    assert all(step % strategy.reset_every for step in range(1, steps // 2))


@pytest.mark.parametrize(("steps", "late"), [(2000, False), (7000, True), (30_000, False)])
def test_where_no_reset_can_be_mended(steps, late):
    assert Densifier(DensifyConfig(), max_steps=steps, extent=1.0).resets_too_late == late
    assert not Densifier(DensifyConfig(reset_every=0), max_steps=steps, extent=1.0).resets_too_late


@pytest.mark.parametrize(
    ("steps", "first", "cap", "reached"),
    [(2000, 4000, 30_000, 0.7), (7000, 20_000, 100_000, 0.6), (30_000, 300_000, 1_000_000, 0.2)],
)
def test_mcmc_reaches_its_number_however_short_the_run(steps, first, cap, reached):
    """By gsplat's constant growth there would be 7,900, then all, then all; the longest run grows as with gsplat."""
    strategy = Densifier(DensifyConfig(kind="mcmc", stop=0.83, cap_max=cap), max_steps=steps, extent=1.0).strategy
    begin, end = strategy.refine_start_iter, strategy.refine_stop_iter
    count, rates = first, []
    for step in range(begin + 1, end):
        if step % strategy.refine_every == 0 and count < cap:
            rates.append(strategy.rate(count, step))
            count = min(cap, int(rates[-1] * count))
            last = step
    assert count == cap
    assert last <= begin + (reached + 0.01) * (end - begin)
    assert all(1.05 <= rate <= 1.25 for rate in rates)
    assert (set(rates) == {1.05}) == (steps == 30_000)


def test_mcmc_adds_as_many_as_its_rate_says(toy_scene, config):
    densify = replace(config.densify, kind="mcmc", cap_max=100_000, start=2, every=10, stop=0.9)
    trainer = Trainer(replace(config, max_steps=12, densify=densify), toy_scene)
    before = len(trainer.gaussians)
    trainer.train()
    assert len(trainer.gaussians) == int(1.25 * before)
