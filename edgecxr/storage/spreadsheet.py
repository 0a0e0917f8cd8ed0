"""CSV files without formulas for spreadsheets, and their cells read back.

A spreadsheet computes a cell that begins with =, +, - or @, and a formula can start programs and send what is in other
cells away (OWASP, "CSV Injection"). Names of patients, images and findings come from others, so such a cell gets an
apostrophe in front, by which spreadsheets take it for text. Reading removes it again. Numbers stay as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)

# Blanks and invisible characters in front may be skipped; the wide forms count as signs in East Asian editions. A cell
# that already has apostrophes in front of a formula gets one more, so that reading gives back what was written.
_FORMULA = re.compile(
    r"'*(?:[\t\r\n]|[\s\x00-\x1f\x7f-\xa0\xad\u200b-\u200f\u2060\ufeff\"]*[=+\-@\uff1d\uff0b\uff0d\uff20])"
)


def csv_text(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV, whose cells `original` reads back.

    Args:
        header: names of the columns.
        rows: texts and numbers; texts that a spreadsheet would compute get an apostrophe.
    """
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in (header, *rows):
        cells = [_safe(cell) if isinstance(cell, str) else cell for cell in row]
        # Some Pythons leave a cell with a carriage return bare, which no reader accepts.
        writer = quoted if any(isinstance(cell, str) and "\r" in cell for cell in cells) else plain
        writer.writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace").decode()  # names of files need not be valid text


def original(cell: str) -> str:
    """Return what a cell of `csv_text` was made of."""
    if "'" not in cell:  # as nearly all of millions
        return cell
    return ";".join(part[1:] if part.startswith("'") and _is_formula(part[1:]) else part for part in cell.split(";"))


def _safe(cell: str) -> str:
    # Where the comma is the decimal sign, spreadsheets divide at semicolons.
    return ";".join(f"'{part}" if _is_formula(part) else part for part in cell.split(";"))


def _is_formula(text: str) -> bool:
    return _FORMULA.match(text) is not None and not _NUMBER.fullmatch(text)
