"""JSON of strangers: bounded in size and depth, without doubtful values."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from edgecxr.storage.reading import BadFile, read_text

_DEEPEST = 32
_LONGEST_WHOLE = 20  # characters, as many as 64 bits need


def read_json(path: Path, largest: int, finite: bool = True) -> Any:
    """Return the value in a JSON file.

    Args:
        path: the file.
        largest: greatest number of bytes.
        finite: refuse NaN and infinite numbers.

    Raises:
        BadFile: the file is too large or no regular file, or its text is none that `parse_json` accepts.
        OSError: it cannot be read.
    """
    return parse_json(read_text(path, largest), finite)


def parse_json(text: str | bytes, finite: bool = True) -> Any:
    """Return the value of a JSON text.

    Args:
        text: the JSON, of limited length.
        finite: refuse NaN and infinite numbers.

    Raises:
        BadFile: it is no JSON, names a key twice, nests values too deeply, or has a whole number of more than 64 bits.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_table,
            parse_int=_whole,
            parse_float=_finite if finite else float,
            parse_constant=_finite if finite else float,
        )
    except BadFile:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadFile("its JSON is nested too deeply" if isinstance(error, RecursionError) else str(error)) from error
    check_depth(value)
    return value


def format_of(table: Any, key: str = "format") -> int:
    """Return the number of the format in which a table is written.

    Raises:
        BadFile: it is no table, or the number is no whole one from 1 on; true and 1.0 are none, though equal to 1.
    """
    number = table.get(key) if isinstance(table, dict) else None
    if type(number) is not int or number < 1:
        raise BadFile(f"its {key} is not a whole number above 0")
    return number


def check_depth(value: Any, deepest: int = _DEEPEST) -> None:
    """Refuse tables and lists that are nested more than `deepest` levels.

    What handles them later would need too deep a recursion.

    Raises:
        BadFile: they are.
    """
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(deepest):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise BadFile(f"its values are nested more than {deepest} levels deep")


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        # Another program may take the other of the two values.
        raise BadFile("it names a key twice")
    return table


def _whole(digits: str) -> int:
    if len(digits) > _LONGEST_WHOLE:
        raise BadFile(f"it has a whole number of {len(digits)} digits")
    return int(digits)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise BadFile(f"it holds {number[:20]}, which is no finite number")
    return value
