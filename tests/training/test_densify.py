"""When opacities are reset."""

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
