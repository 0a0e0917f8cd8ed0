"""Text that is no table, or in which lines are no rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

from edgecxr.errors import InputError, brief
from edgecxr.films.signatures import SUFFIXES

_LINES = 20  # in which a header may be

_NO_TEXT = {
    b"PK\3\4": "a ZIP archive or a workbook of Excel",
    b"\xd0\xcf\x11\xe0": "an old workbook of Excel",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"<": "a page of the web, or XML",
    b"version https://git-lfs": "a pointer of Git LFS, and the table itself was not fetched",
}
"""First bytes of files that are often called .csv -> what they are."""


def refuse_no_text(path: Path, content: bytes) -> None:
    """Refuse a file that is no text in UTF-8.

    Its name says nothing of that.

    Args:
        path: the file.
        content: its bytes.

    Raises:
        InputError: it is of another kind; the message names it. Reason "malformed".
    """
    for start, kind in _NO_TEXT.items():
        if content.startswith(start):
            raise InputError(f"{path} is {kind}: save the table as CSV in UTF-8", "malformed")
    if b"\0" in content:  # no name of a file holds one, and some Pythons read no further
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise InputError(
            f"line {line} of {path} holds a NUL character, as UTF-16 text does: save the table as CSV in UTF-8",
            "malformed",
        )


def refuse_swallowed(path: Path, rows: Sequence[Sequence[str]], lines: Sequence[int], separator: str) -> None:
    """Refuse a cell that holds lines of the table.

    A quotation mark without its partner makes one cell of all up to the next one in the same column. Lines of a text
    have other separators, or other words where the other rows have paths, numbers or labels.

    Args:
        path: the table.
        rows: its cells.
        lines: the line on which each row ends.
        separator: what separates the cells.

    Raises:
        InputError: there is such a cell; reason "malformed".
    """
    shapes: list[set[str]] = []
    for row, line in zip(rows, lines, strict=True):
        for column, cell in enumerate(row):
            inner = cell.splitlines() if "\n" in cell or "\r" in cell else []
            if len(inner) < 2 or cell.count(separator) != (len(inner) - 1) * (len(row) - 1):
                continue
            shapes = shapes or [set(map(_shape, cells)) for cells in zip(*rows, strict=True)]
            texts = (separator.join((*row[:column], inner[0])), *inner[1:])
            fields = [(place, field) for text in texts for place, field in enumerate(text.split(separator))]
            if all(place == column or (place < len(row) and _shape(field) in shapes[place]) for place, field in fields):
                raise InputError(
                    f"line {line} of {path} ends a cell that holds {len(inner) - 1} lines of the table: a quotation "
                    "mark is missing there or above; correct it",
                    "malformed",
                )


def _shape(cell: str) -> str:
    """Return what kinds of characters a cell is made of."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", cell.strip()))


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
