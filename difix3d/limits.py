"""What an option may be, beside the field that holds it, and the one check of it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import reduce
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from difix3d.errors import UserError


@dataclass(frozen=True)
class Limits:
    """What a number may be: ``share: Annotated[float, Limits(min=0, max=1)]``; in a tuple, each of its numbers.

    Attributes:
        min, max: least and largest value.
        above, below: what it has to be more, and less, than.
        multiple: what a whole number is a multiple of.
    """

    min: int | float | None = None
    max: int | float | None = None
    above: int | float | None = None
    below: int | float | None = None
    multiple: int = 1

    def allow(self, value: int | float) -> bool:
        """Whether the number is finite and within the limits."""
        return (
            (isinstance(value, int) or math.isfinite(value))  # of an integer of 400 digits that is an error
            and (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.multiple == 1 or value % self.multiple == 0)
        )

    def __str__(self) -> str:
        """Such as ``0 to 1``, ``1 or more``, ``more than 0, less than 1``."""
        if self.min is not None and self.max is not None:
            parts = [f"{self.min:,} to {self.max:,}"]
        else:
            parts = [] if self.min is None else [f"{self.min:,} or more"]
            parts += [] if self.above is None else [f"more than {self.above:,}"]
            parts += [] if self.max is None else [f"at most {self.max:,}"]
        parts += [] if self.below is None else [f"less than {self.below:,}"]
        parts += [] if self.multiple == 1 else [f"in multiples of {self.multiple}"]
        return ", ".join(parts) or "any finite number"


@dataclass(frozen=True)
class Formerly:
    """What an option was called before: ``fixer: Annotated[str, Formerly("weights")]``. The old name still works."""

    name: str


SEEDS = Limits(min=0, max=2**32 - 1)
"""What numpy and torch both take as a seed."""


def flag(path: str) -> str:
    """An option as the command line calls it: ``--densify.reset-every``."""
    return f"--{path.replace('_', '-')}"


def describe_option(path: str, value: Any) -> str:
    """How people know an option, and what they gave: ``--densify.every is 0``."""
    return f"{flag(path)} is {as_given(value)}"


def as_given(value: Any) -> str:
    """A value as people give it on the command line."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check_limits(config: Any, describe: Callable[[str, Any], str] = describe_option) -> None:
    """Refuses a configuration of which a number is outside its limits or not finite, or a choice is not offered.

    Afterwards the ``check`` of each part that has one says what limits of single fields cannot.

    Args:
        config: a (nested) dataclass.
        describe: from the dotted name of a field and its value to what an error says about them.

    Raises:
        UserError: names the first that is wrong, its value and its limits.
    """
    for names, path, hint in options_of(type(config)):
        value = reduce(getattr, names, config)
        limits, choices = limits_of(hint), choices_of(hint)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, int | float) and not isinstance(item, bool):
                fine: bool = limits.allow(item)
                allowed = str(limits)
            else:
                fine = not choices or item is None or item in choices
                allowed = f"one of {', '.join(map(str, choices))}"
            if not fine:
                raise UserError(describe(path, value), f"It must be {allowed}{' each' * isinstance(value, tuple)}")
    for part in _parts(config):
        part.check()


def limits_of(hint: Any) -> Limits:
    """The limits in a type hint; without any, a number has to be finite."""
    return next((item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Limits)), Limits())


def former_names(kind: type) -> dict[str, str]:
    """From the dotted names that options of a dataclass had to those that they have."""
    return {
        ".".join((*path.split(".")[:-1], item.name)): path
        for _, path, hint in options_of(kind)
        for item in getattr(hint, "__metadata__", ())
        if isinstance(item, Formerly)
    }


def choices_of(hint: Any) -> tuple[Any, ...]:
    """What a ``Literal`` offers, wherever it stands in a type hint."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    parts = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    return tuple(choice for part in parts for choice in choices_of(part))


def options_of(kind: type) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """The options of a (nested) dataclass: names from the outermost field inwards, dotted name, type hint."""
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        hint = hints[field.name]
        group = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if is_dataclass(group):
            # the command line shows a group without its name where it says tyro.conf.arg(name="")
            bare = any(getattr(item, "name", None) == "" for item in getattr(hint, "__metadata__", ()))
            for names, path, inner in options_of(group):  # type: ignore[arg-type]
                yield (field.name, *names), path if bare else f"{field.name}.{path}", inner
        else:
            yield (field.name,), field.name, hint


def _parts(config: Any) -> Iterator[Any]:
    """The configuration and all below it that have a ``check``, the innermost first."""
    for field in fields(config):
        if is_dataclass(getattr(config, field.name)):
            yield from _parts(getattr(config, field.name))
    if hasattr(config, "check"):
        yield config
