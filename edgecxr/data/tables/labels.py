"""What the same finding is called in different data sets, so that a model of one can be tried on another.

Data sets agree on few names. `choose` takes the findings that a user wants, by a set's name, by a file or one by one,
and says of which of a data set's own findings each is made: of one that means the same, or of several, of which any
makes it positive. What a data set does not know of stays unknown: it is neither trained on nor scored.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from edgecxr.errors import UsageError, brief
from edgecxr.vocabulary import FloatArray

_VINDR14 = (
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD"),
    *("Infiltration", "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening"),
    *("Pneumothorax", "Pulmonary fibrosis"),
)
_VINDR22 = (
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation"),
    *("Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst"),
    *("Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax"),
    *("Pulmonary fibrosis", "Rib fracture", "Other lesion"),
)
_NIH14 = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)
_CHEXPERT13 = (
    *("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation"),
    *("Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"),
)
SETS = {
    "vindr14": _VINDR14,
    "vindr22": _VINDR22,
    "all": (*_VINDR22, "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases"),
    "nih14": _NIH14,
    "chexpert13": _CHEXPERT13,
    "chexpert5": ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"),
}
"""vindr14: the paper's list. vindr22: what VinDr-CXR marks with boxes; all: and its diagnoses of the whole film. nih14:
ChestX-ray14 and ChestMNIST. chexpert13: CheXpert and MIMIC-CXR but for No Finding; chexpert5: what CheXpert's readers
competed on."""

SAME = (
    ("Pleural effusion", "Effusion", "Pleural Effusion"),
    ("Pleural thickening", "Pleural_Thickening"),
    ("Pulmonary fibrosis", "Fibrosis"),
    ("Other diseases", "Other disease"),
)
"""Names of one finding. Names that differ in nothing but case, blanks and underscores are the same as well."""

PARTS = {"Nodule/Mass": ("Nodule", "Mass")}
"""A finding that others have in parts: any of them makes it positive."""

Sources = dict[str, tuple[str, ...]]
"""Wanted finding -> the data set's own findings that it is made of; none where it is not known there."""


def choose(labels: str | Sequence[str] | None, own: Sequence[str], where: str) -> Sources:
    """Return of which of a data set's findings each wanted one is made, in the order wanted.

    Args:
        labels: a name in `SETS`, the path of a TOML file, or findings; None takes the data set's own.
        own: its findings.
        where: what to call the data set in messages.

    Raises:
        UsageError: an unknown set, a file that is none of findings, one finding twice, or nothing that is known there.
    """
    if labels is None:
        return {label: (label,) for label in own}
    if isinstance(labels, str) and labels.lower().endswith(".toml"):
        chosen = _from_file(Path(labels), own, where)
    else:
        if isinstance(labels, str) and labels not in SETS:
            raise UsageError(
                f"unknown label set {labels!r} (there are: {', '.join(SETS)}; or give the findings, or a TOML file)"
            )
        wanted = SETS[labels] if isinstance(labels, str) else tuple(labels)
        if not wanted or len(set(wanted)) < len(wanted):
            raise UsageError(f"labels must be different findings (given: {', '.join(wanted)})")
        chosen = {label: _made_of(label, own) for label in wanted}
        unknown = [label for label, parts in chosen.items() if not parts]
        if unknown and not isinstance(labels, str):  # a set asks for what there is; who names findings wants them
            near = difflib.get_close_matches(unknown[0], own, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"{where} does not know of {', '.join(unknown)}{hint} (it has: {', '.join(own)})")
    if not any(chosen.values()):
        raise UsageError(
            f"{where} knows none of {', '.join(chosen)} (it has: {', '.join(own)}): choose others with --labels"
        )
    return chosen


def merged(values: FloatArray, own: Sequence[str], sources: Sources) -> FloatArray:
    """Return the values of the wanted findings.

    Args:
        values: (N, M) of the data set's own findings, in [0, 1] or NaN.
        own: the M findings.
        sources: what `choose` returned, L findings.

    Returns:
        (N, L): of several, the largest; unknown where none is positive and one is unknown.
    """
    place = {label: column for column, label in enumerate(own)}
    columns = []
    for parts in sources.values():
        if not parts:
            columns.append(np.full(len(values), np.nan, np.float32))
            continue
        of_parts = values[:, [place[part] for part in parts]]
        known = np.fmax.reduce(of_parts, axis=1)
        columns.append(np.where((known < 0.5) & np.isnan(of_parts).any(axis=1), np.float32(np.nan), known))
    return np.stack(columns, axis=1).astype(np.float32)


def wanted_of(sources: Sources) -> dict[str, list[str]]:
    """Return the wanted findings that each of a data set's own is part of."""
    wanted: dict[str, list[str]] = {}
    for label, parts in sources.items():
        for part in parts:
            wanted.setdefault(part, []).append(label)
    return wanted


def is_finding(name: str) -> bool:
    """Whether one of the sets has a finding of that name; case, blanks and underscores do not count."""
    return any(_plain(name) == _plain(label) for labels in SETS.values() for label in labels)


def unknown_warnings(sources: Sources, own: Sequence[str], where: str) -> list[str]:
    """Return warnings that name the findings that a data set does not know, and those of its own that are left out."""
    unknown = [label for label, parts in sources.items() if not parts]
    used = {part for parts in sources.values() for part in parts}
    left = [label for label in own if label not in used]
    notes = [f"{where} does not know of {', '.join(unknown)}: left unknown"] if unknown else []
    if left:
        notes.append(f"{where} has {', '.join(left)}, too: left out, but for abnormal")
    return notes


def _made_of(label: str, own: Sequence[str]) -> tuple[str, ...]:
    names = {_plain(name): name for name in own}
    group = next((group for group in SAME if _plain(label) in map(_plain, group)), (label,))
    for name in (label, *group):
        if _plain(name) in names:
            return (names[_plain(name)],)
    wanted = next((parts for whole, parts in PARTS.items() if _plain(whole) == _plain(label)), ())
    parts = tuple(names[_plain(part)] for part in wanted if _plain(part) in names)
    return parts if len(parts) == len(wanted) else ()


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def _from_file(path: Path, own: Sequence[str], where: str) -> Sources:
    """Read `[labels]` with one list of the data set's findings for each wanted one."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))["labels"]
        chosen = {str(label): tuple(map(str, parts)) for label, parts in table.items() if isinstance(parts, list)}
        if len(chosen) < len(table) or not chosen:
            raise ValueError("a finding that is no list")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is no file of labels ({brief(error)}): write [labels] and below it lines such as "
            '"Pleural effusion" = ["Effusion"]'
        ) from error
    strangers = sorted({part for parts in chosen.values() for part in parts} - set(own))
    if strangers:
        raise UsageError(
            f"{path} takes {', '.join(strangers)}, which {where} does not have (it has: {', '.join(own)}): correct it"
        )
    return chosen
