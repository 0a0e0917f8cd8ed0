"""Columns of a user's table that are not findings.

A film that is positive only in a column that is not used would count as normal. So a column may be passed over only if
it is known to be something else, or if the user says so.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence

import numpy as np

from edgecxr.data.tables.cells import is_answer, is_clear, is_positive, is_unsure
from edgecxr.data.tables.labels import SETS, is_finding, plain_name
from edgecxr.data.tables.table import Table, is_label_value, is_unknown, listing
from edgecxr.errors import InputError
from edgecxr.storage.settings import shown
from edgecxr.vocabulary import FloatArray

LABELLED = 0.5
"""Least share of labels among the known cells of a column of labels; its other cells are mistakes or uncertain."""

_FEW = 5  # most values of a column of grades or answers
_SOME = 20  # most values of a column of names, such as diagnoses
_LOOKED_AT = 5000  # values of a column that are searched for the names of findings

_METADATA = frozenset(
    re.findall(
        r"\S+",
        """
    sex gender male female age birth birthdate dob birthday race ethnicity religion language interpreter insurance
    weight height bmi smoker smoking pregnant pediatric paediatric deceased geschlecht alter geburtsdatum sexe sexo edad
    idade patient patients subject study series id ids uid uids mrn accession
    date time datum fecha year month day hour timestamp visit followup follow
    view position projection frontal lateral ap pa orientation laterality portable mobile bedside upright supine
    examined
    split fold partition subset official orig source src dataset origin site hospital institution institutional centre
    center clinic department ward station country city region inpatient outpatient emergency icu
    scanner manufacturer vendor detector modality kvp kv mas exposure current dose collimator grid
    width rows columns row column spacing resolution pixel pixels bits photometric window slope intercept frames dpi
    path dir directory folder file filename filepath files url uri link sha md hash checksum commit repo licence license
    format ext extension bytes filesize suffix mime repository requester procedure protocol priority price
""",
    )
)
"""Words for what is known of a film or a patient beside its findings."""

_NEUTRAL = frozenset(
    re.findall(
        r"\S+",
        """
    image images img film films original dicom dcm png jpg jpeg xray ray cxr chest tube of the in at by to up nr no num
    number name names code codes type types index set size new old value description x y a b mm cm ms kg yr years deid
    performed step sequence meaning representation interpretation aspect ratio method relative requested acquisition
    body part presentation local order rad depth bit stored
    report recent needed spatial
""",
    )
)
"""Words that name no finding beside those."""

_SAID = (
    frozenset(("m", "f", "o", "u", "male", "female", "other", "man", "woman", "w", "d", "männlich", "weiblich")),
    frozenset(("pa", "ap", "ll", "lat", "lateral", "frontal", "rl", "rlat", "llat", "lld", "rld", "obl", "oblique",
               "apsupine", "ap_supine", "posteroanterior", "anteroposterior", "postero-anterior", "antero-posterior")),
    frozenset(("cr", "dx", "rg", "sc", "ot", "rf", "xa")),
    frozenset(("monochrome1", "monochrome2", "rgb", "rgba", "l", "la", "i;16", "palette color", "ybr_full")),
    frozenset(("train", "training", "val", "valid", "validation", "test", "testing", "train_val", "holdout", "dev")),
    frozenset(("png", "jpg", "jpeg", "dcm", "dicom", "tif", "tiff", ".png", ".jpg", ".jpeg", ".dcm", ".dicom")),
)  # fmt: skip
"""Values of which a column says the same whatever it is called."""

_FORMS = re.compile(
    r"\d{4}[-./]?\d\d[-./]?\d\d(?:[ T_]?[\d:.]+Z?)?|\d\d?[./]\d\d?[./]\d{2,4}|\d\d?:\d\d(?::\d\d(?:\.\d+)?)?"  # when
    r"|\d+ ?[x*\u00d7] ?\d+(?: ?px| [A-Z]{1,4})?"  # size
    r"|[0-9a-fA-F]{32,128}|\d+(?:\.\d+){4,}"  # hash, UID
    r"|\S*/\S*\.\w{2,6}|\S+\.(?:png|jpe?g|dcm|dicom|tiff?)"  # path
)


def is_metadata(name: str, cells: Sequence[str] = ()) -> bool:
    """Return whether a column is known to hold no findings.

    Args:
        name: the column's name; each of its words must be known, and one must be that of metadata.
        cells: its cells; they say so by themselves if all of them are dates, sizes, paths, sexes or views.
    """
    if is_finding(name):
        return False
    for text in (name, re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)):  # kVp, and ViewPosition
        words = [word.lower() for word in re.findall(r"[^\W\d_]+", text)]
        if set(words) & _METADATA and set(words) <= _METADATA | _NEUTRAL:
            return True
    known = {cell.lower() for cell in cells if not is_unknown(cell)}
    if not known:
        return False
    return any(len(known) > 1 and known <= said for said in _SAID) or all(map(_FORMS.fullmatch, known))


def leave_out(names: Sequence[str]) -> str:
    """Return the option that leaves columns out."""
    return f"--ignore {shlex.quote(','.join(names))}"


def unused_doubts(table: Table, unused: Sequence[str]) -> list[str]:
    """Return the columns that may hold findings in another notation.

    They have few values, percents, the name of a finding or names of findings in their cells.

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
            f"{table.path} has columns that may hold findings in other words than 1 and 0: {values_of(table, doubts)}; "
            "without a column normal or abnormal, films that are positive only there would count as normal: write them "
            f"as 1 and 0, or leave them out with {leave_out(doubts)}",
            "dataset",
        )


def unused_warnings(table: Table, doubts: Sequence[str], unused: Sequence[str]) -> list[str]:
    """Return warnings about columns that are not used.

    Args:
        table: the user's table.
        doubts: those of `unused_doubts`.
        unused: columns without a meaning.
    """
    others = [name for name in unused if name not in doubts and not is_metadata(name, table.columns[name])]
    empty = [name for name in others if all(map(is_unknown, table.columns[name]))]
    named = [
        name for name in others if name not in empty and (_is_in_some_words(table, name) or _is_percent(table, name))
    ]
    warnings = [f"columns without a value, left out: {listing(empty)}"] if empty else []
    if doubts or named:
        warnings.append(
            f"columns that are used for nothing: {values_of(table, [*doubts, *named])}; if they hold findings, write "
            "them as 1 and 0"
        )
    return warnings


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
            f"{films} films count as normal although they are positive in columns that are left out: {listing(which)}"
        )
    unclear = [
        (name, line, cell)
        for name in left
        for line, cell in zip(table.lines, table.columns[name], strict=True)
        if not is_clear(cell)
    ]
    if unclear:
        places = listing((f"line {line} {shown(name)} {shown(cell)}" for name, line, cell in unclear), 5)
        warnings.append(f"cells of columns that are left out say neither yes nor no: {places}")
    return warnings


def is_mostly_labels(table: Table, name: str) -> bool:
    """Return whether a column holds labels or answers, but for some cells."""
    known = [cell for cell in table.columns[name] if not is_unknown(cell)]
    labelled = sum(map(is_label_value, known))
    answers = sum(is_answer(cell) or (labelled > 0 and is_unsure(cell)) for cell in known)
    return labelled + answers >= LABELLED * max(1, len(known)) and labelled + answers > 0


def values_of(table: Table, names: Sequence[str]) -> str:
    """Return columns with their values for a message."""
    return "; ".join(f"{shown(name)} ({listing(_values(table, name), 6)})" for name in names)


def _values(table: Table, name: str) -> list[str]:
    return [cell or "nothing" for cell in dict.fromkeys(table.columns[name])]


def _may_hold_findings(table: Table, name: str) -> bool:
    cells = table.columns[name]
    values = set(cells)
    known = {cell for cell in values if not is_unknown(cell)}
    if not known:
        return False
    if is_finding(name) or _is_percent(table, name):
        return True
    if len(known) <= _FEW and 1 < len(values) < len(cells):
        return True
    return any(_names_findings(cell) for cell in sorted(known)[:_LOOKED_AT])


def _is_percent(table: Table, name: str) -> bool:
    return any(re.fullmatch(r"[\d.,]+ ?%", cell) for cell in table.columns[name])


def _names_findings(cell: str) -> bool:
    return any(plain_name(part.strip(" []'\"")) in _FINDINGS for part in re.split(r"[|;,]", cell))


def _is_in_some_words(table: Table, name: str) -> bool:
    """Return whether a column repeats values, or holds labels or percents."""
    values = {cell for cell in table.columns[name] if not is_unknown(cell)}
    if 1 < len(values) <= _SOME and 4 * len(values) <= len(table):
        return True
    return all(map(_may_be_percent, values)) or any(is_label_value(cell) or is_answer(cell) for cell in values)


def _may_be_percent(cell: str) -> bool:
    return bool(re.fullmatch(r"\d{1,3}(?:[.,]\d+)?", cell)) and float(cell.replace(",", ".")) <= 100


_FINDINGS: Collection[str] = frozenset(plain_name(label) for labels in SETS.values() for label in labels)
