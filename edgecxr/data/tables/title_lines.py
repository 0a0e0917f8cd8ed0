"""Lines above the header of a table, such as a title."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

from edgecxr.errors import InputError, brief
from edgecxr.films.signatures import SUFFIXES

_LINES = 20  # in which a header may be


def refuse_title(path: Path, text: Callable[[], Iterable[str]], separators: str) -> None:
    """Refuse a table whose first line is a title.

    It has one cell, and a line below it looks like a header.

    Args:
        path: the table.
        text: returns its lines.
        separators: what may separate its cells.

    Raises:
        InputError: there is a title; the message names the header's line. Reason "malformed".
    """
    for separator in separators:
        try:
            reader = csv.reader(text(), delimiter=separator)
            lines = [(reader.line_num, row) for row in islice(reader, _LINES) if any(row)]
        except (csv.Error, UnicodeDecodeError):
            continue
        if not lines or sum(map(bool, lines[0][1])) != 1:
            continue
        for place, (line, row) in enumerate(lines[1:-1], 1):
            if is_header(row) and len(lines[place + 1][1]) == len(row):
                raise title_error(path, line, row)


def title_error(path: Path, line: int, row: Sequence[str]) -> InputError:
    """Return the error that names the line of the header."""
    return InputError(
        f"line {line} of {path} looks like the header ({brief(', '.join(row), 80)}): remove the lines above it",
        "malformed",
    )


def is_header(row: Sequence[str]) -> bool:
    """Return whether a row looks like names of columns."""
    names = [cell.strip() for cell in row if cell.strip()]
    return (
        len(set(names)) == len(names) > 1
        and all(re.search(r"[^\W\d_]", name) for name in names)
        and not any(Path(name).suffix.lower() in SUFFIXES for name in names)
    )
