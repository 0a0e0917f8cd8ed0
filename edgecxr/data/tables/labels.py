"""Matching of findings between data sets with different names.

It lets a model of one data set be tested on another. `choose` accepts the wanted findings as the name of a label set,
as a TOML file or one by one. It maps each to the data set's own findings: to one of the same meaning, or to several
parts, any of which makes it positive. A finding that the data set does not know stays unknown: it is neither trained on
nor scored.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgecxr.errors import UsageError
from edgecxr.storage.settings import read_toml, shown
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
"""Label sets by name.

vindr14: the list of the VinDr-CXR paper. vindr22: findings that VinDr-CXR marks with boxes. all: these and its
diagnoses of the whole film. nih14: ChestX-ray14 and ChestMNIST. chexpert13: CheXpert and MIMIC-CXR without No Finding.
chexpert5: the findings of the CheXpert competition.
"""

SAME = (
    ("Pleural effusion", "Effusion", "Pleural Effusion"),
    ("Pleural thickening", "Pleural_Thickening"),
    ("Pulmonary fibrosis", "Fibrosis"),
    ("Other diseases", "Other disease"),
)
"""Names of the same finding; names that differ only in case, blanks and underscores always match."""

PARTS = {"Nodule/Mass": ("Nodule", "Mass")}
"""Findings that other data sets have in parts; any positive part makes the finding positive."""

RESERVED = ("id", "patient", "split", "abnormal")
"""Columns of a prepared data set that are no findings, in lower case."""

Sources = dict[str, tuple[str, ...]]
"""Wanted finding -> the data set's own findings that it is made of; empty if the data set does not know it."""


def choose(labels: str | Sequence[str] | None, own: Sequence[str], where: str) -> Sources:
    """Map each wanted finding to a data set's own findings.

    Args:
        labels: a name in `SETS`, the path of a TOML file, or findings; None selects the data set's own.
        own: the data set's findings.
        where: name of the data set for messages.

    Returns:
        The own findings of each wanted one, in the order wanted.

    Raises:
        UsageError: an unknown set, a file without findings, a duplicate finding, an unknown finding that was named
            itself, or no known finding at all.
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
        label_names = SETS[labels] if isinstance(labels, str) else tuple(labels)
        if not label_names or len(set(label_names)) < len(label_names):
            raise UsageError(f"labels must be different findings (given: {', '.join(label_names)})")
        chosen = {label: _made_of(label, own) for label in label_names}
        unknown = [label for label, parts in chosen.items() if not parts]
        if unknown and not isinstance(labels, str):  # a set may have unknown findings; named ones must exist
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
        values: (N, M) values of the data set's own findings, in [0, 1] or NaN.
        own: the M findings.
        sources: result of `choose`, with L findings.

    Returns:
        (N, L) float32, the largest value of several own findings; NaN if none of them is positive and one is unknown.
    """
    place = {label: column for column, label in enumerate(own)}
    columns = []
    for parts in sources.values():
        if not parts:
            columns.append(np.full(len(values), np.nan, np.float32))
            continue
        of_parts = values[:, [place[part] for part in parts]]
        largest = np.fmax.reduce(of_parts, axis=1)
        columns.append(np.where((largest < 0.5) & np.isnan(of_parts).any(axis=1), np.float32(np.nan), largest))
    return np.stack(columns, axis=1).astype(np.float32)


def labels_by_part(sources: Sources) -> dict[str, list[str]]:
    """Map each own finding to the wanted findings that it contributes to."""
    labels_of: dict[str, list[str]] = {}
    for label, parts in sources.items():
        for part in parts:
            labels_of.setdefault(part, []).append(label)
    return labels_of


def is_finding(name: str) -> bool:
    """Return whether a label set has a finding of that name.

    Case, blanks and underscores are ignored.
    """
    return any(plain_name(name) == plain_name(label) for labels in SETS.values() for label in labels)


def unknown_warnings(sources: Sources, own: Sequence[str], where: str) -> list[str]:
    """Return warnings about unknown and unused findings.

    Unknown findings are wanted, but the data set does not know them. Unused findings are its own that are unused out.
    """
    unknown = [label for label, parts in sources.items() if not parts]
    used = {part for parts in sources.values() for part in parts}
    unused = [label for label in own if label not in used]
    notes = [f"{where} does not know of {', '.join(unknown)}: left unknown"] if unknown else []
    if unused:
        notes.append(f"{where} has {', '.join(unused)}, too: left out, but for abnormal")
    return notes


def _made_of(label: str, own: Sequence[str]) -> tuple[str, ...]:
    names = {plain_name(name): name for name in own}
    group = next((group for group in SAME if plain_name(label) in map(plain_name, group)), (label,))
    for name in (label, *group):
        if plain_name(name) in names:
            return (names[plain_name(name)],)
    part_names = next((parts for whole, parts in PARTS.items() if plain_name(whole) == plain_name(label)), ())
    parts = tuple(names[plain_name(part)] for part in part_names if plain_name(part) in names)
    return parts if len(parts) == len(part_names) else ()


def plain_name(name: str) -> str:
    """Return a finding's name without case, double blanks and underscores."""
    return " ".join(name.lower().replace("_", " ").split())


def read_parts(path: Path) -> Sources:
    """Return what a TOML file says that findings are made of.

    Raises:
        UsageError: it has no table `[labels]` of lists, or a finding has a name that means something else.
    """
    table = read_toml(path).get("labels")
    lists = isinstance(table, dict) and all(isinstance(parts, list) for parts in table.values())
    if not table or not lists:
        raise UsageError(
            f'{path} is no file of labels: write [labels] and below it lines such as "Pleural effusion" = ["Effusion"]'
        )
    wrong = [label for label in table if plain_name(label) in ("", *RESERVED)]
    if wrong:
        raise UsageError(f"{path} has a finding called {shown(wrong[0])}, which means something else: rename it")
    return {label: tuple(map(str, parts)) for label, parts in table.items()}


def _from_file(path: Path, own: Sequence[str], where: str) -> Sources:
    """Read the table `[labels]` of a TOML file.

    It has a list of the data set's own findings for each wanted finding.
    """
    chosen = read_parts(path)
    unknown = sorted({part for parts in chosen.values() for part in parts} - set(own))
    if unknown:
        raise UsageError(
            f"{path} takes {', '.join(unknown)}, which {where} does not have (it has: {', '.join(own)}): correct it"
        )
    return chosen
