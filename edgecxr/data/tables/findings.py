"""Columns of findings in a user's table, and their uncertain cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from edgecxr.data.tables.cells import UNCERTAIN, is_unsure
from edgecxr.data.tables.labels import plain_name
from edgecxr.data.tables.metadata import is_metadata
from edgecxr.data.tables.other_columns import is_mostly_labels, leave_out
from edgecxr.data.tables.table import Table, is_label_value, is_unknown, label_value, listing
from edgecxr.errors import InputError, UsageError
from edgecxr.storage.settings import shown
from edgecxr.vocabulary import FloatArray

_OPPOSITE = {"": "", "0": "1", "1": "0"}


def check_uncertain(uncertain: str) -> None:
    """Raise UsageError if there is no such handling of uncertain mentions."""
    if uncertain not in UNCERTAIN:
        raise UsageError(f"--uncertain {uncertain}: there are {', '.join(UNCERTAIN)}")


def decided(table: Table, columns: Collection[str], uncertain: str | None, normal: str | None = None) -> Table:
    """Return the table with its uncertain cells replaced.

    Args:
        table: the user's table.
        columns: where such cells may be.
        uncertain: a key of `UNCERTAIN`; None replaces nothing.
        normal: the column that is 1 if nothing is wrong: a doubt there is one about what is wrong, the other way round.

    Raises:
        UsageError: another handling of uncertainty.
    """
    if uncertain is None:
        return table
    check_uncertain(uncertain)
    value = UNCERTAIN[uncertain]
    of = dict.fromkeys(columns, value) | ({normal: _OPPOSITE[value]} if normal else {})
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
        known = [cell for cell in cells if not is_unknown(cell)]
        if known and all(map(is_label_value, known)):
            findings.append(column)
        elif is_mostly_labels(table, column) and not is_metadata(column, cells):
            raise _odd_cell(table, column, sum(not is_label_value(cell) for cell in known))
    if not findings:
        raise InputError(
            f"{table.path} has no column that holds only 0, 1 or nothing: name the findings with --labels", "dataset"
        )
    return tuple(findings)


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
