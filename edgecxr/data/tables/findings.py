"""Columns of findings in a user's table, and their uncertain cells."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence

import numpy as np

from edgecxr.data.tables.labels import plain_name
from edgecxr.data.tables.table import Table, is_label_value, is_unknown, label_value, listing
from edgecxr.errors import InputError, UsageError
from edgecxr.storage.settings import shown
from edgecxr.vocabulary import FloatArray

UNCERTAIN = {"ignore": "", "ones": "1", "zeros": "0"}
"""What an uncertain mention counts as (Irvin et al., "CheXpert", AAAI 2019, section 4)."""

_UNSURE = ("-1", "-1.0", "?", "u", "uncertain", "unsure", "equivocal")

_DECIMAL_COMMA = re.compile(r"0,[0-9]+|1,0*")

_ANSWERS = ("yes", "no", "y", "n", "true", "false", "positive", "negative", "pos", "neg", "present", "absent", "+", "-")

_LABELLED = 0.5
"""Least share of labels among the known cells of a column of labels; its other cells are mistakes or uncertain."""


def check_uncertain(uncertain: str) -> None:
    """Raise UsageError if there is no such handling of uncertain mentions."""
    if uncertain not in UNCERTAIN:
        raise UsageError(f"--uncertain {uncertain}: there are {', '.join(UNCERTAIN)}")


def decided(table: Table, columns: Collection[str], uncertain: str | None) -> Table:
    """Return the table with its uncertain cells replaced.

    Args:
        table: the user's table.
        columns: where such cells may be.
        uncertain: a key of `UNCERTAIN`; None replaces nothing.

    Raises:
        UsageError: another handling of uncertainty.
    """
    if uncertain is None:
        return table
    check_uncertain(uncertain)
    replaced = {
        name: [UNCERTAIN[uncertain] if cell.lower() in _UNSURE else cell for cell in table.columns[name]]
        for name in columns
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
        known = [cell for cell in table.columns[column] if not is_unknown(cell)]
        labelled = sum(map(is_label_value, known))
        answers = sum(_is_answer(cell) or (labelled > 0 and cell.lower() in _UNSURE) for cell in known)
        if known and labelled == len(known):
            findings.append(column)
        elif labelled + answers >= _LABELLED * max(1, len(known)):
            raise _odd_cell(table, column, len(known) - labelled)
    if not findings:
        raise InputError(
            f"{table.path} has no column that holds only 0, 1 or nothing: name the findings with --labels", "dataset"
        )
    return tuple(findings)


def left_out_warnings(table: Table, findings: Sequence[str], candidates: Sequence[str]) -> list[str]:
    """Return warnings about columns that may be findings but were not taken.

    Args:
        table: the user's table.
        findings: columns that were taken.
        candidates: all columns without another meaning.
    """
    left = [name for name in candidates if name not in findings]
    empty = [name for name in left if all(map(is_unknown, table.columns[name]))]
    partly = [name for name in left if name not in empty and any(map(_may_be_label, table.columns[name]))]
    warnings = [f"columns without a value, left out: {listing(empty)}"] if empty else []
    if partly:
        warnings.append(
            f"columns with some labels among other cells, taken as no findings: {listing(partly)}; name the findings "
            "with --labels if they are"
        )
    return warnings


def finding_doubts(table: Table, findings: Sequence[str], also: Collection[str]) -> list[str]:
    """Return warnings about columns that were taken but may be no findings.

    Args:
        table: the user's table.
        findings: columns that were taken.
        also: names in lower case that are seldom findings.
    """
    soft = {name for name in findings if not any(_is_hard(cell) for cell in table.columns[name])}
    doubtful = [name for name in findings if name.lower() in also or name in soft]
    warnings = []
    if doubtful:
        names = ",".join(doubtful)
        warnings.append(f"taken as findings: {names}; if they are none, leave them out with --ignore {names}")
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


def counted_as_normal(
    table: Table, findings: Sequence[str], candidates: Sequence[str], abnormal: FloatArray
) -> str | None:
    """Return a warning if films count as normal that may not be.

    They are positive only in columns that are left out.

    Args:
        table: the user's table.
        findings: columns from which `abnormal` was derived.
        candidates: further columns; those that hold something other than labels say nothing.
        abnormal: (N,) in [0, 1] or NaN.
    """
    left = [name for name in candidates if name not in findings and all(map(is_label_value, table.columns[name]))]
    positive = [np.array([label_value(cell) >= 0.5 for cell in table.columns[name]]) for name in left]
    which = [name for name, column in zip(left, positive, strict=True) if (column & (abnormal < 0.5)).any()]
    if not which:
        return None
    films = int((np.any(positive, axis=0) & (abnormal < 0.5)).sum())
    return f"{films} films count as normal although they are positive in columns that are left out: {listing(which)}"


def _is_answer(cell: str) -> bool:
    return cell.lower() in _ANSWERS or bool(_DECIMAL_COMMA.fullmatch(cell))


def _may_be_label(cell: str) -> bool:
    cell = cell.removesuffix("%").strip()
    return not is_unknown(cell) and (is_label_value(cell) or _is_answer(cell))


def _is_hard(cell: str) -> bool:
    return is_unknown(cell) or label_value(cell) in (0, 1)


def _odd_cell(table: Table, column: str, odd: int) -> InputError:
    row, cell = next((row, cell) for row, cell in enumerate(table.columns[column]) if not is_label_value(cell))
    unsure = " say with --uncertain what such cells count as," if cell.lower() in _UNSURE else ""
    return InputError(
        f"line {table.lines[row]} of {table.path}: column {shown(column)} holds {shown(cell)}, but a label is "
        f"1, 0, a number between them, or empty if it is not known ({odd} such cells in {len(table)} lines): correct "
        f"the cell,{unsure} or leave the column out with --ignore {column}",
        "dataset",
    )
