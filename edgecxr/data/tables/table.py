"""CSV tables with errors that say which line of which file is wrong."""

from __future__ import annotations

import contextlib
import csv
import difflib
import gzip
import io
import os
import zlib
from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import InputError
from edgecxr.vocabulary import FloatArray

_UNKNOWN = ("", "nan", "na", "n/a", "<na>", "null", "none")


@dataclass(frozen=True)
class Table:
    """A CSV file, column by column.

    Attributes:
        path: the file.
        columns: name -> the cells as text, without surrounding blanks.
        lines: the line of the file on which each row ends.
    """

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)

    def require(self, names: Iterable[str]) -> None:
        """Check that columns are there.

        Raises:
            InputError: some are not; the message names near misses and what was found.
        """
        missing = [name for name in names if name not in self.columns]
        if not missing:
            return
        near = [match for name in missing for match in difflib.get_close_matches(name, self.columns, n=1)]
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        raise InputError(
            f"{self.path} has no column {', '.join(map(repr, missing))}{hint} (it has: {listing(self.columns)})",
            "dataset",
        )

    def called(self, names: Container[str], taken: Container[str] = ()) -> str | None:
        """Return the first column that has one of the names, given in lower case, and is not taken; or None."""
        return next((column for column in self.columns if column.lower() in names and column not in taken), None)

    def values(self, column: str) -> FloatArray:
        """Return the label values of a column.

        Returns:
            (R,) in [0, 1], or NaN where a cell is empty.

        Raises:
            InputError: a cell holds anything else.
        """
        cells = self.columns[column]
        try:
            return np.array([label_value(cell) for cell in cells], np.float32)
        except ValueError:
            row = next(i for i, cell in enumerate(cells) if not is_label_value(cell))
            raise InputError(
                f"line {self.lines[row]} of {self.path}: column {column!r} holds {cells[row]!r}, but a label is 1, 0, "
                "a number between them, or empty where it is not known: correct the cell or leave the column out",
                "dataset",
            ) from None

    def numbers(self, column: str) -> NDArray[np.float64]:
        """Return the numbers of a column.

        Returns:
            (R,) finite, or NaN where a cell is empty.

        Raises:
            InputError: a cell holds anything else.
        """
        found = np.full(len(self), np.nan)
        for row, cell in enumerate(self.columns[column]):
            if cell.lower() in _UNKNOWN:
                continue
            with contextlib.suppress(ValueError):
                found[row] = float(cell)
            if not np.isfinite(found[row]):
                raise InputError(
                    f"line {self.lines[row]} of {self.path}: column {column!r} holds {cell!r}, which is no number: "
                    "correct the cell",
                    "dataset",
                )
        return found


@lru_cache(maxsize=1024)
def label_value(cell: str) -> float:
    """Return a label in [0, 1], or NaN for an empty cell.

    Raises:
        ValueError: the cell holds anything else.
    """
    if cell.lower() in _UNKNOWN:
        return float("nan")
    value = float(cell)
    if not 0 <= value <= 1:
        raise ValueError(cell)
    return value


def is_label_value(cell: str) -> bool:
    """Whether `label_value` takes the cell."""
    try:
        label_value(cell)
        return True
    except ValueError:
        return False


def read_table(path: Path) -> Table:
    """Read a CSV file in UTF-8, separated by commas, semicolons or tabs; one that ends in .gz is unpacked.

    Raises:
        InputError: the file is missing or empty (reason "dataset"), or not a CSV table (reason "malformed").
    """
    text = _text_of(path)
    first = text.partition("\n")[0]
    separator = next((s for s in ",;\t" if s in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        rows, lines = [], []
        for row in reader:
            if not any(row):
                continue
            if len(row) != len(header):
                raise InputError(
                    f"line {reader.line_num} of {path} has {len(row)} cells where the header has {len(header)}: "
                    "correct the line",
                    "malformed",
                )
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(
            f"line {reader.line_num} of {path} is not CSV ({error}): save it again", "malformed"
        ) from error
    twice = {name for name in header if name and header.count(name) > 1}
    if twice:
        raise InputError(f"{path} has two columns called {sorted(twice)[0]!r}: rename one", "malformed")
    if not rows:
        raise InputError(f"{path} has no rows: give a table with one image per line", "dataset")
    # Commas at the ends of lines, as NIH's list of boxes has them, make columns without a name.
    columns = {name: [row[i].strip() for row in rows] for i, name in enumerate(header) if name}
    return Table(path, columns, lines)


def _text_of(path: Path) -> str:
    # To open a FIFO would block, and a device may never end.
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path} is not a file: give the path of a CSV table", "dataset")
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            text = file.read().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} does not exist{_beside(path)}: check the path", "dataset") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is no whole gzip file: download it again", "malformed") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path", "dataset") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: save the table as CSV in UTF-8", "malformed") from error
    except ValueError as error:  # such as a lone surrogate in its name
        raise InputError(f"{path} does not exist: check the path", "dataset") from error
    return text


def listing(names: Iterable[str], most: int = 30) -> str:
    """Return names for a message, not more of them than a person would read."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _beside(path: Path) -> str:
    try:
        there = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return f", nor does the folder {path.parent}"
    return f" ({path.parent} holds: {listing(there, 8) or 'nothing'})"
