"""CheXpert as Stanford distributes it, and the labels that MIMIC-CXR has of the same labeler.

train.csv, valid.csv     Path, Sex, Age, Frontal/Lateral, AP/PA, and 14 observations: 1, 0, -1 (uncertain) or empty
train/patient00001/study1/view1_frontal.jpg ...

Films of valid.csv, which radiologists read, are the test split; "val" is cut from the training patients.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.data.labels import SETS, choose, merged, unknown_warnings
from edgecxr.data.listed import Listed, any_there, divided, expected, warned, without_a_line
from edgecxr.data.table import Table, read_table
from edgecxr.errors import InputError, UsageError
from edgecxr.runtime.types import FloatArray

OWN = SETS["chexpert13"]
NORMAL = "No Finding"
UNCERTAIN = {"ignore": "", "ones": "1", "zeros": "0"}
"""What an uncertain mention counts as (Irvin et al., "CheXpert", AAAI 2019, section 4)."""

_DOUBT = ("-1", "-1.0")
_SPLITS = {"train": "train.csv", "test": "valid.csv"}
_PLACE = re.compile(r"(?:.*/)?((?:train|valid)/(patient\w+)/.+)")


def chexpert(
    folder: Path,
    labels: str | Sequence[str] | None = None,
    uncertain: str = "ignore",
    any_view: bool = False,
    val_fraction: float = 0.1,
    seed: int = 0,
    name: str = "chexpert",
) -> Listed:
    """Find the films of CheXpert, frontal ones by default.

    Args:
        folder: as the module says; also of the small edition.
        labels: what `edgecxr.data.labels.choose` takes; by default all 13 observations but No Finding.
        uncertain: what an uncertain mention (-1) counts as: "ignore" (not known), "ones" or "zeros".
        any_view: take lateral films, too.
        val_fraction: part of the patients of train.csv that becomes "val".
        seed: of that division.
        name: of the prepared data set.

    Raises:
        InputError: the folder or a table is not as expected; reason "dataset" or "malformed".
        UsageError: unknown labels or handling of uncertainty.
    """
    folder = Path(folder)
    found = expected(folder, tuple(_SPLITS.values()), "CheXpert")
    sources = choose(labels, OWN, "CheXpert")
    listed: list[str] = []  # lateral films too
    parts = [_rows(read_table(found[file]), split, uncertain, any_view, listed) for split, file in _SPLITS.items()]
    places, own, abnormal, splits = (np.concatenate(column) for column in zip(*parts, strict=True))
    if len(np.unique(places)) < len(places):
        raise InputError(f"{folder}: an image is listed twice in train.csv and valid.csv: remove one line", "dataset")
    files = tuple(folder / place for place in places.tolist())
    any_there(folder, files)
    patients = np.array([place.split("/")[1] for place in places.tolist()])
    targets = merged(own, OWN, sources)
    splits = divided(splits, patients, abnormal, val_fraction, seed)
    provenance: dict[str, Any] = {
        "kind": "chexpert", "source": str(folder.resolve()), "uncertain": uncertain, "any_view": any_view,
        "val_fraction": val_fraction, "seed": seed, "phantom": False,
        "labels_from": {label: list(made_of) for label, made_of in sources.items()},
        "warnings": unknown_warnings(sources, OWN, "CheXpert")
        + warned(folder, tuple(sources), targets, abnormal, patients, splits),
    }  # fmt: skip
    known = [folder / place for place in listed]
    unlisted = without_a_line([folder / "train", folder / "valid"], known)
    return Listed(
        name, tuple(sources), places, targets, abnormal, patients, splits, files, provenance, unlisted=unlisted
    )


def observations(table: Table, uncertain: str) -> tuple[FloatArray, FloatArray]:
    """Return the 13 findings (N, 13) and whether a film is not normal (N,) of a table of the CheXpert labeler.

    What a report does not mention counts as absent, as it does for who made the labels. A film is normal where No
    Finding is 1, and abnormal where something else than support devices is positive; where all that is mentioned is
    uncertain, so is whether the film is normal.

    Args:
        table: with the 14 observations: 1, 0, -1 or empty.
        uncertain: a key of `UNCERTAIN`.

    Raises:
        InputError: a column is missing, or a cell holds something else; reason "dataset".
        UsageError: another handling of uncertainty.
    """
    if uncertain not in UNCERTAIN:
        raise UsageError(f"--uncertain {uncertain}: there are {', '.join(UNCERTAIN)}")
    table.require((*OWN, NORMAL))
    columns = dict(table.columns)
    for label in (*OWN, NORMAL):
        cells = [cell or "0" for cell in columns[label]]
        columns[label] = [UNCERTAIN[uncertain] if cell in _DOUBT else cell for cell in cells]
    given, table = table, dataclasses.replace(table, columns=columns)
    own = np.stack([table.values(label) for label in OWN], axis=1)
    abnormal = 1 - table.values(NORMAL)
    findings = [label for label in OWN if label != "Support Devices"]
    doubts = np.array([[cell in _DOUBT for cell in given.columns[label]] for label in findings]).any(axis=0)
    sure = np.array([[cell in ("1", "1.0") for cell in given.columns[label]] for label in findings]).any(axis=0)
    doubtful = doubts & ~sure & (abnormal == 1)
    abnormal[doubtful] = float(UNCERTAIN[uncertain] or "nan")
    return own, abnormal


def _rows(
    table: Table, split: str, uncertain: str, any_view: bool, listed: list[str]
) -> tuple[np.ndarray, FloatArray, FloatArray, np.ndarray]:
    """Return place of the file, findings, abnormal and split of the films of a table; `listed` gets all places."""
    table.require(("Path", "Frontal/Lateral"))
    own, abnormal = observations(table, uncertain)
    rows, places = [], []
    for row, (path, view) in enumerate(zip(table.columns["Path"], table.columns["Frontal/Lateral"], strict=True)):
        place = _PLACE.fullmatch(path)
        if not place or ".." in path:
            raise InputError(
                f"line {table.lines[row]} of {table.path}: {path!r} is no path such as "
                "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg: correct it",
                "dataset",
            )
        listed.append(place[1])
        if any_view or view == "Frontal":
            rows.append(row)
            places.append(place[1])
    return np.array(places, str), own[rows], abnormal[rows], np.full(len(rows), split, "<U5")
