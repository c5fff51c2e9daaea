"""Every number that can be set has limits; they are checked wherever it comes from, and the help says them."""

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Literal, get_args, get_type_hints

import pytest

from difix3d.cli import benchmark, curate, download, evaluate, fix, render, train, view
from difix3d.cli.arguments import from_command_line
from difix3d.difix_training.config import TrainDifixConfig
from difix3d.errors import UserError
from difix3d.limits import Limits, check_limits, limits_of
from difix3d.training import Trainer
from difix3d.training.config import TrainConfig
from difix3d.training.configfile import merge

CONFIGS = {
    "train": TrainConfig(),
    "viewer": train.Command(),
    "view": view.ViewConfig(Path("run")),
    "render": render.RenderConfig(Path("run")),
    "evaluate": evaluate.EvaluateConfig((Path("run"),)),
    "fix": fix.FixConfig(Path("image.png")),
    "curate": curate.CurateConfig(),
    "train-difix": TrainDifixConfig(),
    "benchmark": benchmark.Options("mipnerf360"),
    "download": download.Download(),
}
BARE = ("recipe", "config", "show")  # groups that the command line shows without their names


def options(config, groups=(), prefix=""):
    """Names of the groups that a field lies in, the field's name, its hint, and what the command line calls it."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from options(value, (*groups, field.name), prefix if field.name in BARE else f"{prefix}{field.name}.")
        else:
            yield groups, field.name, hints[field.name], f"--{prefix}{field.name}".replace("_", "-")


def changed(config, groups, name, value):
    """The configuration with one value in place of another."""
    if not groups:
        return replace(config, **{name: value})
    return replace(config, **{groups[0]: changed(getattr(config, groups[0]), groups[1:], name, value)})


def kinds(hint):
    """The plain types in a type hint."""
    parts = get_args(hint)[:1] if hasattr(hint, "__metadata__") else get_args(hint)
    return {kind for part in parts for kind in kinds(part)} if parts else {hint}


NUMBERS = [
    pytest.param(name, *option, id=f"{name} {option[3]}")
    for name, config in CONFIGS.items()
    for option in options(config)
    if {int, float} & kinds(option[2])
]


@pytest.mark.parametrize(("name", "groups", "field", "hint", "flag"), NUMBERS)
def test_every_number_has_limits_and_is_refused_outside_of_them(name, groups, field, hint, flag):
    limits, whole = limits_of(hint), float not in kinds(hint)
    assert limits != Limits()
    assert str(limits)
    least = 1 if whole else 1e-6
    outside = [] if whole else [math.nan, math.inf, -math.inf]
    outside += [] if limits.min is None else [limits.min - least]
    outside += [] if limits.max is None else [limits.max + least]
    outside += [bound for bound in (limits.above, limits.below) if bound is not None]
    outside += [] if limits.multiple == 1 else [limits.min + 1]
    listed = isinstance(getattr(part_of(CONFIGS[name], groups), field), tuple)
    for value in map(int if whole else float, outside):
        given = (value, value) if listed else value
        with pytest.raises(UserError) as error:
            check_limits(changed(CONFIGS[name], groups, field, given))
        assert error.value.fact == f"{flag} is {f'{value} {value}' if listed else value}"
        assert str(limits) in error.value.limit
    for value in (limits.min, limits.max):
        if value is not None:
            assert limits.allow(value)


def part_of(config, groups):
    for group in groups:
        config = getattr(config, group)
    return config


@pytest.mark.parametrize("name", CONFIGS)
def test_defaults_are_within_their_limits(name):
    check_limits(CONFIGS[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--seed -1", r"^--seed is -1. It must be 0 to 4,294,967,295.$"),
        ("--seed 5000000000", "--seed is 5000000000. It must be 0 to 4,294,967,295"),
        ("--batch-size 0", "--batch-size is 0. It must be 1 or more"),
        ("--sh-degree 5", "--sh-degree is 5. It must be 0 to 3"),
        ("--densify.every 0", "--densify.every is 0. It must be 1 or more"),
        ("--init.points 0", "--init.points is 0"),
        ("--init.opacity 1", "--init.opacity is 1.0. It must be more than 0, less than 1"),
        ("--loss.dssim 2", "--loss.dssim is 2.0. It must be 0 to 1"),
        ("--near -1", "--near is -1.0. It must be more than 0"),
        ("--near nan", "--near is nan"),
        ("--memory-limit inf", "--memory-limit is inf"),
        ("--memory-limit 1e308", r"--memory-limit is 1e\+308. It must be 0 to 1,000,000"),
        ("--memory-budget 1e308", r"--memory-budget is 1e\+308. It must be more than 0, at most 1,000,000"),
        ("--keep-checkpoints -1", "--keep-checkpoints is -1. It must be 0 or more"),
        ("--max-steps -1", "--max-steps is -1. It must be 0 or more"),
        ("--eval-steps 5 0", "--eval-steps is 5 0. It must be 1 or more each"),
        ("--port 70000", "--port is 70000. It must be 0 to 65,535"),
    ],
)
def test_training_options_outside_their_limits(arguments, message):
    with pytest.raises(UserError, match=message):
        train.read(["--device", "cpu", *arguments.split()])


def test_groups_without_a_name_of_their_own_are_named_as_on_the_command_line():
    with pytest.raises(UserError, match=r"^--underfit is 0.5 1.0. It must be more than 0, less than 1 each"):
        from_command_line(curate.CurateConfig, "curate", ["demo", "--underfit", "0.5", "1"])


def test_paths_that_are_too_long_to_hold():
    with pytest.raises(UserError, match="--frames is 1000000000000. It must be 2 to 100,000"):
        check_limits(evaluate.EvaluateConfig((Path("run"),), frames=10**12))


def test_a_file_outside_the_limits_is_named():
    with pytest.raises(UserError, match=r"^x.yaml sets densify.every to 0. It must be 1 or more"):
        merge(TrainConfig(), {"densify": {"every": 0}}, source="x.yaml")
    with pytest.raises(UserError, match=r"^x.yaml sets near to nan. It must be more than 0"):
        merge(TrainConfig(), {"near": math.nan}, source="x.yaml")


def test_python_is_answered_as_the_command_line_is(config, toy_scene):
    with pytest.raises(UserError, match=r"^--seed is -1. It must be"):
        Trainer(replace(config, seed=-1), toy_scene)
    assert not config.output_dir.exists()


def test_a_choice_that_is_not_offered():
    @dataclass
    class Choice:
        background: Literal["black", "white"] | None = None

    check_limits(Choice("white"))
    check_limits(Choice())
    with pytest.raises(UserError, match="^--background is green. It must be one of black, white"):
        check_limits(Choice("green"))
