"""Division of images into train, val and test by patient."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import InputError, UsageError
from edgecxr.vocabulary import FloatArray

_WORDS = {
    "train": ("train", "training", "trainval", "train_val", "train-val", "train+val"),
    "val": ("val", "valid", "validation", "validate", "validating", "dev", "tune", "tuning"),
    "test": ("test", "testing", "holdout", "hold-out", "hold_out", "hold out"),
}
SYNONYMS = {
    f"{word}{ending}": split
    for split, words in _WORDS.items()
    for word in words
    for ending in ("", "set", " set", "_set", "-set", " data", "_data")
}
"""Name of a split in a table, in lower case -> our name."""


def split_of(name: str) -> str:
    """Return our name of a split; "" if there is none."""
    return SYNONYMS.get(" ".join(name.lower().split()), "")


def path_warnings(paths: Sequence[str], splits: NDArray[np.str_], stated: bool) -> list[str]:
    """Return a warning about folders of splits that are not those taken.

    Args:
        paths: (N,) of the images, as the table has them.
        splits: (N,) names of splits that the images are in.
        stated: whether the table says so; otherwise patients were divided at random.
    """
    folders = [{split_of(part) for part in path.replace("\\", "/").split("/")[:-1]} - {""} for path in paths]
    others = [
        path
        for path, named, split in zip(paths, folders, splits.tolist(), strict=True)
        if named and split not in named | ({"val"} if named == {"train"} else set())
    ]
    if not others or (not stated and len(set().union(*folders)) < 2):
        return []
    taken = "the table says another" if stated else "the patients are divided at random, unless a column split says it"
    return [f"images that lie in a folder of another split than they are in: {len(others)} ({others[0]}); {taken}"]


def split_by_patient(
    patients: NDArray[np.str_], abnormal: FloatArray, fractions: dict[str, float], seed: int
) -> NDArray[np.str_]:
    """Divide images at random, keeping each patient in one split.

    Normal and abnormal patients are divided in the same proportions. The order comes from a hash of seed and patient,
    so that it does not depend on the order of the table or on the version of a random generator.

    Args:
        patients: (N,) names.
        abnormal: (N,) in [0, 1] or NaN; a patient is abnormal if one of the images is.
        fractions: split -> its share of the patients; the rest is "train".
        seed: another seed gives another division.

    Returns:
        (N,) names of splits.

    Raises:
        UsageError: the fractions are negative or leave nothing to train on.
    """
    if any(not fraction >= 0 for fraction in fractions.values()) or not sum(fractions.values()) < 1:
        raise UsageError(f"the fractions {fractions} must be at least 0 and leave something to train on: sum below 1")
    names, of_image = np.unique(patients, return_inverse=True)
    worst = np.full(len(names), np.nan, np.float32)
    np.fmax.at(worst, of_image, abnormal)
    stratum = np.where(np.isnan(worst), 2, worst >= 0.5)
    ranks = np.array([hashlib.sha256(f"{seed}:{name}".encode()).hexdigest() for name in names])
    result = np.full(len(names), "train", "<U5")
    for value in range(3):
        members = np.flatnonzero(stratum == value)
        members = members[np.argsort(ranks[members])]
        start = 0
        for split, fraction in fractions.items():
            # A requested split should not be empty only because the data set is small.
            least = 1 if fraction > 0 and len(members) > len(fractions) else 0
            count = max(round(fraction * len(members)), least)
            result[members[start : start + count]] = split
            start += count
    return result[of_image]


def cut_validation(
    splits: NDArray[np.str_], patients: NDArray[np.str_], abnormal: FloatArray, fraction: float, seed: int
) -> NDArray[np.str_]:
    """Move a part of the training patients to "val".

    The other arguments are those of `split_by_patient`.

    Returns:
        A changed copy of `splits`, (N,).
    """
    train = splits == "train"
    result = splits.copy()
    result[train] = split_by_patient(patients[train], abnormal[train], {"val": fraction}, seed)
    return result


def leak_warnings(patients: NDArray[np.str_], splits: NDArray[np.str_]) -> list[str]:
    """Return a warning if patients are in more than one split."""
    pairs = np.unique(np.stack([patients, splits]), axis=1)
    _, times = np.unique(pairs[0], return_counts=True)
    count = int((times > 1).sum())
    if not count:
        return []
    return [f"patients in more than one split: {count}; results will look too good"]


def class_warnings(
    labels: Sequence[str], targets: FloatArray, abnormal: FloatArray, splits: NDArray[np.str_]
) -> list[str]:
    """Return a warning about labels with one class in training images.

    Args:
        labels: the L findings.
        targets: (N, L) in [0, 1] or NaN.
        abnormal: (N,) in [0, 1] or NaN.
        splits: (N,) names.

    Returns:
        The warning, which names the labels; an empty list if there are none.
    """
    single = _of_one_class(labels, targets, abnormal, splits)
    if not single:
        return []
    return [f"cannot be learnt from training images of one class: {', '.join(single)}"]


def refuse_unlearnable(
    source: Path,
    labels: Sequence[str],
    targets: FloatArray,
    abnormal: FloatArray,
    splits: NDArray[np.str_],
    remedy: str = "check the labels and the split",
) -> None:
    """Refuse training images from which nothing can be learnt.

    That is the case if neither a finding nor "abnormal" has two classes; see `class_warnings`.

    Args:
        source: path for the message.
        labels: the L findings.
        targets: (N, L) in [0, 1] or NaN.
        abnormal: (N,) in [0, 1] or NaN.
        splits: (N,) names.
        remedy: what to do, for the message.

    Raises:
        InputError: nothing can be learnt; reason "dataset".
    """
    single = _of_one_class(labels, targets, abnormal, splits)
    if len(single) > len(labels):
        raise InputError(
            f"{source}: no label has both positive and negative training images ({single[0]}): {remedy}",
            "dataset",
        )


def _of_one_class(
    labels: Sequence[str], targets: FloatArray, abnormal: FloatArray, splits: NDArray[np.str_]
) -> list[str]:
    train = splits == "train"
    if not train.any():
        return []  # a data set may be for testing only
    single = []
    for name, values in zip((*labels, "abnormal"), (*targets[train].T, abnormal[train]), strict=True):
        positive, negative = int((values >= 0.5).sum()), int((values < 0.5).sum())
        if not positive or not negative:
            single.append(f"{name} ({positive} positive, {negative} negative)")
    return single
