"""TOML files of settings -> frozen dataclasses, strictly: a typo names the file, the key and the near miss."""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from edgecxr.errors import UsageError, brief

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

_LARGEST = 1 << 20
_LARGEST_WHOLE = 1 << 53  # beyond it a float skips whole numbers, and far beyond it there are none


def read(kind: type[T], path: Path) -> T:
    """Make a dataclass of a TOML file whose keys are its fields.

    Args:
        kind: a dataclass with simple fields: str, int, float, tuples of those, dicts from str, or None.
        path: the file.

    Raises:
        UsageError: the file cannot be read, a key is unknown or missing, a value is of the wrong kind, or the dataclass
            refuses the values.
    """
    values = _values(path)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"{path}: unknown key {shown(key)}{hint} (there are: {', '.join(fields)})")
    for name, field in fields.items():
        if field.default is field.default_factory is dataclasses.MISSING and name not in values:
            raise UsageError(f"{path}: the key {name!r} is missing")
    try:
        return kind(**{key: _fit(key, value, hints[key]) for key, value in values.items()})
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _values(path: Path) -> dict[str, Any]:
    if not os.path.isfile(path):  # a FIFO would block
        problem = "is not a file" if os.path.exists(path) else "does not exist"
        raise UsageError(f"{path} {problem}: give a TOML file")
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise UsageError(f"{path} is too large for a file of settings")
        return tomllib.loads(content.decode("utf-8"))
    # A number of thousands of digits is a plain ValueError.
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as TOML ({brief(error)}): correct it") from error


def _fit(key: str, value: Any, hint: Any) -> Any:
    """Return `value` as the type `hint`, with lists as tuples; an int will do for a float."""
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
    elif hint is float and (type(value) is float or (type(value) is int and abs(value) < _LARGEST_WHOLE)):
        return float(value)
    elif type(value) is hint:
        return value
    raise UsageError(f"the key {shown(key)} has the value {shown(value)}, which is not {_words(hint)}")


def shown(value: object) -> str:
    """Return a value that a message quotes, cut where it is long."""
    return brief(repr(value), 80)


def _words(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        many = arguments[-1] is Ellipsis
        return f"a list of {_words(arguments[0])}" + ("" if many else f", {len(arguments)} of them")
    if origin is dict:
        return f"a table of {_words(arguments[1])}"
    return {str: "text", int: "a whole number", float: "a number"}.get(hint, str(hint))
