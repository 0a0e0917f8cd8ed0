"""TOML settings files, read strictly into frozen dataclasses.

The error for a typo names the file, the key and the closest valid key.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from edgecxr.errors import UsageError, brief
from edgecxr.storage.json_values import check_depth
from edgecxr.storage.reading import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

_LARGEST = 64 << 10  # the time for a key of many parts grows with the square of their number
_LARGEST_WHOLE = 1 << 53  # above it, floats skip integers, and huge ones overflow


def read(kind: type[T], path: Path) -> T:
    """Read a dataclass from a TOML file whose keys are its fields.

    Args:
        kind: a dataclass with simple fields: str, bool, int, float, tuples of those, dicts from str, or None; or with
            other such dataclasses, which are tables of the file.
        path: the file.

    Raises:
        UsageError: the file cannot be read, a key is unknown or missing, a value is of the wrong kind, or the dataclass
            refuses the values.
    """
    values = read_toml(path)
    try:
        return _fit_fields(kind, values)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _fit_fields(kind: type[T], values: dict[str, Any], table: str = "") -> T:
    """Return a dataclass with the values of a table."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    where = f" in [{table}]" if table else ""
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"unknown key {shown(key)}{where}{hint} (there are: {', '.join(fields)})")
    for name, field in fields.items():
        if field.default is field.default_factory is dataclasses.MISSING and name not in values:
            raise UsageError(f"the key {name!r} is missing{where}")
    return kind(**{key: _fit(f"{table}.{key}" if table else key, value, hints[key]) for key, value in values.items()})


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        UsageError: it cannot be read, or is not TOML.
    """
    try:
        values = tomllib.loads(read_text(path, _LARGEST))
        check_depth(values)
        return values
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{path} does not exist: give a TOML file") from error
    # A number with thousands of digits raises a plain ValueError.
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as TOML ({brief(error)}): correct it") from error


def _fit(key: str, value: Any, hint: Any) -> Any:
    """Return `value` as type `hint`: lists become tuples, ints become floats."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _fit(key, value, inner)
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is Ellipsis:
            return tuple(_fit(key, item, arguments[0]) for item in value)
        if len(value) == len(arguments):
            return tuple(_fit(key, item, argument) for item, argument in zip(value, arguments, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {name: _fit(f"{key}.{name}", item, arguments[1]) for name, item in value.items()}
    elif dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _fit_fields(typing.cast("type[Any]", hint), value, key)
    elif hint is float and (type(value) is float or (type(value) is int and abs(value) < _LARGEST_WHOLE)):
        return float(value)
    elif type(value) is hint:
        return value
    raise UsageError(f"the key {shown(key)} has the value {shown(value)}, which is not {_words(hint)}")


def shown(value: object) -> str:
    """Return the repr of a value for a message, cut if long."""
    return brief(repr(value), 80)


def _words(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        variadic = arguments[-1] is Ellipsis
        return f"a list of {_words(arguments[0])}" + ("" if variadic else f", {len(arguments)} of them")
    if origin is dict:
        return f"a table of {_words(arguments[1])}"
    if dataclasses.is_dataclass(hint):
        return "a table"
    return {str: "text", bool: "true or false", int: "a whole number", float: "a number"}.get(hint, str(hint))
