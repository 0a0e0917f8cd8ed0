"""Checks of files and splits that adapters share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import filterfalse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.data.tables.findings import contradictions
from edgecxr.data.tables.splits import cut_validation, leak_warnings, refuse_unlearnable, split_by_patient
from edgecxr.data.tables.table import listing
from edgecxr.errors import InputError
from edgecxr.films.find import is_hidden, leads_nowhere
from edgecxr.storage.walk import walk
from edgecxr.vocabulary import FloatArray

IMAGES = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")
"""Suffixes of image files, in lower case."""

NO_PATIENTS = "patients are not known: each image counts as a patient of its own"


def divided(
    splits: NDArray[np.str_] | None,
    patients: NDArray[np.str_],
    abnormal: FloatArray,
    val_fraction: float,
    seed: int,
    test_fraction: float = 0.2,
) -> NDArray[np.str_]:
    """Return the splits of images, cutting a validation split if needed.

    Args:
        splits: (N,) "train", "val", "test"; without "val", it is cut from the training patients. None divides the
            patients at random.
        patients: (N,) names.
        abnormal: (N,) in [0, 1] or NaN.
        val_fraction: share of the (training) patients for "val".
        seed: seed of the division.
        test_fraction: share of the patients for "test", if no splits are given.
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
    """Return warnings about patients in several splits and contradictory labels.

    Raises:
        InputError: nothing has two classes among the training images; reason "dataset".
    """
    refuse_unlearnable(folder, labels, targets, abnormal, splits)
    return leak_warnings(patients, splits) + contradictions(labels, targets, abnormal)


def expected(folder: Path, paths: Sequence[str], data_set: str) -> dict[str, Path]:
    """Return the paths of a data set's files.

    Args:
        folder: the folder that the user gave.
        paths: relative to it; alternatives are separated by "|", and the first that exists counts.
        data_set: name of the data set, for the message.

    Returns:
        Each item of `paths` -> the path that exists.

    Raises:
        InputError: a file is missing; the message says what was expected and what was found. Reason "dataset".
    """
    if not os.path.isdir(folder):
        state = "is a file" if os.path.exists(folder) else "does not exist"
        raise InputError(
            f"{folder} {state}: give the folder of {data_set}, which holds {paths[0].replace('|', ' or ')}", "dataset"
        )
    existing: dict[str, Path] = {}
    missing = []
    for path in paths:
        match = next((folder / name for name in path.split("|") if (folder / name).exists()), None)
        if match is None:
            missing.append(path.replace("|", " or "))
        else:
            existing[path] = match
    if missing:
        try:
            content = listing(sorted(entry.name for entry in folder.iterdir()), 8) or "nothing"
        except OSError as error:
            content = f"cannot be listed: {error.strerror}"
        raise InputError(
            f"{folder} is not {data_set}: {', '.join(missing)} should be there (it holds: {content}); give the folder "
            "that holds them",
            "dataset",
        )
    return existing


def without_a_line(places: Iterable[Path], files: Sequence[Path]) -> tuple[Path, ...]:
    """Return image files in folders that no table lists, sorted.

    Hidden ones, and what systems leave in folders, count as none.

    Args:
        places: folders, searched with their subfolders; missing ones count as empty.
        files: files that the table lists.
    """
    listed = {os.fspath(file) for file in files}
    unlisted = []
    for place in places:
        for parent, names in walk(place):
            if any(map(is_hidden, Path(parent).relative_to(place).parts)):
                continue
            for name in filterfalse(is_hidden, names):
                path = f"{parent}{os.sep}{name}"  # plain text: hundreds of thousands of Paths are slow
                if name.lower().endswith(IMAGES) and path not in listed:
                    unlisted.append(path)
    return tuple(map(Path, sorted(unlisted)))


def outside(root: Path, file: str | os.PathLike[str]) -> str:
    """Return why a film does not belong to a folder, or "".

    A table may come from anyone, and shall not put other films of this machine into a data set: neither by an absolute
    path or .., nor by a link that came in the same archive. Links of folders are followed, since films often lie on
    another disk, and so are links of single films to another place in the folder.

    Args:
        root: the folder.
        file: the film's path, with `root` in front if it is relative to it.
    """
    path, here = os.fspath(file), Path.cwd()
    start = "" if Path(root) == Path() else f"{root}/"
    # Behind a link, .. leads elsewhere than the text says.
    climbs = path.startswith(start) and os.pardir in path[len(start) :].split("/")
    if climbs or not _is_below(os.path.normpath(here / path), os.path.normpath(here / root)):
        return f"is outside of {root}"
    if os.path.islink(path) and not leads_nowhere(path):  # a lost film is rejected by its reader
        real, places = os.path.realpath(path), (root, Path(path).parent)
        if not any(_is_below(real, os.path.realpath(place)) for place in places):
            return f"is a link to a file outside of {root}"
    return ""


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/") and path != folder


def refuse_outside(folder: Path, files: Iterable[Path]) -> None:
    """Refuse a film that is `outside` of its data set's folder.

    Raises:
        InputError: a table names such a film; reason "dataset".
    """
    for file in files:
        if why := outside(folder, file):
            raise InputError(
                f"{file}, which a table of {folder} lists, {why}: correct the table, or copy the film there", "dataset"
            )


def any_there(folder: Path, files: Sequence[Path]) -> None:
    """Refuse a data set without films, or with one from elsewhere.

    Single missing films are rejected one by one when the data set is prepared.

    Raises:
        InputError: no film exists, or a table names one outside of the folder; reason "dataset".
    """
    refuse_outside(folder, files)
    if not any(map(os.path.exists, files)):
        example = f"; expected files such as {files[0]}" if files else ""
        raise InputError(
            f"none of the {len(files)} listed images of {folder} exists{example}: download them", "dataset"
        )
