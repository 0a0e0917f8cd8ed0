"""Labelled sets of chest X-rays before preparation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import read_radiograph
from edgecxr.vocabulary import FloatArray

SPLITS = ("train", "val", "test")


class Box(NamedTuple):
    """Location of a finding on a film.

    The corners are continuous: pixel (row, column) covers [column, column + 1] x [row, row + 1].

    Attributes:
        index: index of the image in its data set.
        label: the finding.
        x_min: left border, in columns of the film as it is read.
        y_min: upper border, in rows.
        x_max: right border, in columns.
        y_max: lower border, in rows.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which is not needed
    label: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float


@dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled set of chest X-rays whose films are not read yet.

    Adapters have read and checked the tables; they raise `InputError` with reason "dataset".

    Attributes:
        name: name of the prepared data set, such as "vindr".
        labels: the L findings.
        ids: (N,) unique names of the images.
        targets: (N, L) float32 in [0, 1], or NaN if a label is not known.
        abnormal: (N,) float32 in [0, 1], or NaN.
        patients: (N,) names of the patients; the image's id if the patient is not known.
        splits: (N,) "train", "val" or "test".
        files: the N image files; their sizes and times tell whether a prepared copy is up to date.
        provenance: JSON-ready facts about the source and the labels. "phantom" is true for synthetic films, "warnings"
            are for people. "cut" lists the splits that were drawn at random: another data set of the same films may
            have other images in them.
        boxes: locations of findings, for any images in any order; empty if nobody has marked them.
        unused_boxes: number of boxes of findings that are no labels, or not positive after merging readers.
        unlisted: image files beside them that are in no line of a table or no folder of a class, for people to check.
        pictures: how whoever published it rendered those films that are not DICOM, one of
            `edgecxr.vocabulary.RENDERINGS`; None if it is told by each film.
        readers: maps an image's index to a function that reads the image; None if each film is a file of its own.
    """

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
    pictures: str | None = None
    readers: Callable[[int], Callable[[], Radiograph]] | None = None
    unused_boxes: int = 0

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def reader(self, index: int) -> Callable[[], Radiograph]:
        """Return a function that reads one image.

        The function raises `InputError` if the image cannot be used. It is picklable and small, so that it can be sent
        to another process without the whole data set.
        """
        return self.readers(index) if self.readers else partial(read_radiograph, self.files[index])
