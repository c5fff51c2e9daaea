"""Command lines from dataclasses."""

import argparse
import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import MISSING as NONE_GIVEN
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from difix3d.console import console
from difix3d.errors import UserError
from difix3d.limits import Limits, check_limits, flag, former_names, limits_of
from difix3d.training.configfile import merge, read_own, read_yaml

Options = TypeVar("Options")
Config = TypeVar("Config")
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
    made = tyro.cli(
        options,
        args=renamed(options, sys.argv[1:] if args is None else args),
        prog=f"difix3d {command}",
        description=description(options),
        registry=registry,
        console_outputs=not console.quiet,
        config=(tyro.conf.PositionalMetavarFromFieldName,),
        **start,
    )
    check_limits(made)
    return made


def description(options: type) -> str:
    """The docstring as ``--help`` shows it: paragraphs in lines of 80 characters at most, examples as they are.

    tyro joins lines that begin with a letter; so those within a paragraph begin with spaces.
    """
    about, heading, examples = (inspect.getdoc(options) or "").replace("``", "`").partition("Examples:\n")
    wrap = textwrap.TextWrapper(80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n\n".join(map(wrap.fill, about.split("\n\n"))) + heading + examples


def read_config(
    args: Sequence[str] | None,
    start: Callable[[dict[str, Any]], Config],
    find: Callable[[dict[str, Any]], Path | None] = lambda _: None,
) -> tuple[Config, Path | None]:
    """What the options start from: a configuration, with a YAML file's values on top. The command line goes above it.

    The file is that of ``--config``, a resumed run's own ``config.yaml``, or what ``find`` finds.

    Args:
        args: the command line; by default that of the process.
        start: makes the configuration from what arguments and file say (the arguments' values as text).
        find: the file from what the arguments say.

    Returns:
        The configuration, and the file if there is one.

    Raises:
        UserError: a file that cannot be read, or an unknown key or a wrong value in it.
    """
    said = peek(args)
    path = Path(said["config"]) if "config" in said else find(said)
    if said.get("resume") and "output_dir" in said:
        path = Path(said["output_dir"]) / "config.yaml"
        if not path.is_file():
            raise UserError(f"There is no run in {path.parent}", f"{path.name} is missing", "Train it without --resume")
        values = read_own(path.parent)
    else:
        values = read_yaml(path) if path else {}
    return merge(start(values | said), values, source=str(path)), path


def peek(args: Sequence[str] | None) -> dict[str, Any]:
    """What the arguments say of the options that decide where the others start from."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name in ("scene", "config", "preset", "fixer", "device"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--output-dir", "--output_dir")
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction)
    return vars(parser.parse_known_args(args)[0])


def renamed(options: type, args: Sequence[str]) -> list[str]:
    """The arguments with options called as they are now; says which were called as before."""
    names = former_names(options).items()
    now = {flag(old): flag(new) for old, new in names} | {flag(f"no-{old}"): flag(f"no-{new}") for old, new in names}
    result = []
    for argument in args:
        name, equals, value = argument.partition("=")
        new = now.get(name.replace("_", "-"), name)
        if new != name:
            console.print(f"{name} is called {new} now")
        result.append(new + equals + value)
    return result


@registry.struct_rule
def dataclass_options(info: StructTypeInfo) -> StructConstructorSpec | None:
    """The options of a dataclass: help from the docstrings below its fields, as one paragraph, then the limits.

    tyro's own rule keeps a docstring's line break where the next line begins with a sign.
    """
    if not is_dataclass(info.type):
        return None
    hints = get_type_hints(info.type, include_extras=True)
    help_of = field_docstrings(info.type)
    options = []
    for field in sorted(fields(info.type), key=lambda field: field.kw_only is True):  # what commands share comes last
        hint, given = hints[field.name], isinstance(info.default, info.type)
        shown = tyro.conf.arg(metavar=metavar(hint), help_behavior_hint=ending(limits_of(hint)))
        options.append(
            StructFieldSpec(
                field.name,
                Annotated[hint, shown],  # type: ignore[arg-type]
                getattr(info.default, field.name) if given else own_default(field),
                " ".join(help_of.get(field.name, "").split()),
            )
        )
    return StructConstructorSpec(info.type, tuple(options))


def metavar(hint: Any) -> str | None:
    """``INT`` where tyro would say ``{None}|INT``, as the help says what leaving the option out means."""
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    kinds = [kind for kind in get_args(plain) if kind is not NoneType]
    optional = NoneType in get_args(plain) and len(kinds) == 1 and kinds[0] in (int, float, str, Path)
    return kinds[0].__name__.upper() if optional else None


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
