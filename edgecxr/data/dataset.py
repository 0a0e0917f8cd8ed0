"""What a chest X-ray data set is, and how its images are divided among train, val and test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgecxr.films.radiograph import Radiograph
from edgecxr.vocabulary import FloatArray

SPLITS = ("train", "val", "test")


class Box(NamedTuple):
    """Where on a film a finding is.

    The corners are continuous: pixel (row, column) covers [column, column + 1] x [row, row + 1].

    Attributes:
        index: of the image in its data set.
        label: the finding.
        x_min: left border, in columns of the film as it is read.
        y_min: upper border, in rows.
        x_max: right border, in columns.
        y_max: lower border, in rows.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    label: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float


class CxrDataset(Protocol):
    """A labelled set of chest X-rays, of which each can be read on its own.

    Implementations check their tables when they are made and raise `InputError` with reason "dataset" there.

    Attributes:
        name: the name of the prepared data set, such as "vindr".
        labels: the L findings.
        ids: (N,) unique names of the images.
        targets: (N, L) float32 in [0, 1], or NaN where a label is not known.
        abnormal: (N,) float32 in [0, 1], or NaN.
        patients: (N,) names of the patients; the image's id where none is known.
        splits: (N,) "train", "val" or "test".
        boxes: where findings are, of any image in any order; empty where nobody has marked them.
        files: the N image files; their sizes and times tell whether a prepared copy is still that of these images.
        unlisted: image files beside them that no line of a table names, for people to look after.
        provenance: JSON-ready: where it came from and how its labels were made; "phantom" is true for synthetic films,
            "warnings" are for people; "cut" are the splits that
            were cut by chance, so that another data set of the same films may have others there.
    """

    name: str
    labels: tuple[str, ...]
    ids: NDArray[np.str_]
    targets: FloatArray
    abnormal: FloatArray
    patients: NDArray[np.str_]
    splits: NDArray[np.str_]
    boxes: tuple[Box, ...]
    files: tuple[Path, ...]
    unlisted: tuple[Path, ...]
    provenance: dict[str, Any]

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def reader(self, index: int) -> Callable[[], Radiograph]:
        """Return what reads image `index`, and raises `InputError` where it cannot be used.

        It is picklable and small, for another process, which is not given the whole data set.
        """
        ...
