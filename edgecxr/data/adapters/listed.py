"""A data set as its adapter has found it: tables read, films not yet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.data.dataset import Box
from edgecxr.data.tables.splits import cut_validation, leak_warnings, refuse_unlearnable, split_by_patient
from edgecxr.data.tables.table import listing
from edgecxr.errors import InputError
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import read_radiograph
from edgecxr.vocabulary import FloatArray

IMAGES = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")
"""What data sets' image files end in."""

NO_PATIENTS = "patients are not known: each image counts as a patient of its own"


@dataclass(frozen=True, eq=False)
class Listed:
    """Films in files of their own, a `CxrDataset`; see there for the attributes."""

    name: str
    labels: tuple[str, ...]
    ids: NDArray[np.str_]
    targets: FloatArray
    abnormal: FloatArray
    patients: NDArray[np.str_]
    splits: NDArray[np.str_]
    files: tuple[Path, ...]
    provenance: dict[str, Any]
    boxes: tuple[Box, ...] = ()
    unlisted: tuple[Path, ...] = ()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def reader(self, index: int) -> Callable[[], Radiograph]:
        """Return what reads image `index`."""
        return partial(read_radiograph, self.files[index])


def divided(
    splits: NDArray[np.str_] | None,
    patients: NDArray[np.str_],
    abnormal: FloatArray,
    val_fraction: float,
    seed: int,
    test_fraction: float = 0.2,
) -> NDArray[np.str_]:
    """Return the splits of images: those given, with a validation split cut from the training patients if they lack it.

    Args:
        splits: (N,) "train", "val", "test"; None divides the patients at random.
        patients: (N,) names.
        abnormal: (N,) in [0, 1] or NaN.
        val_fraction: part of the (training) patients for "val".
        seed: of the division.
        test_fraction: part of the patients for "test" where no splits are given.
    """
    if splits is None:
        return split_by_patient(patients, abnormal, {"val": val_fraction, "test": test_fraction}, seed)
    return splits if "val" in splits else cut_validation(splits, patients, abnormal, val_fraction, seed)


def warned(
    folder: Path,
    labels: Sequence[str],
    targets: FloatArray,
    abnormal: FloatArray,
    patients: NDArray[np.str_],
    splits: NDArray[np.str_],
) -> list[str]:
    """Return warnings of patients in several splits.

    Raises:
        InputError: nothing has two classes among the training images; reason "dataset".
    """
    refuse_unlearnable(folder, labels, targets, abnormal, splits)
    return leak_warnings(patients, splits)


def expected(folder: Path, paths: Sequence[str], what: str) -> dict[str, Path]:
    """Return where the files of a data set lie.

    Args:
        folder: that the user gave.
        paths: relative to it; of those separated by "|" the first one that is there counts.
        what: the data set, for the message.

    Raises:
        InputError: one is missing; the message says what was expected and what was found. Reason "dataset".
    """
    if not os.path.isdir(folder):
        state = "is a file" if os.path.exists(folder) else "does not exist"
        raise InputError(
            f"{folder} {state}: give the folder of {what}, which holds {paths[0].replace('|', ' or ')}", "dataset"
        )
    found: dict[str, Path] = {}
    missing = []
    for path in paths:
        there = next((folder / name for name in path.split("|") if (folder / name).exists()), None)
        if there is None:
            missing.append(path.replace("|", " or "))
        else:
            found[path] = there
    if missing:
        try:
            here = listing(sorted(entry.name for entry in folder.iterdir()), 8) or "nothing"
        except OSError as error:
            here = f"cannot be listed: {error.strerror}"
        raise InputError(
            f"{folder} is not {what}: {', '.join(missing)} should be there (it holds: {here}); give the folder that "
            "holds them",
            "dataset",
        )
    return found


def without_a_line(places: Iterable[Path], files: Sequence[Path]) -> tuple[Path, ...]:
    """Return the image files below folders that are not among those that a table lists, sorted.

    Args:
        places: folders, searched with their subfolders; those that do not exist hold nothing.
        files: that the table lists.
    """
    listed = {os.fspath(file) for file in files}
    found = []
    for place in places:
        for parent, _, names in os.walk(place):
            for name in names:
                path = f"{parent}{os.sep}{name}"  # hundreds of thousands: a Path each would take its time
                if name.lower().endswith(IMAGES) and path not in listed:
                    found.append(path)
    return tuple(map(Path, sorted(found)))


def any_there(folder: Path, files: Sequence[Path]) -> None:
    """Refuse a data set of which no film exists; single missing ones are rejected one by one when it is prepared.

    Raises:
        InputError: none exists; reason "dataset".
    """
    if not any(map(os.path.exists, files)):
        example = f"; expected files such as {files[0]}" if files else ""
        raise InputError(
            f"none of the {len(files)} listed images of {folder} exists{example}: download them", "dataset"
        )
