"""Command lines from dataclasses."""

import inspect
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

Options = TypeVar("Options")


def from_command_line(
    options: type[Options], command: str, args: Sequence[str] | None, default: Options | None = None
) -> Options:
    """What the arguments say; ``--help`` shows the whole docstring, of which tyro alone would leave out the examples.

    Args:
        options: a dataclass, a field for each option.
        command: such as ``train``.
        args: by default those of the process.
        default: where the options start from; by default the dataclass's own.
    """
    start: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(options, args=args, prog=f"difix3d {command}", description=inspect.getdoc(options), **start)
