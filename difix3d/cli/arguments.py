"""Command lines from dataclasses."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import pairwise
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
from tyro.constructors import MISSING as NONE_GIVEN
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from difix3d.limits import Limits, check_limits, limits_of

Options = TypeVar("Options")
registry = ConstructorRegistry()


def from_command_line(
    options: type[Options], command: str, args: Sequence[str] | None, default: Options | None = None
) -> Options:
    """What the arguments say; ``--help`` shows the whole docstring, of which tyro alone would leave out the examples.

    Args:
        options: a dataclass, a field for each option.
        command: such as ``train``.
        args: by default those of the process.
        default: where the options start from; by default the dataclass's own.

    Raises:
        UserError: a value is outside its limits.
    """
    start: dict[str, Any] = {} if default is None else {"default": default}
    description = inspect.getdoc(options)
    made = tyro.cli(options, args=args, prog=f"difix3d {command}", description=description, registry=registry, **start)
    check_limits(made)
    return made


@registry.struct_rule
def dataclass_options(info: StructTypeInfo) -> StructConstructorSpec | None:
    """The options of a dataclass: help from the docstrings below its fields, as one paragraph, then the limits.

    tyro's own rule keeps a docstring's line break where the next line begins with a sign.
    """
    if not is_dataclass(info.type):
        return None
    hints = get_type_hints(info.type, include_extras=True)
    said = field_docstrings(info.type)
    options = []
    for field in fields(info.type):
        given = isinstance(info.default, info.type)
        hint = hints[field.name]
        options.append(
            StructFieldSpec(
                field.name,
                Annotated[hint, tyro.conf.arg(help_behavior_hint=ending(limits_of(hint)))],  # type: ignore[arg-type]
                getattr(info.default, field.name) if given else own_default(field),
                " ".join(said.get(field.name, "").split()),
            )
        )
    return StructConstructorSpec(info.type, tuple(options))


def ending(limits: Limits) -> Callable[[str], str]:
    """What stands behind the help of an option, from its default: ``(0 to 1; default: 0.3)``."""

    def text(default: str) -> str:
        parts = [] if limits == Limits() else [str(limits)]
        parts += [] if default in ("None", "") else [f"default: {default}"]
        return f"({'; '.join(parts)})" if parts else ""

    return text


def own_default(field: Field) -> Any:
    """The default of a dataclass's field."""
    if field.default is not MISSING:
        return field.default
    return NONE_GIVEN if field.default_factory is MISSING else field.default_factory()


def field_docstrings(kind: type) -> dict[str, str]:
    """The strings below the fields of a dataclass and of what it inherits from."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        if is_dataclass(part):
            body = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0].body  # type: ignore[attr-defined]
            for field, text in pairwise(body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    found[field.target.id] = ast.literal_eval(text.value)  # type: ignore[union-attr]
    return found
