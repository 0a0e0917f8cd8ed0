"""Cells that name films, studies and patients."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgecxr.data.tables.table import Table, is_unknown, listing
from edgecxr.errors import InputError
from edgecxr.storage.settings import shown

_Value = TypeVar("_Value")

_ENDING = re.compile(r"\.(?:dicom|dcm|png|jpe?g)$")
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
_WHOLE = re.compile(r"0*(\d+?)(?:\.0*)?")


def film_id(cell: str) -> str:
    """Return a film's hexadecimal name in lower case, without a file's ending."""
    return _ENDING.sub("", cell.lower())


def whole_number(cell: str) -> str:
    """Return a whole number without leading zeros and decimals.

    Other text stays as it is.
    """
    match = _WHOLE.fullmatch(cell)
    return match[1] if match else cell


def respelt(table: Table, columns: Sequence[str], spell: Callable[[str], str]) -> Table:
    """Return a table with some columns spelt in one way.

    Args:
        table: the table.
        columns: names of columns that exist.
        spell: `film_id` or `whole_number`.
    """
    return dataclasses.replace(
        table, columns=table.columns | {name: list(map(spell, table.columns[name])) for name in columns}
    )


def refuse_repeats(table: Table, columns: Sequence[str]) -> None:
    """Refuse a table with two lines for the same thing.

    Args:
        table: the table.
        columns: names of columns whose cells together tell the lines apart.

    Raises:
        InputError: cells come again; the message names both lines. Reason "dataset".
    """
    rows: dict[tuple[str, ...], int] = {}
    for row, cells in enumerate(zip(*(table.columns[name] for name in columns), strict=True)):
        first = rows.setdefault(cells, row)
        if first != row:
            key = ", ".join(f"{name} {shown(cell)}" for name, cell in zip(columns, cells, strict=True))
            raise InputError(
                f"line {table.lines[row]} of {table.path} lists {key} again, after line {table.lines[first]}: "
                "remove one of them",
                "dataset",
            )


def lookup(table: Table, key: str, values: Sequence[_Value]) -> dict[str, _Value]:
    """Map the cells of a column to values of the same lines.

    Args:
        table: the table.
        key: name of the column.
        values: (R,) the value of each line.

    Raises:
        InputError: two lines give a cell different values; reason "dataset".
    """
    rows: dict[str, int] = {}
    for row, cell in enumerate(table.columns[key]):
        first = rows.setdefault(cell, row)
        if values[first] != values[row]:
            raise InputError(
                f"line {table.lines[row]} of {table.path} says something else of {key} {shown(cell)} "
                f"({shown(values[row])}) than line {table.lines[first]} ({shown(values[first])}): remove one of them",
                "dataset",
            )
    return {cell: values[row] for cell, row in rows.items()}


def known_patients(cells: Sequence[str], ids: Sequence[str]) -> tuple[NDArray[np.str_], list[str]]:
    """Return the patient of each image, and warnings.

    An image whose patient is not known is a patient of its own. Names that are written in several ways, 7 and 007 or
    P7 and p007, are one patient: taken for two, they could lie in two splits.

    Args:
        cells: (N,) what a table says of the patient.
        ids: (N,) names of the images.
    """
    spellings: dict[str, set[str]] = {}
    for cell in cells:
        if not is_unknown(cell):
            spellings.setdefault(_one_spelling(cell), set()).add(cell)
    several = {name for name, ways in spellings.items() if len(ways) > 1}
    patients, unknown = [], 0
    for cell, image in zip(cells, ids, strict=True):
        name = _one_spelling(cell)
        unknown += is_unknown(cell)
        patients.append(image if is_unknown(cell) else name if name in several else cell)
    warnings = []
    if unknown:
        warnings.append(
            f"images whose patient is not known: {unknown} of {len(patients)}; each counts as a patient of its own"
        )
    if several:
        warnings.append(
            f"patients whose name is written in several ways, each taken as one: {len(several)} "
            f"({listing((' and '.join(sorted(spellings[name])) for name in sorted(several)), 3)})"
        )
    return np.array(patients), warnings


def _one_spelling(cell: str) -> str:
    return _LEADING_ZEROS.sub("", whole_number(cell).casefold())
