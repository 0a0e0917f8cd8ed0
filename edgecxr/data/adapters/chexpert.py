"""CheXpert as Stanford distributes it, and the labels that MIMIC-CXR has of the same labeler.

train.csv, valid.csv     Path, Sex, Age, Frontal/Lateral, AP/PA, and 14 observations: 1, 0, -1 (uncertain) or empty
train/patient00001/study1/view1_frontal.jpg ...
test/patient64741/study1/view1_frontal.jpg ...
test_labels.csv          Path and the observations; or groundtruth.csv, with Study instead of Path

where the last two, the test set, may be missing, and its table may lie in test/ as well;
or, as the full films are downloaded:

CheXpert-v1.0 batch 1 (validate & csv)/train.csv, valid.csv, valid/patient64541 ...
CheXpert-v1.0 batch 2 (train 1)/patient00001 ...

Films of valid.csv, which radiologists read, are the validation split where the test set is there. Where it is not, they
are the test split, and "val" is cut from the training patients.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.data.adapters.listed import Listed, any_there, divided, expected, warned, without_a_line
from edgecxr.data.tables.labels import SETS, choose, merged, unknown_warnings
from edgecxr.data.tables.table import Table, read_table
from edgecxr.errors import InputError, UsageError
from edgecxr.vocabulary import FloatArray

OWN = SETS["chexpert13"]
NORMAL = "No Finding"
UNCERTAIN = {"ignore": "", "ones": "1", "zeros": "0"}
"""What an uncertain mention counts as (Irvin et al., "CheXpert", AAAI 2019, section 4)."""

_DOUBT = ("-1", "-1.0")
_TABLES = {"train": "train.csv", "valid": "valid.csv"}
_TEST_TABLES = ("test_labels.csv", "groundtruth.csv")
_FIRST_BATCH = "CheXpert-v1.0 batch 1 (validate & csv)"
_BATCHES = "CheXpert-v1.0 batch *"
_PLACE = re.compile(r"(?:.*/)?((?:train|valid|test)/patient\w+/.+)")


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
        labels: what `edgecxr.data.tables.labels.choose` takes; by default all 13 observations but No Finding.
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
    tables = _tables(folder)
    sources = choose(labels, OWN, "CheXpert")
    films = _Films(folder)
    test, notes = _test_table(folder, films)
    if test is not None:
        tables["test"] = test
    listed: list[str] = []  # lateral films too
    parts = [_rows(table, split, uncertain, any_view, listed) for split, table in tables.items()]
    places, own, abnormal, splits = (np.concatenate(column) for column in zip(*parts, strict=True))
    if len(np.unique(places)) < len(places):
        names = " and ".join(table.path.name for table in tables.values())
        raise InputError(f"{folder}: an image is listed twice in {names}: remove one line", "dataset")
    files = tuple(films.file(place) for place in places.tolist())
    any_there(folder, files)
    patients = np.array([place.split("/")[1] for place in places.tolist()])
    targets = merged(own, OWN, sources)
    splits[splits == "valid"] = "test" if test is None else "val"
    splits = divided(splits, patients, abnormal, val_fraction, seed)
    provenance: dict[str, Any] = {
        "kind": "chexpert", "source": str(folder.resolve()), "uncertain": uncertain, "any_view": any_view,
        "cut": ["val"] if test is None else [], **({} if test is None else {"test_table": test.path.name}),
        "val_fraction": val_fraction, "seed": seed, "phantom": False,
        "labels_from": {label: list(made_of) for label, made_of in sources.items()},
        "warnings": notes + unknown_warnings(sources, OWN, "CheXpert")
        + warned(folder, tuple(sources), targets, abnormal, patients, splits),
    }  # fmt: skip
    unlisted = without_a_line(films.folders, [films.file(place) for place in listed])
    return Listed(
        name, tuple(sources), places, targets, abnormal, patients, splits, files, provenance, unlisted=unlisted
    )


def _tables(folder: Path) -> dict[str, Table]:
    """Read train.csv and valid.csv."""
    paths = {split: f"{name}|{_FIRST_BATCH}/{name}" for split, name in _TABLES.items()}
    found = expected(folder, tuple(paths.values()), "CheXpert")
    return {split: read_table(found[path]) for split, path in paths.items()}


class _Films:
    """Where the films of a copy are: below train/, valid/ and test/, or in the folders of the batches.

    Attributes:
        folders: that hold films, and may be missing.
    """

    def __init__(self, folder: Path) -> None:
        batches = sorted(folder.glob(_BATCHES))
        self.folders = [folder / "train", folder / "valid", folder / "test", *batches]
        self._folder = folder
        self._homes: dict[tuple[str, str], Path] = {}  # of patients in batches
        for batch in batches:
            for split, home in (("train", batch), ("train", batch / "train"), ("valid", batch / "valid")):
                if home.is_dir():
                    self._homes |= {(split, entry.name): home for entry in os.scandir(home) if entry.is_dir()}

    def file(self, place: str) -> Path:
        """Return the file of a film, such as train/patient00001/study1/view1_frontal.jpg."""
        split, patient, rest = place.split("/", 2)
        return self._homes.get((split, patient), self._folder / split) / patient / rest


def _test_table(folder: Path, films: _Films) -> tuple[Table | None, list[str]]:
    """Return the table of the films of the test set, where it is there, and what to say of it."""
    if not (folder / "test").is_dir():
        return None, []
    places = (folder, folder / "test", folder / _FIRST_BATCH)
    path = next((place / name for place in places for name in _TEST_TABLES if (place / name).exists()), None)
    if path is None:
        return None, [f"test/ is left out, which lacks its table: put {' or '.join(_TEST_TABLES)} beside it"]
    table, lacking = read_table(path), 0
    if "Study" in table.columns:
        table, lacking = _by_film(table, films)
    table.require(("Path",))
    if not any(os.path.exists(films.file(_placed(table, row, film))) for row, film in enumerate(table.columns["Path"])):
        return None, [f"{path.name} is left out: none of its films is in test/"]
    return table, [f"studies of {path.name} without films, left out: {lacking}"] if lacking else []


def _by_film(table: Table, films: _Films) -> tuple[Table, int]:
    """Return a table of studies with a line for each film that there is, and how many studies have none."""
    rows, paths, lacking = [], [], 0
    for row, study in enumerate(table.columns["Study"]):
        place = _placed(table, row, study)
        found = sorted(file.name for file in films.file(place).glob("*.jpg"))
        lacking += not found
        rows += [row] * len(found)
        paths += [f"{place}/{name}" for name in found]
    columns = {name: [cells[row] for row in rows] for name, cells in table.columns.items()} | {"Path": paths}
    return Table(table.path, columns, [table.lines[row] for row in rows]), lacking


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
    table.require(("Path",) if split == "test" else ("Path", "Frontal/Lateral"))
    own, abnormal = observations(table, uncertain)
    if split != "train":
        own, abnormal = as_read(own, abnormal)
    places = [_placed(table, row, path) for row, path in enumerate(table.columns["Path"])]
    listed += places
    # The tables of the test set do not say it.
    views = table.columns.get("Frontal/Lateral") or ["Frontal" if "_frontal" in place else "" for place in places]
    rows = [row for row, view in enumerate(views) if any_view or view == "Frontal"]
    return np.array([places[row] for row in rows], str), own[rows], abnormal[rows], np.full(len(rows), split, "<U5")


def as_read(own: FloatArray, abnormal: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the findings as they are (N, 13), and whether films are not normal (N,), where people have ticked them.

    Other than the labeler, they have no No Finding beside support devices: a film with nothing else is normal. Where
    they agree neither on a finding nor on that there is none, or are not sure of all that they name, it is not known.

    Args:
        own: the findings that `observations` returned.
        abnormal: what it returned beside them.
    """
    devices = OWN.index("Support Devices")
    findings = np.delete(own, devices, axis=1)
    found = (findings >= 0.5).any(axis=1)
    normal = ((abnormal < 0.5) | (own[:, devices] >= 0.5)) & ~np.isnan(findings).any(axis=1)
    return own, np.where(found, 1.0, np.where(normal, 0.0, np.nan)).astype(np.float32)


def _placed(table: Table, row: int, path: str) -> str:
    """Return the path of a film or study below the folder of the data set."""
    place = _PLACE.fullmatch(path)
    if not place or ".." in path:
        raise InputError(
            f"line {table.lines[row]} of {table.path}: {path!r} is no path such as "
            "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg: correct it",
            "dataset",
        )
    return place[1]
