"""Columns that look like those of images, patients or splits."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edgecxr.data.tables.splits import SYNONYMS
from edgecxr.data.tables.table import Table, is_label_value, is_unknown, listing
from edgecxr.data.tables.table_text import is_header, title_error
from edgecxr.errors import InputError
from edgecxr.films.find import SUFFIXES
from edgecxr.storage.settings import shown

_PATIENTS = re.compile(
    r"(patient|subject|pat|participant)s?(id|identifier|no|nr|num|number|name|key|code)?s?|pid|mrn|patienten?(nummer|nr)"
)
_FILES = re.compile(r"(image|img|dicom|dcm|film)?(file|path|filename|filepath)s?|(image|img|dicom|dcm|film)(name)?s?")
_NAMES = re.compile(r".*(?:split|partition|subset|dataset|phase|usage|fold|cohort).*|set|traintest|trainvaltest")
_FOLDS = re.compile(r"(?:k|cv|crossvalidation|inner|outer|random|stratified|group|patient|val|test)*(?:fold|split)s?"
                    r"(?:no|nr|num|number|id|idx|index)?\d*")  # fmt: skip
_FOLD = re.compile(r"(?:fold|split)?[ _-]*\d+(?:\.0*)?", re.IGNORECASE)
_FLAG = re.compile(r"(?:is|in|for|use)?(.+?)(?:split|films?|images?|data)?")


_LINES = 20  # in which a header may be


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
    for row, line in enumerate(table.lines[:_LINES]):
        cells = [column[row] for column in table.columns.values()]
        if is_header(cells) and any(cell == column or _FILES.fullmatch(_plain(cell)) for cell in cells):
            raise title_error(table.path, line, cells)
    likely = _column_of_images(table)
    looks = f"; the column {likely!r} looks like it" if likely else ""
    raise InputError(
        f"{table.path} has no column {column!r}{looks}: name the column of image paths with --image-column "
        f"{shlex.quote(likely) if likely else 'NAME'} (it has: {listing(table.columns)})",
        "dataset",
    )


@dataclass(frozen=True)
class Division:
    """How a table divides its films.

    Attributes:
        column: the column that names the splits; None if there is none.
        others: more columns about a division, which are no findings.
        warnings: what is notable about them.
    """

    column: str | None
    others: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def division(table: Table, column: str, taken: Collection[str | None]) -> Division:
    """Return how a user's table divides its films.

    Without that column, one whose cells are all words for splits divides them, whatever it is called.

    Args:
        table: the user's table.
        column: the column of splits if the table has it.
        taken: columns with another meaning.

    Raises:
        InputError: two columns name other splits, or one says with 1 and 0 which films are of a split; reason
            "dataset".
    """
    candidates = {name: cells for name, cells in table.columns.items() if name not in taken and name != column}
    named = [name for name, cells in candidates.items() if _names_splits(name, cells)]
    folds = [name for name, cells in candidates.items() if _numbers_folds(name, cells)]
    flags = [name for name, cells in candidates.items() if _flags_split(name, cells)]
    others = (*named, *folds, *flags)
    if column in table.columns:
        return Division(column, others)
    if any(_splits(table, name) != _splits(table, named[0]) for name in named):
        raise InputError(
            f"{table.path} has columns that name different splits ({listing(named)}): choose one with --split-column, "
            f"or leave them out with --ignore {shlex.quote(','.join(named))}",
            "dataset",
        )
    if named:
        note = (
            f"column {shown(named[0])} names splits, and is taken as it is; --ignore {shlex.quote(named[0])} divides "
            "the patients at random"
        )
        return Division(named[0], others, (note,))
    if flags:
        raise InputError(
            f"{table.path} says in column {shown(flags[0])} which films are of a split, but with 1 and 0: write train, "
            "val and test in a column split, or leave it out with "
            f"--ignore {shlex.quote(','.join(flags))}, which divides the patients at random",
            "dataset",
        )
    if folds:
        note = (
            f"columns of numbered folds, which are passed over: {listing(folds)}; the patients are divided at random, "
            "unless a column split holds train, val and test"
        )
        return Division(None, others, (note,))
    return Division(None, others)


def _splits(table: Table, name: str) -> list[str]:
    return [SYNONYMS.get(cell.lower(), cell) for cell in table.columns[name]]


def _names_splits(name: str, cells: list[str]) -> bool:
    """Return whether the cells are words for splits.

    If the column's name says that it is about a division, one word is enough, such as "valid" or "test (internal)". Its
    other cells are then refused where they are read.
    """
    splits = {SYNONYMS.get(cell.lower()) for cell in set(cells) if not is_unknown(cell)}
    if not _NAMES.fullmatch(_plain(name)):
        return len(splits) > 1 and None not in splits
    return any(word in SYNONYMS for cell in set(cells) for word in (cell.lower(), *cell.lower().split()[:1]))


def _numbers_folds(name: str, cells: list[str]) -> bool:
    known_cells = [cell for cell in set(cells) if not is_unknown(cell)]
    return bool(known_cells) and bool(_FOLDS.fullmatch(_plain(name))) and all(map(_FOLD.fullmatch, known_cells))


def _flags_split(name: str, cells: list[str]) -> bool:
    match = _FLAG.fullmatch(_plain(name))
    known_cells = [cell for cell in set(cells) if not is_unknown(cell)]
    return bool(match and match[1] in SYNONYMS and known_cells) and all(map(is_label_value, known_cells))


def _column_of_images(table: Table) -> str | None:
    """Return the first column whose cells name image files.

    Films often have no ending: then the column's name tells, as long as no cell of it comes twice.
    """
    for name, cells in table.columns.items():
        known_cells = [cell for cell in cells if not is_unknown(cell)]
        if known_cells and 2 * sum(Path(cell).suffix.lower() in SUFFIXES for cell in known_cells) > len(known_cells):
            return name
    called = (name for name in table.columns if _FILES.fullmatch(_plain(name)))
    return next((name for name in called if len(set(table.columns[name])) == len(table)), None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())
