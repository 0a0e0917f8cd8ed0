"""Columns of a table that look like those of images or patients."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from edgecxr.data.tables.table import Table, is_unknown, listing
from edgecxr.errors import InputError
from edgecxr.films.find import SUFFIXES

_PATIENTS = re.compile(
    r"(patient|subject|pat|participant)s?(id|identifier|no|nr|num|number|name|key|code)?s?|pid|mrn|patienten?(nummer|nr)"
)
_FILES = re.compile(r"(image|img|dicom|dcm|film)?(file|path|filename|filepath)s?|(image|img|dicom|dcm|film)(name)?s?")


def patients_hint(table: Table) -> str:
    """Return what to do where a table has no column of patients.

    Args:
        table: the user's table.
    """
    likely = next((name for name in table.columns if _PATIENTS.fullmatch(_plain(name))), None)
    return f"name the column of patients with --patient-column {shlex.quote(likely) if likely else 'NAME'}"


def require_images(table: Table, column: str) -> None:
    """Refuse a table without its column of images.

    Args:
        table: the user's table.
        column: its name.

    Raises:
        InputError: there is none; the message names one that looks like it. Reason "dataset".
    """
    if column in table.columns:
        return
    likely = _column_of_images(table)
    looks = f"; the column {likely!r} looks like it" if likely else ""
    raise InputError(
        f"{table.path} has no column {column!r}{looks}: name the column of image paths with --image-column "
        f"{shlex.quote(likely) if likely else 'NAME'} (it has: {listing(table.columns)})",
        "dataset",
    )


def _column_of_images(table: Table) -> str | None:
    """Return the first column whose cells name image files.

    Films often have no ending: then the column's name tells, as long as no cell of it comes twice.
    """
    for name, cells in table.columns.items():
        known = [cell for cell in cells if not is_unknown(cell)]
        if known and 2 * sum(Path(cell).suffix.lower() in SUFFIXES for cell in known) > len(known):
            return name
    called = (name for name in table.columns if _FILES.fullmatch(_plain(name)))
    return next((name for name in called if len(set(table.columns[name])) == len(table)), None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())
