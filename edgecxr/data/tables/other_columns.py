"""Columns of a user's table that are not findings.

A film that is positive only in a column that is not used would count as normal. So a column may be passed over only if
it is known to be something else, or if the user says so.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import numpy as np

from edgecxr.data.tables.cells import is_answer, is_clear, is_positive, is_unsure
from edgecxr.data.tables.finding_words import is_named_after_finding, is_named_after_report, lists_findings
from edgecxr.data.tables.metadata import finding_words_in, is_metadata
from edgecxr.data.tables.statements import is_normal
from edgecxr.data.tables.table import Table, is_label_value, is_unknown, listing
from edgecxr.errors import InputError
from edgecxr.storage.settings import shown
from edgecxr.vocabulary import ABNORMAL, FloatArray

LABELLED = 0.5
"""Least share of labels among the known cells of a column of labels; its other cells are mistakes or uncertain."""

_FEW = 5  # most values of a column of grades or answers
_SOME = 20  # most values of a column that are printed


def leave_out(names: Sequence[str]) -> str:
    """Return the option that leaves columns out."""
    return f"--ignore {shlex.quote(','.join(names))}"


def unused_doubts(table: Table, unused: Sequence[str]) -> list[str]:
    """Return the columns that may hold findings in another notation.

    They are called after a finding or a report, or have few values, percents, or cells that name findings.

    Args:
        table: the user's table.
        unused: columns without a meaning.
    """
    return [name for name in unused if not is_metadata(name, table.columns[name]) and _may_hold_findings(table, name)]


def refuse_doubts(table: Table, doubts: Sequence[str]) -> None:
    """Refuse to derive normal/abnormal while columns may hold findings.

    Raises:
        InputError: there are such columns; reason "dataset".
    """
    if doubts:
        raise InputError(
            f"{table.path} has columns that may hold findings, but are not columns of 1 and 0: "
            f"{values_of(table, doubts)}. Films with a finding that only such a column names would count as normal: "
            "write its findings as columns of 1 and 0, add a column normal or abnormal, name all columns of findings "
            f"with --labels, or leave these columns out with {leave_out(doubts)}",
            "dataset",
        )


def derived_warnings(
    table: Table, unused: Sequence[str], ignore: Sequence[str], abnormal: FloatArray, refuse: bool
) -> list[str]:
    """Return warnings about columns left out where abnormal is derived.

    Args:
        table: the user's table.
        unused: columns without a meaning.
        ignore: columns that the user leaves out.
        abnormal: (N,) in [0, 1] or NaN, derived from the findings.
        refuse: whether columns that may hold findings are refused; not if the user named those that do.

    Raises:
        InputError: there are such columns; reason "dataset".
    """
    if refuse:
        refuse_doubts(table, unused_doubts(table, unused))
    others = [name for name in (*unused, *ignore) if name.lower() != ABNORMAL and not is_normal(name)]
    return counted_as_normal(table, others, abnormal) + metadata_warnings(table, unused)


def unused_warnings(table: Table, unused: Sequence[str]) -> list[str]:
    """Return warnings that name each column which is not used, except metadata.

    Args:
        table: the user's table.
        unused: columns without a meaning.
    """
    others = [name for name in unused if not is_metadata(name, table.columns[name])]
    empty = [name for name in others if all(map(is_unknown, table.columns[name]))]
    used_for_nothing = [name for name in others if name not in empty]
    warnings = [f"columns without a value, left out: {listing(empty)}"] if empty else []
    if used_for_nothing:
        warnings.append(
            f"columns that are used for nothing: {values_of(table, used_for_nothing)}; if they hold findings, write "
            "these as columns of 1 and 0"
        )
    if table.nameless:
        warnings.append(
            f"columns without a name, which are not used: {listing(map(str, table.nameless))}, counted from the left; "
            "name them if they hold findings"
        )
    return warnings


def metadata_warnings(table: Table, unused: Sequence[str]) -> list[str]:
    """Return a warning about columns of metadata whose cells name findings.

    Args:
        table: the user's table.
        unused: columns without a meaning.
    """
    words = {name: finding_words_in(table.columns[name]) for name in unused if is_metadata(name, table.columns[name])}
    named = [f"{shown(name)} ({listing(words[name], 3)})" for name in words if words[name]]
    if not named:
        return []
    return [
        f"columns that were taken for metadata name findings: {listing(named)}; what they say is not used: write it as "
        "columns of 1 and 0 if it is a finding of the film"
    ]


def counted_as_normal(table: Table, others: Sequence[str], abnormal: FloatArray) -> list[str]:
    """Return warnings if films count as normal that may not be.

    They are positive only in columns that are left out. Cells of these that are neither labels nor answers are named.

    Args:
        table: the user's table.
        others: columns that are left out; those that are metadata or hold few labels say nothing.
        abnormal: (N,) in [0, 1] or NaN, derived from the others.
    """
    left = [name for name in others if not is_metadata(name, table.columns[name]) and is_mostly_labels(table, name)]
    positive = [np.array(list(map(is_positive, table.columns[name])), bool) for name in left]
    which = [name for name, column in zip(left, positive, strict=True) if (column & (abnormal < 0.5)).any()]
    warnings = []
    if which:
        films = int((np.any(positive, axis=0) & (abnormal < 0.5)).sum())
        warnings.append(
            f"{films} films count as normal although they are positive in columns that are left out: {listing(which)}; "
            "if these are findings, name them with --labels or take them out of --ignore"
        )
    unclear = [
        (name, line, cell)
        for name in left
        for line, cell in zip(table.lines, table.columns[name], strict=True)
        if not is_clear(cell)
    ]
    if unclear:
        places = listing((f"line {line} {shown(name)} {shown(cell)}" for name, line, cell in unclear), 5)
        warnings.append(
            f"cells of columns that are left out say neither yes nor no, and were counted as no: {places}; correct "
            "them if they are findings"
        )
    return warnings


def is_mostly_labels(table: Table, name: str) -> bool:
    """Return whether a column holds labels or answers, but for some cells."""
    known_cells = [cell for cell in table.columns[name] if not is_unknown(cell)]
    labelled = sum(map(is_label_value, known_cells))
    answers = sum(is_answer(cell) or (labelled > 0 and is_unsure(cell)) for cell in known_cells)
    return labelled + answers >= LABELLED * max(1, len(known_cells)) and labelled + answers > 0


def values_of(table: Table, names: Sequence[str]) -> str:
    """Return columns with their values for a message.

    Texts are not repeated, since they may be about a patient; only the findings that they name.
    """
    return "; ".join(f"{shown(name)} ({_summary(table.columns[name])})" for name in names)


def _summary(cells: Sequence[str]) -> str:
    values = [cell or "nothing" for cell in dict.fromkeys(cells)]
    if len(values) <= _SOME and 2 * len(values) <= len(cells):
        return listing(values, 6)
    words = finding_words_in(cells)
    return f"{len(values)} different values" + (f", which name {listing(words, 3)}" if words else "")


def _may_hold_findings(table: Table, name: str) -> bool:
    cells = table.columns[name]
    values = set(cells)
    known_cells = {cell for cell in values if not is_unknown(cell)}
    if not known_cells:
        return False
    if is_named_after_finding(name) or is_named_after_report(name) or any(map(_is_percent, known_cells)):
        return True
    if len(known_cells) <= _FEW and 1 < len(values) < len(cells):
        return True
    return any(map(lists_findings, known_cells)) or bool(finding_words_in(cells))


def _is_percent(cell: str) -> bool:
    return bool(re.fullmatch(r"[\d.,]+ ?%", cell))
