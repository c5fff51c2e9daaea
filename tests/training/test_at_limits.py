"""Short trainings with each number at its limits: they end, or say what is wrong."""

from contextlib import suppress
from dataclasses import replace

import pytest

from difix3d.errors import UserError
from difix3d.limits import limits_of, options_of
from difix3d.training import Trainer
from difix3d.training.config import TrainConfig

LARGE = {"init.points"}  # whose largest value is a matter of memory


def cases():
    for names, path, hint in options_of(TrainConfig):
        limits = limits_of(hint)
        if path.startswith("distill."):  # without a fixer nothing reads them
            continue
        values = {limits.min, None if path in LARGE else limits.max} - {None}
        values |= set() if limits.above is None else {limits.above + 1e-6}
        values |= set() if limits.below is None else {limits.below - 1e-6}
        if "float" in str(hint):
            values = set(map(float, values))
        for value in sorted(values):
            yield pytest.param(names, value, id=f"{path}={value}")


def changed(config, names, value):
    current = getattr(config, names[0])
    if len(names) > 1:
        return replace(config, **{names[0]: changed(current, names[1:], value)})
    return replace(config, **{names[0]: (value,) if isinstance(current, tuple) else value})


@pytest.mark.slow
@pytest.mark.parametrize(("names", "value"), list(cases()))
def test_at_the_limits(names, value, config, toy_scene):
    short = replace(config, max_steps=12, loss=replace(config.loss, depth=0.01))
    short = replace(short, refine=replace(config.refine, poses=True, exposure=True))
    for kind in ("default", "mcmc"):
        some = changed(replace(short, densify=replace(short.densify, kind=kind)), names, value)
        with suppress(UserError):
            Trainer(replace(some, output_dir=config.output_dir / kind), toy_scene).train()


@pytest.mark.parametrize("kind", ["default", "mcmc"])
def test_no_gaussian_would_be_left(kind, config, toy_scene):
    bare = replace(config, init=replace(config.init, opacity=0.0045), densify=replace(config.densify, kind=kind))
    with pytest.raises(UserError, match="all Gaussians are too transparent.*--densify.prune-opacity, 0.005"):
        Trainer(bare, toy_scene).train()


def test_gaussians_too_transparent_to_be_drawn(config, toy_scene):
    with pytest.raises(UserError, match="Before step 0 none of 9 .* shows a Gaussian.*--init.opacity"):
        Trainer(replace(config, init=replace(config.init, opacity=0.001)), toy_scene).train()
