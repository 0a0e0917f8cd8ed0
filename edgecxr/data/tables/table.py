"""CSV tables whose errors name the file and the line."""

from __future__ import annotations

import contextlib
import csv
import difflib
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.data.tables.table_text import is_header, refuse_no_text, refuse_swallowed, refuse_title, title_error
from edgecxr.errors import InputError, brief
from edgecxr.storage.reading import BadFile, read_bytes
from edgecxr.storage.settings import shown
from edgecxr.storage.spreadsheet import original
from edgecxr.vocabulary import FloatArray

LARGEST_TABLE = 256 << 20
"""Limit in bytes of a table."""

# Some times as much as the largest public data sets have; a cell takes up to 100 bytes of memory.
_MOST_CELLS, _MOST_COLUMNS, _MOST_LINES = 10_000_000, 10_000, 2_000_000
_UNKNOWN = ("", "nan", "-nan", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "null", "none", ".")

_SEPARATORS = ",;\t"
# Zero-width and direction marks, soft hyphens and byte order marks: nobody sees them, and they tell equal names apart.
_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_STATED = re.compile(rb"(?:\xef\xbb\xbf)?sep=([\t -~])\r?\n")  # a first line that Excel writes and reads
_LOOKED_AT = 50  # lines, to tell the separator; empty ones do not count, but there is an end to them


@dataclass(frozen=True)
class Table:
    """A CSV file, column by column.

    Attributes:
        path: the file.
        columns: name -> the cells as text, without surrounding blanks.
        lines: the line of the file on which each row ends.
        nameless: places, counted from 1, of columns that have cells but no name. They are not read, and a column that
            only numbers the rows is not among them.
    """

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]
    nameless: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.lines)

    def require(self, names: Iterable[str]) -> None:
        """Check that columns exist.

        Raises:
            InputError: columns are missing; the message names similar columns and those that exist.
        """
        missing = [name for name in names if name not in self.columns]
        if not missing:
            return
        for row, line in enumerate(self.lines[:_LOOKED_AT]):
            cells = [column[row] for column in self.columns.values()]
            if set(missing) <= set(cells):
                raise title_error(self.path, line, cells)
        near = [match for name in missing for match in difflib.get_close_matches(name, self.columns, n=1)]
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        raise InputError(
            f"{self.path} has no column {', '.join(map(repr, missing))}{hint} (it has: {listing(self.columns)})",
            "dataset",
        )

    def called(self, names: Container[str], taken: Container[str] = ()) -> str | None:
        """Return the column with one of several names.

        Args:
            names: accepted names, in lower case.
            taken: columns to skip.

        Returns:
            The column, or None.

        Raises:
            InputError: several columns have such names, and other cells.
        """
        columns = [column for column in self.columns if column.lower() in names and column not in taken]
        differing = [column for column in columns if self.columns[column] != self.columns[columns[0]]]
        if differing:
            raise InputError(
                f"{self.path} has columns {shown(columns[0])} and {shown(differing[0])} for the same thing, and they "
                "differ: rename or remove one",
                "dataset",
            )
        return columns[0] if columns else None

    def values(self, column: str) -> FloatArray:
        """Return the label values of a column.

        Returns:
            (R,) in [0, 1], or NaN if a cell is empty.

        Raises:
            InputError: a cell holds anything else.
        """
        cells = self.columns[column]
        try:
            return np.array([label_value(cell) for cell in cells], np.float32)
        except ValueError:
            row = next(i for i, cell in enumerate(cells) if not is_label_value(cell))
            raise InputError(
                f"line {self.lines[row]} of {self.path}: column {shown(column)} holds {shown(cells[row])}, but a "
                "label is 1, 0, a number between them, or empty where it is not known: correct the cell or leave the "
                "column out",
                "dataset",
            ) from None

    def numbers(self, column: str) -> NDArray[np.float64]:
        """Return the numbers of a column.

        Returns:
            (R,) finite, or NaN if a cell is empty.

        Raises:
            InputError: a cell holds anything else.
        """
        result = np.full(len(self), np.nan)
        for row, cell in enumerate(self.columns[column]):
            if is_unknown(cell):
                continue
            with contextlib.suppress(ValueError):
                result[row] = number(cell)
            if not np.isfinite(result[row]):
                raise InputError(
                    f"line {self.lines[row]} of {self.path}: column {shown(column)} holds {shown(cell)}, which is no "
                    "number: correct the cell",
                    "dataset",
                )
        return result


def is_unknown(cell: str) -> bool:
    """Whether a cell is empty, or says that nothing is known."""
    return cell.lower() in _UNKNOWN


@lru_cache(maxsize=1024)
def label_value(cell: str) -> float:
    """Return a label in [0, 1], or NaN for an empty cell.

    Raises:
        ValueError: the cell holds anything else.
    """
    if is_unknown(cell):
        return float("nan")
    value = number(cell)
    if not 0 <= value <= 1:
        raise ValueError(cell)
    return value


def number(cell: str) -> float:
    """Return the number in a cell.

    Raises:
        ValueError: it holds none.
    """
    if "_" in cell:  # Python would read 0_1 as 1
        raise ValueError(cell)
    return float(cell)


def is_label_value(cell: str) -> bool:
    """Return whether `label_value` accepts the cell."""
    try:
        label_value(cell)
        return True
    except ValueError:
        return False


def read_table(path: Path, written: bool = False) -> Table:
    """Read a CSV file in UTF-8.

    Cells are separated by commas, semicolons or tabs: by what divides most lines as the header. A gzip file is
    unpacked, whatever it is called. Characters that nobody sees count as none in a user's table.

    Args:
        path: the file.
        written: whether it is one that `edgecxr.storage.spreadsheet.csv_text` made, not one of a user.

    Raises:
        InputError: the file is missing or empty (reason "dataset"), or not a CSV table (reason "malformed").
    """
    content = _content(path)
    refuse_no_text(path, content)
    lines_in_all = max(content.count(b"\n"), content.count(b"\r"))
    _check_size(path, lines_in_all, _MOST_LINES, "lines")
    stated = None if written else _STATED.match(content)
    separator = "," if written else stated[1].decode() if stated else _separator(content)
    _check_size(path, content.count(separator.encode()) + lines_in_all, _MOST_CELLS, "cells")
    # Blanks around a cell mean nothing, so that a quotation mark after one opens a cell.
    reader = csv.reader(_text(content), delimiter=separator, strict=True, skipinitialspace=not written)
    start = 1  # line on which the next row begins
    try:
        if stated:
            next(reader)
        clean = str.strip if content.isascii() else visible
        header = [name if written else clean(name) for name in next(filter(any, reader), [])]
        if not written and not stated and sum(map(bool, header)) == 1:
            refuse_title(path, lambda: _text(content), _SEPARATORS)
        _check_size(path, len(header), _MOST_COLUMNS, "columns")
        rows: list[list[str]] = []
        lines: list[int] = []
        start = reader.line_num + 1
        for row in reader:
            start = reader.line_num + 1
            if not any(row):
                continue
            if len(row) != len(header):
                if not rows and len(row) > len(header) and is_header(row):
                    raise title_error(path, reader.line_num, row)
                raise InputError(
                    f"line {reader.line_num} of {path} has {len(row)} cells where the header has {len(header)}: "
                    "correct the line",
                    "malformed",
                )
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise _no_csv(path, error, start, reader.line_num) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: save the table as CSV in UTF-8", "malformed") from error
    twice = {name for name, count in Counter(header).items() if name and count > 1}
    if twice:
        raise InputError(f"{path} has two columns called {shown(sorted(twice)[0])}: rename one", "malformed")
    if not rows:
        raise InputError(f"{path} has no rows: give a table with one image per line", "dataset")
    if not written and b'"' in content:
        refuse_swallowed(path, rows, lines, separator)
    # Skip columns without a name, which come from commas at line ends, as in NIH's list of boxes.
    read = original if written else clean
    columns = {read(name): [read(row[i]) for row in rows] for i, name in enumerate(header) if name}
    nameless = tuple(i + 1 for i, name in enumerate(header) if not name and _is_informative([row[i] for row in rows]))
    return Table(path, columns, lines, nameless)


def _no_csv(path: Path, error: csv.Error, start: int, line: int) -> InputError:
    """Return the error for a row that is not CSV.

    Args:
        path: the table.
        error: what the csv module says.
        start: line on which the row begins.
        line: line that was read last.
    """
    if "end of data" in str(error):
        message = f"line {start} of {path} has a quotation mark without its partner: correct the line"
    else:
        message = f"line {line} of {path} is not CSV ({error}): save it again"
    return InputError(message, "malformed")


def visible(cell: str) -> str:
    """Return a text without what nobody sees."""
    return _INVISIBLE.sub("", cell).strip()


def _is_informative(cells: list[str]) -> bool:
    """Return whether a column without a name holds something.

    That is the case unless it is empty or only numbers the rows.
    """
    known_cells = {cell.strip() for cell in cells if not is_unknown(cell.strip())}
    return bool(known_cells) and not (len(known_cells) == len(cells) and all(map(str.isdecimal, known_cells)))


def _check_size(path: Path, count: int, most: int, unit: str) -> None:
    if count > most:
        raise InputError(f"{path} has more than {most} {unit}: give a table with one image per line", "malformed")


def _text(content: bytes) -> io.TextIOWrapper:
    # As a stream: the text as a whole may take four times the bytes.
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")


def _separator(content: bytes) -> str:
    """Return what separates the cells of a table.

    Names of columns and cells may have the other separators in them.
    """

    def fits(separator: str) -> tuple[float, int]:
        try:
            lines = csv.reader(_text(content), delimiter=separator, skipinitialspace=True)
            widths = [len(row) for row in islice(filter(any, islice(lines, 20 * _LOOKED_AT)), _LOOKED_AT)]
        except (csv.Error, UnicodeDecodeError):
            return 0.0, 0
        header, *rows = widths or [0]
        return (rows.count(header) / max(1, len(rows)) if header > 1 else 0.0), header

    return max(_SEPARATORS, key=fits)


def _content(path: Path) -> bytes:
    try:
        content = read_bytes(path, LARGEST_TABLE)
        if not content.startswith(b"\x1f\x8b"):
            return content
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as unpacked:
            content = unpacked.read(LARGEST_TABLE + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} does not exist{_beside(path)}: check the path", "dataset") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is no whole gzip file: download it again", "malformed") from error
    except (OSError, BadFile) as error:
        raise InputError(f"{path} cannot be read ({brief(error)}): give the path of a CSV table", "dataset") from error
    if len(content) > LARGEST_TABLE:
        raise InputError(f"{path} unpacks to more than {LARGEST_TABLE >> 20} MiB, which no table has", "malformed")
    return content


def listing(names: Iterable[str], most: int = 30) -> str:
    """Return names for a message, at most the first `most`."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(brief(name, 80) for name in names[:most]) + more


def _beside(path: Path) -> str:
    try:
        entries = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return f", nor does the folder {path.parent}"
    return f" ({path.parent} holds: {listing(entries, 8) or 'nothing'})"
