"""MIMIC-CXR as PhysioNet distributes it, the DICOM or JPG edition.

files/p10/p10000032/s50414267/<dicom_id>.dcm or .jpg
mimic-cxr-2.0.0-chexpert.csv.gz, mimic-cxr-2.0.0-negbio.csv.gz      subject_id, study_id, and 14 observations
mimic-cxr-2.0.0-split.csv.gz                                        dicom_id, study_id, subject_id, split
mimic-cxr-2.0.0-metadata.csv.gz                                     dicom_id, ViewPosition, ...
mimic-cxr-2.1.0-test-set-labeled.csv                                study_id, and the observations; only if requested

The CSV files are those of the JPG edition (PhysioNet lists them there); they may be unpacked.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.data.adapters.checks import any_there, divided, expected, warned, without_a_line
from edgecxr.data.adapters.chexpert import OWN, as_read, observations
from edgecxr.data.adapters.keys import film_id, known_patients, lookup, refuse_repeats, respelt, whole_number
from edgecxr.data.dataset import Dataset
from edgecxr.data.tables.labels import choose, merged, unknown_warnings
from edgecxr.data.tables.splits import SYNONYMS
from edgecxr.data.tables.table import Table, is_unknown, listing, read_table
from edgecxr.errors import InputError, UsageError

LABELERS = ("chexpert", "negbio")
FRONTAL = ("PA", "AP")
PICTURES = "equalised"  # the JPG edition (Johnson et al., arXiv:1901.07042)

_ENDINGS = (".jpg", ".dcm")
_ALIASES = {"Airspace Opacity": "Lung Opacity"}


def mimic(
    folder: Path,
    labels: str | Sequence[str] | None = None,
    labeler: str = "chexpert",
    uncertain: str = "ignore",
    any_view: bool = False,
    manual_test: bool = False,
    val_fraction: float = 0.1,
    seed: int = 0,
    name: str = "mimic-cxr",
) -> Dataset:
    """Find the films of MIMIC-CXR, frontal ones by default.

    Args:
        folder: folder with the files listed in this module's docstring.
        labels: as in `edgecxr.data.tables.labels.choose`; by default all 13 observations but No Finding.
        labeler: whose labels to use, "chexpert" or "negbio".
        uncertain: what an uncertain mention (-1) counts as: "ignore" (not known), "ones" or "zeros".
        any_view: also keep films whose ViewPosition is neither PA nor AP.
        manual_test: test only on the studies that were labelled by hand.
        val_fraction: share of the training patients that becomes "val", if the list of splits has no "val".
        seed: seed of that division.
        name: name of the prepared data set.

    Raises:
        InputError: the folder or a table is not as expected; reason "dataset" or "malformed".
        UsageError: unknown labels, labeler or handling of uncertainty.
    """
    if labeler not in LABELERS:
        raise UsageError(f"--labeler {labeler}: there are {', '.join(LABELERS)}")
    folder = Path(folder)
    paths = {kind: _path(f"mimic-cxr-2.0.0-{kind}.csv") for kind in ("split", labeler, "metadata")}
    if manual_test:
        paths["manual"] = _path("mimic-cxr-2.1.0-test-set-labeled.csv")
    existing = expected(folder, (*paths.values(), "files"), "MIMIC-CXR")
    sources = choose(labels, OWN, "MIMIC-CXR")
    listed, labelled, metadata = (read_table(existing[paths[kind]]) for kind in ("split", labeler, "metadata"))
    listed.require(("dicom_id", "study_id", "subject_id", "split"))
    metadata.require(("dicom_id", "ViewPosition"))
    own, abnormal = observations(labelled, uncertain)
    rows_of = dict.fromkeys(("train", "val", "test"), _by_study(labelled))
    notes = []
    if manual_test:
        manual = _renamed(read_table(existing[paths["manual"]]))
        manual_own, manual_abnormal = as_read(*observations(manual, uncertain))
        rows_of["test"] = {study: len(labelled) + row for study, row in _by_study(manual).items()}
        own, abnormal = np.concatenate([own, manual_own]), np.concatenate([abnormal, manual_abnormal])

    listed = respelt(respelt(listed, ("dicom_id",), film_id), ("study_id", "subject_id"), whole_number)
    refuse_repeats(listed, ("dicom_id",))
    dicoms, studies, subjects = (listed.columns[key] for key in ("dicom_id", "study_id", "subject_id"))
    splits = _splits(listed)
    views = lookup(respelt(metadata, ("dicom_id",), film_id), "dicom_id", _views(metadata))
    kept, labels_at, unlabelled, without_line = [], [], 0, 0
    other_views: Counter[str] = Counter()
    for row, (dicom, study, split) in enumerate(zip(dicoms, studies, splits.tolist(), strict=True)):
        if not any_view and dicom not in views:
            without_line += 1
        elif not any_view and views[dicom] not in FRONTAL:
            other_views[views[dicom] or "not given"] += 1
        elif study not in rows_of[split]:
            unlabelled += 1
        else:
            kept.append(row)
            labels_at.append(rows_of[split][study])
    if manual_test:
        test = {study for study, split in zip(studies, splits.tolist(), strict=True) if split == "test"}
        unused = len(rows_of["test"].keys() - test)
        notes += [f"studies labelled by hand that are not in the test split, not used: {unused}"] if unused else []
    if not kept:
        raise InputError(
            f"{folder}: of {len(listed)} listed images none is frontal and labelled "
            f"({without_line} have no line in {metadata.path.name}, ViewPosition of others: "
            f"{listing(sorted(set(views.values())), 8)}): take all tables of one download",
            "dataset",
        )
    all_files = _files(folder, subjects, studies, dicoms)
    files = tuple(all_files[row] for row in kept)
    any_there(folder, files)
    own, abnormal, splits = own[labels_at], abnormal[labels_at], splits[kept]
    targets = merged(own, OWN, sources)
    patients, patient_notes = known_patients([subjects[row] for row in kept], [dicoms[row] for row in kept])
    cut = [] if "val" in splits else ["val"]
    splits = divided(splits, patients, abnormal, val_fraction, seed)
    notes += [f"images of studies without labels, left out: {unlabelled}"] if unlabelled else []
    if other_views:
        which = listing((f"{view}: {count}" for view, count in other_views.most_common()), 8)
        notes.append(f"images whose view ({which}) is neither PA nor AP, left out: {other_views.total()}")
    if without_line:
        notes.append(f"images without a line in {metadata.path.name}, left out: {without_line}; --any-view takes them")
    notes += patient_notes
    provenance: dict[str, Any] = {
        "kind": "mimic-cxr", "source": str(folder.resolve()), "labeler": labeler, "uncertain": uncertain,
        "any_view": any_view, "val_fraction": val_fraction, "seed": seed, "cut": cut, "phantom": False,
        **({"manual_test": True} if manual_test else {}),
        "labels_from": {label: list(made_of) for label, made_of in sources.items()},
        "warnings": notes + unknown_warnings(sources, OWN, "MIMIC-CXR")
        + warned(folder, tuple(sources), targets, abnormal, patients, splits),
    }  # fmt: skip
    unlisted = without_a_line([folder / "files"], all_files)
    ids = np.array([dicoms[row] for row in kept])
    return Dataset(
        name, tuple(sources), ids, targets, abnormal, patients, splits, files, provenance,
        unlisted=unlisted, pictures=PICTURES,
    )  # fmt: skip


def _path(name: str) -> str:
    return f"{name}.gz|{name}"


def _renamed(table: Table) -> Table:
    """Rename lung opacities in the hand-labelled table.

    The labeler uses another name for them.
    """
    twice = [name for name, other in _ALIASES.items() if {name, other} <= set(table.columns)]
    if twice:
        raise InputError(f"{table.path} has both {twice[0]} and {_ALIASES[twice[0]]}: remove one column", "dataset")
    columns = {_ALIASES.get(name, name): cells for name, cells in table.columns.items()}
    return dataclasses.replace(table, columns=columns)


def _by_study(table: Table) -> dict[str, int]:
    """Map each study to its row."""
    table.require(("study_id",))
    table = respelt(table, ("study_id",), whole_number)
    refuse_repeats(table, ("study_id",))
    return {study: row for row, study in enumerate(table.columns["study_id"])}


def _views(metadata: Table) -> list[str]:
    return ["" if is_unknown(view) else view.upper() for view in metadata.columns["ViewPosition"]]


def _splits(listed: Table) -> np.ndarray:
    splits = np.array([SYNONYMS.get(split.lower(), "") for split in listed.columns["split"]], "<U5")
    if (splits == "").any():
        row = int((splits == "").argmax())
        raise InputError(
            f"line {listed.lines[row]} of {listed.path}: {listed.columns['split'][row]!r} is no split: correct it",
            "dataset",
        )
    return splits


def _files(folder: Path, subjects: list[str], studies: list[str], dicoms: list[str]) -> list[Path]:
    """Return the file of each image.

    All have the ending of the first file that exists, which tells the edition.
    """
    # Joined as text, since hundreds of thousands of Paths take five times as long.
    places = [
        f"{folder}/files/p{subject[:2]}/p{subject}/s{study}/{dicom}"
        for subject, study, dicom in zip(subjects, studies, dicoms, strict=True)
    ]
    existing = (ending for place in places for ending in _ENDINGS if os.path.exists(place + ending))
    ending = next(existing, _ENDINGS[0])
    return [Path(place + ending) for place in places]
