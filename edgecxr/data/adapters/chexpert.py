"""CheXpert as Stanford distributes it, and labels of its labeler.

MIMIC-CXR has labels of the same labeler.

train.csv, valid.csv     Path, Sex, Age, Frontal/Lateral, AP/PA, and 14 observations: 1, 0, -1 (uncertain) or empty
train/patient00001/study1/view1_frontal.jpg ...
test/patient64741/study1/view1_frontal.jpg ...
test_labels.csv          Path and the observations; or groundtruth.csv, with Study instead of Path

The last two, the test set, may be missing; its table may also be in test/.
The download of the full films has other folders:

CheXpert-v1.0 batch 1 (validate & csv)/train.csv, valid.csv, valid/patient64541 ...
CheXpert-v1.0 batch 2 (train 1)/patient00001 ...

Radiologists read the films of valid.csv. These are the validation split if the test set exists. Otherwise they are the
test split, and "val" is cut from the training patients.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.data.adapters.checks import any_there, divided, expected, warned, without_a_line
from edgecxr.data.adapters.keys import refuse_repeats
from edgecxr.data.dataset import Dataset
from edgecxr.data.tables.cells import UNCERTAIN, is_unsure
from edgecxr.data.tables.findings import check_uncertain
from edgecxr.data.tables.labels import SETS, choose, merged, unknown_warnings
from edgecxr.data.tables.table import Table, is_unknown, listing, read_table
from edgecxr.errors import InputError
from edgecxr.vocabulary import FloatArray

OWN = SETS["chexpert13"]
NORMAL = "No Finding"
PICTURES = "equalised"  # by cv2.equalizeHist, as the authors answered in their labeler's repository
FRONTAL = "frontal"
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
) -> Dataset:
    """Find the films of CheXpert, frontal ones by default.

    Args:
        folder: folder with the files listed in this module's docstring, of the full or the small edition.
        labels: as in `edgecxr.data.tables.labels.choose`; by default all 13 observations but No Finding.
        uncertain: what an uncertain mention (-1) counts as: "ignore" (not known), "ones" or "zeros".
        any_view: also keep lateral films.
        val_fraction: share of the patients of train.csv that becomes "val", if there is no test set.
        seed: seed of that division.
        name: name of the prepared data set.

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
    other_views: Counter[str] = Counter()
    parts = [_rows(table, split, uncertain, any_view, listed, other_views) for split, table in tables.items()]
    places, own, abnormal, splits = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not len(places):
        raise InputError(
            f"{folder}: of {len(listed)} listed images none is frontal (Frontal/Lateral: {_views(other_views)}): "
            "correct that column, or take all views with --any-view",
            "dataset",
        )
    notes += _view_notes(other_views)
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
    return Dataset(
        name, tuple(sources), places, targets, abnormal, patients, splits, files, provenance,
        unlisted=unlisted, pictures=PICTURES,
    )  # fmt: skip


def _views(views: Counter[str]) -> str:
    return listing((f"{view or 'nothing'}: {count}" for view, count in views.most_common()), 5)


def _view_notes(left_out: Counter[str]) -> list[str]:
    """Return warnings about the views that are left out."""
    lateral = left_out.pop("lateral", 0)
    notes = [f"lateral images, left out: {lateral}; --any-view takes them"] if lateral else []
    if left_out:
        notes.append(
            f"images whose view is neither frontal nor lateral, left out: {left_out.total()} ({_views(left_out)}); "
            "correct Frontal/Lateral, or take all views with --any-view"
        )
    return notes


def _tables(folder: Path) -> dict[str, Table]:
    """Read train.csv and valid.csv."""
    paths = {split: f"{name}|{_FIRST_BATCH}/{name}" for split, name in _TABLES.items()}
    existing = expected(folder, tuple(paths.values()), "CheXpert")
    return {split: read_table(existing[path]) for split, path in paths.items()}


class _Films:
    """Locations of the films in a copy of CheXpert.

    Films are below train/, valid/ and test/, or in the folders of the batches.

    Attributes:
        folders: folders that hold films; some may be missing.
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
    """Return the test set's table, if it exists, and warnings about it."""
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
    """Convert a table of studies to a table of existing films.

    Returns:
        The table, and the number of studies without films.
    """
    rows, paths, lacking = [], [], 0
    for row, study in enumerate(table.columns["Study"]):
        place = _placed(table, row, study)
        jpegs = sorted(file.name for file in films.file(place).glob("*.jpg"))
        lacking += not jpegs
        rows += [row] * len(jpegs)
        paths += [f"{place}/{name}" for name in jpegs]
    columns = {name: [cells[row] for row in rows] for name, cells in table.columns.items()} | {"Path": paths}
    return Table(table.path, columns, [table.lines[row] for row in rows]), lacking


def observations(table: Table, uncertain: str) -> tuple[FloatArray, FloatArray]:
    """Return findings and abnormality in a table of the CheXpert labeler.

    A finding that a report does not mention counts as absent, as it does for the labels' authors. A film is normal if
    No Finding is 1, and abnormal if a finding other than support devices is positive. If all mentioned findings are
    uncertain, so is the abnormality of the film.

    Args:
        table: table with the 14 observations: 1, 0, -1 or empty.
        uncertain: a key of `UNCERTAIN`.

    Returns:
        (N, 13) findings and (N,) whether the film is not normal.

    Raises:
        InputError: a column is missing, or a cell holds something else; reason "dataset".
        UsageError: another handling of uncertainty.
    """
    check_uncertain(uncertain)
    table.require((*OWN, NORMAL))
    columns = dict(table.columns)
    for label in (*OWN, NORMAL):
        cells = ["0" if is_unknown(cell) else cell for cell in table.columns[label]]
        columns[label] = [UNCERTAIN[uncertain] if is_unsure(cell) else cell for cell in cells]
    filled = dataclasses.replace(table, columns=columns)
    own = np.stack([filled.values(label) for label in OWN], axis=1)
    abnormal = 1 - filled.values(NORMAL)
    findings = np.array([place for place, label in enumerate(OWN) if label != "Support Devices"])
    doubts = np.stack([list(map(is_unsure, table.columns[OWN[place]])) for place in findings], axis=1)
    sure = (own[:, findings] >= 0.5) & ~doubts
    doubtful = doubts.any(axis=1) & ~sure.any(axis=1) & (abnormal == 1)
    abnormal[doubtful] = float(UNCERTAIN[uncertain] or "nan")
    return own, abnormal


def _rows(
    table: Table, split: str, uncertain: str, any_view: bool, listed: list[str], other_views: Counter[str]
) -> tuple[np.ndarray, FloatArray, FloatArray, np.ndarray]:
    """Return places, findings, abnormality and splits of a table's films.

    All places, also of films that are left out, are appended to `listed`, and what is left out is counted in
    `other_views`.
    """
    table.require(("Path",) if split == "test" else ("Path", "Frontal/Lateral"))
    own, abnormal = observations(table, uncertain)
    if split != "train":
        own, abnormal = as_read(own, abnormal)
    placed = [_placed(table, row, path) for row, path in enumerate(table.columns["Path"])]
    refuse_repeats(dataclasses.replace(table, columns={"Path": placed}), ("Path",))
    listed += placed
    # Tables of the test set have no column of views.
    views = table.columns.get("Frontal/Lateral", [""] * len(table))
    shown = [_view_of(place) if is_unknown(view) else view.lower() for view, place in zip(views, placed, strict=True)]
    rows = [row for row, view in enumerate(shown) if any_view or view == FRONTAL]
    if not any_view:
        other_views.update(view for view in shown if view != FRONTAL)
    return np.array([placed[row] for row in rows], str), own[rows], abnormal[rows], np.full(len(rows), split, "<U5")


def _view_of(place: str) -> str:
    """Return the view in a film's name, such as view1_frontal.jpg."""
    return Path(place).stem.rpartition("_")[2].lower()


def as_read(own: FloatArray, abnormal: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return findings and abnormality of films that people labelled.

    Unlike the labeler, people do not tick No Finding beside support devices: a film with nothing else is normal. The
    abnormality is not known if neither a finding nor No Finding was agreed on, or if no finding is sure and one is
    uncertain.

    Args:
        own: (N, 13) findings from `observations`.
        abnormal: (N,) abnormality from `observations`.

    Returns:
        `own` unchanged, and (N,) whether each film is not normal, or NaN.
    """
    devices = OWN.index("Support Devices")
    findings = np.delete(own, devices, axis=1)
    positive = (findings >= 0.5).any(axis=1)
    normal = ((abnormal < 0.5) | (own[:, devices] >= 0.5)) & ~np.isnan(findings).any(axis=1)
    return own, np.where(positive, 1.0, np.where(normal, 0.0, np.nan)).astype(np.float32)


def _placed(table: Table, row: int, path: str) -> str:
    """Return a film's or study's path relative to the data set."""
    place = _PLACE.fullmatch(path)
    if not place or ".." in path:
        raise InputError(
            f"line {table.lines[row]} of {table.path}: {path!r} is no path such as "
            "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg: correct it",
            "dataset",
        )
    return place[1]
