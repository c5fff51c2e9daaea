"""YAML files and nested dataclasses: each key is checked, and a wrong one is answered with the nearest right one."""

import difflib
import logging
import reprlib
import types
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from difix3d.errors import UserError
from difix3d.files import check_file
from difix3d.limits import check_limits, former_names
from difix3d.runfiles import changed, write_state

Config = TypeVar("Config")
log = logging.getLogger(__name__)

LARGEST = 64_000
"""Bytes of a configuration: more than enough, and read in a second."""

COMPLETE = "complete"
"""Last key of what :func:`write_yaml` writes: a file without it was cut short."""

BEGIN = f"# written by difix3d; the last line is '{COMPLETE}: true'\n"
"""First line of it, by which a file is known that should have that key."""

GONE = {"distill.confidence.render_tolerance"}
"""Options of earlier versions, which runs of that time still have in their settings."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        UserError: it is something else, or a run's own file that was cut short.
    """
    check_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    if len(content) > LARGEST:
        raise UserError(f"{path} has {len(content):,} bytes", f"A configuration has at most {LARGEST:,}")
    values = parse_yaml(content, str(path)) or {}
    if not isinstance(values, dict):
        raise UserError(f"{path} holds a {type(values).__name__}", "a configuration is a mapping of names to values")
    complete = values.pop(COMPLETE, False)
    if not complete and (changed(path) or content.startswith(BEGIN.encode())):
        raise _cut(path)
    if changed(path):
        log.warning("%s was changed after it was written; its settings are taken as they are", path)
    return values


def read_own(run: Path) -> dict[str, Any]:
    """The settings in a run's ``config.yaml``.

    Raises:
        UserError: it is something else, was cut short or is empty.
    """
    path = run / "config.yaml"
    values = read_yaml(path)
    if not values:
        raise _cut(path)
    return values


def _cut(path: Path) -> UserError:
    return UserError(
        f"{path} was cut short after it was written",
        f"Its last line is '{COMPLETE}: true'",
        "Put back what is lost, or train again; the defaults may be other settings than the run's",
    )


def parse_yaml(text: str | bytes, source: str) -> Any:
    """The value of a YAML text: plain values only.

    Args:
        text: if bytes, in UTF-8, or what its byte-order mark says.
        source: what to call it in errors.

    Raises:
        UserError: it is no YAML, or of an absurd depth or number.
    """
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a 13th month, thousands of digits or brackets
        raise UserError(f"{source} cannot be read as YAML ({error})") from error


def write_yaml(config: Any, path: Path) -> None:
    """All values of a configuration, defaults included, as :func:`read_yaml` and :func:`merge` take them back."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    write_state(path, BEGIN + yaml.safe_dump(plain(asdict(config)) | {COMPLETE: True}, sort_keys=False))


def shown(value: Any) -> str:
    """A value in an error: of nested lists only the beginning, as aliases can make them endless."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring = 2, 200
    return short.repr(value)


def merge(config: Config, values: dict[str, Any], *, source: str, prefix: str = "") -> Config:
    """A new configuration with ``values`` in place of what it had.

    Args:
        config: a (nested) dataclass.
        values: nested dict of differences.
        source: what to call their origin in errors.

    Raises:
        UserError: an unknown key (with the nearest known one), a value of another type than the field's, or one that
            the field's limits do not allow.
    """
    hints = get_type_hints(type(config))
    known = {item.name for item in fields(config)}  # type: ignore[arg-type]
    changes, now = {}, former_names(type(config))
    for key, value in ((now.get(key, key), value) for key, value in values.items()):
        name = f"{prefix}{key}"
        if name in GONE:
            continue
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            cure = f"Did you mean {prefix}{near[0]}?" if near else f"Known are: {', '.join(sorted(known))}"
            raise UserError(f"{source} sets {name}, which does not exist", cure=cure)
        current = getattr(config, key)
        if is_dataclass(current):
            if not isinstance(value, dict):
                raise UserError(
                    f"{source} sets {name} to {shown(value)}", f"{name} is a group of options: give it a mapping"
                )
            changes[key] = merge(current, value, source=source, prefix=f"{name}.")
        else:
            changes[key] = _convert(value, hints[key], name, source)
    merged = replace(config, **changes)  # type: ignore[type-var]
    if not prefix:
        check_limits(merged, lambda name, value: f"{source} sets {name} to {shown(value)}")
    return merged


def _convert(value: Any, hint: Any, name: str, source: str) -> Any:
    """The value as the field's type; YAML knows no tuples and no paths, and reads 1e-4 as text."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        hint = next(option for option in get_args(hint) if option is not type(None))
        return _convert(value, hint, name, source)
    if origin is Literal:
        if value in (True, False) and {"on", "off"} & set(get_args(hint)):
            value = "on" if value else "off"  # which YAML reads as booleans
        if value in get_args(hint):
            return value
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_convert(item, get_args(hint)[0], name, source) for item in value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    wanted = (
        f"one of {', '.join(map(str, get_args(hint)))}" if origin is Literal else getattr(hint, "__name__", str(hint))
    )
    raise UserError(f"{source} sets {name} to {shown(value)}", f"it must be {wanted}")
