"""Cells that name films, studies and patients."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgecxr.data.tables.table import Table, is_unknown, listing
from edgecxr.errors import InputError
from edgecxr.storage.settings import shown

_Value = TypeVar("_Value")

_ENDING = re.compile(r"\.(?:dicom|dcm|png|jpe?g)$")
_NOBODY = frozenset(
    ("unknown", "anonymous", "anonymized", "anonymised", "anon", "unbekannt", "anonym", "inconnu", "desconocido", "?",
     "-", "--", "xxx")
)  # fmt: skip
"""Cells, in lower case, that say of a patient that nobody knows who it is."""

_MANY = 20  # images of one patient, who may be nobody if it is a quarter of all
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?[eE]\+\d+")
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

    An image whose patient is not known is a patient of its own. Names that are written in several ways, such as 7 and
    007 or Doe and DOE, are one patient: two that are taken for one cost little, one that is in two splits is a leak.

    Args:
        cells: (N,) what a table says of the patient.
        ids: (N,) names of the images.
    """
    keys = {cell: _patient_key(cell) for cell in set(cells)}
    spellings: dict[str, set[str]] = {}
    for cell, key in keys.items():
        spellings.setdefault(key, set()).add(cell)
    several = {key for key, ways in spellings.items() if len(ways) > 1 and not any(map(_is_nobody, ways))}
    nobody = [_is_nobody(cell) for cell in cells]
    patients = [
        image if unknown else keys[cell] if keys[cell] in several else cell
        for cell, image, unknown in zip(cells, ids, nobody, strict=True)
    ]
    warnings = []
    if any(nobody):
        words = listing(map(shown, sorted({cell for cell in cells if _is_nobody(cell) and not is_unknown(cell)})), 3)
        warnings.append(
            f"images whose patient is not known: {sum(nobody)} of {len(patients)}; each counts as a patient of its own"
            + (f" (also where the table says {words})" if words else "")
        )
    if several:
        warnings.append(
            f"patients whose name or number is written in several ways, each taken as one: {len(several)} "
            f"({listing((' and '.join(sorted(spellings[key])) for key in sorted(several)), 3)})"
        )
    rounded = sorted(filter(_ROUNDED.fullmatch, set(cells)))
    if rounded:
        warnings.append(
            f"numbers of patients that a spreadsheet has rounded: {len(rounded)} ({listing(rounded, 3)}); each may be "
            "several patients: take the table as it was before"
        )
    name, films = Counter(patients).most_common(1)[0] if patients else ("", 0)
    if films >= _MANY and films > len(patients) / 4:
        warnings.append(
            f"patient {shown(name)} has {films} of {len(patients)} images; if it means that the patient is not known, "
            "empty these cells"
        )
    return np.array(patients), warnings


def _is_nobody(cell: str) -> bool:
    return is_unknown(cell) or cell.lower() in _NOBODY


def _patient_key(cell: str) -> str:
    """Return what all spellings of a patient's name have in common.

    Case, width, leading zeros, and what stands between words and numbers do not count, but that something stands there.
    """
    text = unicodedata.normalize("NFKC", whole_number(cell)).casefold()
    return (
        " ".join(re.sub(r"^0+(?=\d)", "", part) for part in re.findall(r"\d+|[^\W\d_]+|[^\w\s='\".,-]", text)) or cell
    )
