"""MIMIC-CXR as PhysioNet distributes it, the DICOM or the JPG edition.

files/p10/p10000032/s50414267/<dicom_id>.dcm or .jpg
mimic-cxr-2.0.0-chexpert.csv.gz, mimic-cxr-2.0.0-negbio.csv.gz      subject_id, study_id, and 14 observations
mimic-cxr-2.0.0-split.csv.gz                                        dicom_id, study_id, subject_id, split
mimic-cxr-2.0.0-metadata.csv.gz                                     dicom_id, ViewPosition, ...

The CSV files are those of the JPG edition (PhysioNet lists them there); they may be unpacked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.data.chexpert import OWN, observations
from edgecxr.data.labels import choose, merged, unknown_warnings
from edgecxr.data.listed import Listed, any_there, divided, expected, warned, without_a_line
from edgecxr.data.splits import SYNONYMS
from edgecxr.data.table import listing, read_table
from edgecxr.errors import InputError, UsageError

LABELERS = ("chexpert", "negbio")
FRONTAL = ("PA", "AP")

_ENDINGS = (".jpg", ".dcm")


def mimic(
    folder: Path,
    labels: str | Sequence[str] | None = None,
    labeler: str = "chexpert",
    uncertain: str = "ignore",
    any_view: bool = False,
    val_fraction: float = 0.1,
    seed: int = 0,
    name: str = "mimic-cxr",
) -> Listed:
    """Find the films of MIMIC-CXR, frontal ones by default.

    Args:
        folder: as the module says.
        labels: what `edgecxr.data.labels.choose` takes; by default all 13 observations but No Finding.
        labeler: whose labels: "chexpert" or "negbio".
        uncertain: what an uncertain mention (-1) counts as: "ignore" (not known), "ones" or "zeros".
        any_view: take films whose ViewPosition is neither PA nor AP, too.
        val_fraction: part of the training patients that becomes "val", where the list of splits has none.
        seed: of that division.
        name: of the prepared data set.

    Raises:
        InputError: the folder or a table is not as expected; reason "dataset" or "malformed".
        UsageError: unknown labels, labeler or handling of uncertainty.
    """
    if labeler not in LABELERS:
        raise UsageError(f"--labeler {labeler}: there are {', '.join(LABELERS)}")
    folder = Path(folder)
    names = {kind: f"mimic-cxr-2.0.0-{kind}.csv" for kind in (labeler, "split", "metadata")}
    paths = {kind: f"{file}.gz|{file}" for kind, file in names.items()}
    found = expected(folder, (*paths.values(), "files"), "MIMIC-CXR")
    sources = choose(labels, OWN, "MIMIC-CXR")
    listed, labelled, metadata = (read_table(found[paths[kind]]) for kind in ("split", labeler, "metadata"))
    listed.require(("dicom_id", "study_id", "subject_id", "split"))
    labelled.require(("subject_id", "study_id"))
    metadata.require(("dicom_id", "ViewPosition"))

    views = dict(zip(metadata.columns["dicom_id"], metadata.columns["ViewPosition"], strict=True))
    studies = {study: row for row, study in enumerate(labelled.columns["study_id"])}
    if len(studies) < len(labelled):
        raise InputError(f"{labelled.path} lists a study twice: download it again", "dataset")
    columns = [listed.columns[key] for key in ("dicom_id", "study_id", "subject_id", "split")]
    kept, of_study, unlabelled, other_views = [], [], 0, 0
    for row, (dicom, study, _, _) in enumerate(zip(*columns, strict=True)):
        if not any_view and views.get(dicom, "").upper() not in FRONTAL:
            other_views += 1
        elif study not in studies:
            unlabelled += 1
        else:
            kept.append(row)
            of_study.append(studies[study])
    if not kept:
        raise InputError(
            f"{folder}: of {len(listed)} listed images none is frontal and labelled "
            f"(ViewPosition: {listing(sorted(set(views.values())), 8)}): take all tables of one download",
            "dataset",
        )
    dicoms, _, subjects, split_names = ([cells[row] for row in kept] for cells in columns)
    own, abnormal = observations(labelled, uncertain)
    own, abnormal = own[of_study], abnormal[of_study]
    every = _files(folder, columns[2], columns[1], columns[0])
    files = tuple(every[row] for row in kept)
    any_there(folder, files)
    patients, targets = np.array(subjects), merged(own, OWN, sources)
    splits = np.array([SYNONYMS.get(split.lower(), "") for split in split_names], "<U5")
    if (splits == "").any():
        row = kept[int((splits == "").argmax())]
        raise InputError(
            f"line {listed.lines[row]} of {listed.path}: {listed.columns['split'][row]!r} is no split: correct it",
            "dataset",
        )
    cut = [] if "val" in splits else ["val"]
    splits = divided(splits, patients, abnormal, val_fraction, seed)
    notes = [f"images of studies without labels, left out: {unlabelled}"] if unlabelled else []
    notes += [f"images that are neither PA nor AP, left out: {other_views}"] if other_views else []
    provenance: dict[str, Any] = {
        "kind": "mimic-cxr", "source": str(folder.resolve()), "labeler": labeler, "uncertain": uncertain,
        "any_view": any_view, "val_fraction": val_fraction, "seed": seed, "cut": cut, "phantom": False,
        "labels_from": {label: list(made_of) for label, made_of in sources.items()},
        "warnings": notes + unknown_warnings(sources, OWN, "MIMIC-CXR")
        + warned(folder, tuple(sources), targets, abnormal, patients, splits),
    }  # fmt: skip
    unlisted = without_a_line([folder / "files"], every)
    ids = np.array(dicoms)
    return Listed(name, tuple(sources), ids, targets, abnormal, patients, splits, files, provenance, unlisted=unlisted)


def _files(folder: Path, subjects: list[str], studies: list[str], dicoms: list[str]) -> list[Path]:
    """Return the file of each image: of the edition that the first one that exists is of."""
    # Hundreds of thousands: put together as text, each takes a fifth of the time.
    places = [
        f"{folder}/files/p{subject[:2]}/p{subject}/s{study}/{dicom}"
        for subject, study, dicom in zip(subjects, studies, dicoms, strict=True)
    ]
    there = (ending for place in places for ending in _ENDINGS if os.path.exists(place + ending))
    ending = next(there, _ENDINGS[0])
    return [Path(place + ending) for place in places]
