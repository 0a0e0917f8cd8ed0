"""Columns of findings in a user's table, and their uncertain cells."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from edgecxr.data.tables.cells import UNCERTAIN, is_unsure
from edgecxr.data.tables.labels import plain_name, read_parts
from edgecxr.data.tables.metadata import is_metadata
from edgecxr.data.tables.other_columns import is_mostly_labels, leave_out
from edgecxr.data.tables.statements import is_normal, objection
from edgecxr.data.tables.table import Table, is_label_value, is_unknown, label_value, listing
from edgecxr.errors import InputError, UsageError
from edgecxr.storage.settings import shown
from edgecxr.vocabulary import FloatArray

_OPPOSITE = {"": "", "0": "1", "1": "0"}


def check_uncertain(uncertain: str) -> None:
    """Raise UsageError if there is no such handling of uncertain mentions."""
    if uncertain not in UNCERTAIN:
        raise UsageError(f"--uncertain {uncertain}: there are {', '.join(UNCERTAIN)}")


def wanted_labels(labels: Sequence[str] | str | None) -> tuple[str | None, Sequence[str] | None, set[str]]:
    """Return what the user wants as findings.

    Args:
        labels: findings, the path of a TOML file that says what they are made of, or None.

    Returns:
        The file, if there is one; the findings, if they are named; and all names in either.

    Raises:
        UsageError: the file lists names under a finding that says that nothing is wrong.
    """
    if not isinstance(labels, str):
        return None, labels, set(labels or ())
    made_of = read_parts(Path(labels))
    normal = [label for label in made_of if is_normal(label)]
    if normal:
        raise UsageError(f"{labels} has {normal[0]!r} among the findings: name what it is made of with --normal-names")
    return labels, None, {part for parts in made_of.values() for part in parts}


def decided(table: Table, columns: Collection[str], uncertain: str | None, normal: Collection[str] = ()) -> Table:
    """Return the table with its uncertain cells replaced.

    Args:
        table: the user's table.
        columns: where such cells may be.
        uncertain: a key of `UNCERTAIN`; None replaces nothing.
        normal: columns that are 1 if nothing is wrong: a doubt there is one about what is wrong, the other way round.

    Raises:
        UsageError: another handling of uncertainty.
    """
    if uncertain is None:
        return table
    check_uncertain(uncertain)
    value = UNCERTAIN[uncertain]
    of = dict.fromkeys(columns, value) | dict.fromkeys(normal, _OPPOSITE[value])
    replaced = {
        name: [value if is_unsure(cell) else cell for cell in table.columns[name]] for name, value in of.items()
    }
    return dataclasses.replace(table, columns=table.columns | replaced)


def finding_columns(table: Table, candidates: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that are findings.

    Args:
        table: the user's table.
        candidates: columns without another meaning.

    Raises:
        InputError: there is none, or a column holds labels and something else; reason "dataset".
    """
    findings = []
    for column in candidates:
        cells = table.columns[column]
        known_cells = [cell for cell in cells if not is_unknown(cell)]
        if known_cells and all(map(is_label_value, known_cells)):
            findings.append(column)
        elif is_mostly_labels(table, column) and not is_metadata(column, cells):
            raise _odd_cell(table, column, sum(not is_label_value(cell) for cell in known_cells))
    if not findings:
        raise InputError(
            f"{table.path} has no column that holds only 0, 1 or nothing: name the findings with --labels", "dataset"
        )
    return tuple(findings)


def refuse_no_findings(table: Table, findings: Sequence[str]) -> None:
    """Refuse columns whose names may state something else than findings.

    Args:
        table: the user's table.
        findings: columns that would be taken as findings.

    Raises:
        InputError: there are such columns; reason "dataset".
    """
    denied = [name for name in findings if objection(name) and not is_metadata(name)]
    if denied:
        raise InputError(
            f"{table.path} has a column {shown(denied[0])} of 1 and 0, {objection(denied[0])}: name it with "
            f"--normal-column {shlex.quote(denied[0])} if it is 1 where nothing is wrong, leave what is no finding out "
            f"with {leave_out(denied)}, or name all columns of findings with --labels",
            "dataset",
        )


def require_named(table: Table, normal: Collection[str], unknown: Collection[str]) -> None:
    """Refuse names of --normal-names and --unknown-names that the table does not have.

    Args:
        table: the user's table, or that of class folders.
        normal: names of columns or classes, or in cells.
        unknown: cells.

    Raises:
        InputError: there is no such name; reason "dataset".
    """
    if not (normal or unknown):
        return
    cells = {cell for column in table.columns.values() for cell in column}
    parts = {plain_name(part.strip(" []{}'\"")) for cell in cells for part in re.split(r"[|;,\n/]", cell)}
    names = parts | set(map(plain_name, (*table.columns, *cells)))
    missing = [f"--normal-names {name}" for name in normal if plain_name(name) not in names]
    missing += [f"--unknown-names {cell}" for cell in unknown if cell not in cells]
    if missing:
        raise InputError(f"{table.path} has nothing of that name: {', '.join(missing)}; correct the option", "dataset")


def without(table: Table, columns: Collection[str], unknown: Collection[str]) -> Table:
    """Return the table without cells that mean "not known".

    Args:
        table: the user's table.
        columns: where such cells may be.
        unknown: the cells.
    """
    emptied = {name: ["" if cell in unknown else cell for cell in table.columns[name]] for name in columns}
    return dataclasses.replace(table, columns=table.columns | emptied)


def refuse_none(table: Table, columns: Sequence[str]) -> None:
    """Refuse a column that holds none where others hold 0.

    Raises:
        InputError: there is such a column, in which nothing else says that a finding is absent; reason "dataset".
    """
    for name in columns:
        cells = table.columns[name]
        row = next((row for row, cell in enumerate(cells) if cell.lower() == "none"), None)
        if row is not None and not (table.values(name) == 0).any():
            raise InputError(
                f"line {table.lines[row]} of {table.path}: column {shown(name)} holds {shown(cells[row])} and no 0: "
                f"write 0 if it means that nothing is there, or say --unknown-names {cells[row]} if it is not known",
                "dataset",
            )


def unknown_words(table: Table, columns: Sequence[str], normal: Collection[str] = ()) -> list[str]:
    """Return a warning that counts words for "not known".

    Args:
        table: the user's table.
        columns: columns of labels, or the one that names findings.
        normal: cells that the user says mean that nothing is wrong.
    """
    cells = (cell for name in columns for cell in table.columns[name])
    words = Counter(cell for cell in cells if cell and is_unknown(cell) and cell not in normal)
    if not words:
        return []
    counts = ", ".join(f"{shown(word)} {count}" for word, count in words.most_common())
    where = [name for name in columns if not words.keys().isdisjoint(table.columns[name])]
    return [
        f"cells that count as not known: {counts}, in {listing(where)}; if they mean that something is absent or that "
        f"nothing is wrong, write so, or else --unknown-names {shlex.quote(','.join(words))}"
    ]


def normal_differs(table: Table, normal: Sequence[str]) -> list[str]:
    """Return a warning about films that only some columns call normal.

    Args:
        table: the user's table.
        normal: columns that are 1 where nothing is wrong.
    """
    values = [table.values(name) for name in normal]
    films = int(np.any([(values[0] >= 0.5) != (value >= 0.5) for value in values], axis=0).sum()) if normal else 0
    if not films:
        return []
    return [
        f"films that only some of the columns {listing(normal)} call normal: {films}; they count as normal: if that is "
        "wrong, name one column with --normal-column and leave the others out with --ignore"
    ]


def finding_doubts(table: Table, findings: Sequence[str]) -> list[str]:
    """Return warnings about columns that were taken but may be no findings.

    Args:
        table: the user's table.
        findings: columns that were taken.
    """
    soft = {name for name in findings if not any(_is_hard(cell) for cell in table.columns[name])}
    doubtful = [name for name in findings if is_metadata(name) or name in soft]
    warnings = []
    if doubtful:
        names = listing(doubtful)
        warnings.append(f"taken as findings: {names}; if they are none, leave them out with {leave_out(doubtful)}")
    plain = [plain_name(name) for name in findings]
    alike = [name for name, key in zip(findings, plain, strict=True) if plain.count(key) > 1]
    if alike:
        warnings.append(f"findings of the same name but for case, blanks and underscores: {listing(alike)}")
    return warnings


def contradictions(labels: Sequence[str], targets: FloatArray, abnormal: FloatArray) -> list[str]:
    """Return a warning about films that are normal and have a finding.

    Args:
        labels: the L findings; support devices are found in normal films, too.
        targets: (N, L) in [0, 1] or NaN.
        abnormal: (N,) in [0, 1] or NaN.
    """
    own = [column for column, label in enumerate(labels) if label != "Support Devices"]
    against = (targets[:, own] >= 0.5) & (abnormal < 0.5)[:, None]
    films = int(against.any(axis=1).sum())
    if not films:
        return []
    which = [labels[column] for place, column in enumerate(own) if against[:, place].any()]
    return [f"films that are called normal and have a finding: {films} ({listing(which)}); both stay as they are"]


def check_columns(table: Table, columns: Sequence[str]) -> None:
    """Refuse columns of labels with a cell that is no label.

    Raises:
        InputError: there is such a cell; reason "dataset".
    """
    for column in columns:
        odd = sum(not is_label_value(cell) for cell in table.columns[column])
        if odd:
            raise _odd_cell(table, column, odd)


def _is_hard(cell: str) -> bool:
    return is_unknown(cell) or label_value(cell) in (0, 1)


def _odd_cell(table: Table, column: str, odd: int) -> InputError:
    row, cell = next((row, cell) for row, cell in enumerate(table.columns[column]) if not is_label_value(cell))
    unsure = " say with --uncertain what such cells count as," if is_unsure(cell) else ""
    return InputError(
        f"line {table.lines[row]} of {table.path}: column {shown(column)} holds {shown(cell)}, but a label is "
        f"1, 0, a number between them, or empty if it is not known ({odd} such cells in {len(table)} lines): correct "
        f"the cell,{unsure} or leave the column out with {leave_out([column])}",
        "dataset",
    )
