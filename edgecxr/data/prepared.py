"""Prepared data sets: images as arrays, labels as tables.

Files in the folder of a prepared data set:

images.npy         (N, 224, 224) uint8
images-448.npy     (N, 448, 448) uint8 of the same films; only if requested
table.csv          id, patient, split, abnormal and one column per finding; an empty cell means not known
boxes.csv          id, label and corners of boxes around findings in the 224 px images; only if there are any
dataset.json       name, labels, provenance, counts, hash
rejected.csv       id, reason, message
decoded.jsonl      name, file, file state, warnings, shape and rendering of each film, so that it is not read again
unlisted.csv       image files that are in no line of a table or no folder of a class; only if there are any
duplicates.csv     id, same_as, splits and contradicting labels of images with equal pixels; only if there are any
contact_sheet.png  sample images
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.data.facts import LARGEST_FACTS, check_facts
from edgecxr.data.tables.boxes import BOXES, Boxes, read_boxes
from edgecxr.data.tables.table import read_table
from edgecxr.errors import InputError, brief
from edgecxr.films.resize import BASE_SIZE, LARGE_SIZE, box_mean, source_size
from edgecxr.storage.arrays import Header, map_array
from edgecxr.storage.folders import DATASET, read_whole
from edgecxr.storage.json_values import format_of, read_json
from edgecxr.storage.reading import BadFile, open_file, size_of
from edgecxr.terminal import joined
from edgecxr.vocabulary import RENDERINGS, FloatArray, in_words

# Increased when the same films would give other pixels or another table.
FORMAT = 4

IMAGES = "images.npy"
LARGE = "images-448.npy"
DECODED = "decoded.jsonl"
FIXED_COLUMNS = ("id", "patient", "split", "abnormal")
_HASHED = {
    "hash": (IMAGES, "table.csv"), "large_hash": (LARGE,), "boxes_hash": (BOXES,), "decoded_hash": (DECODED,),
}  # fmt: skip
_LARGEST_TEXT = 1 << 30
_REMEDY = "prepare the data set again with `edgecxr prepare`"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A data set that is ready for training.

    Its N images are those that could be read.

    Attributes:
        path: its folder.
        images: (N, 224, 224) uint8, mapped from the disk, read-only.
        labels: the L findings.
        ids: (N,) names of the images.
        patients: (N,) names of the patients.
        splits: (N,) "train", "val" or "test".
        targets: (N, L) float32 in [0, 1], or NaN if a label is not known.
        abnormal: (N,) float32 in [0, 1], or NaN.
        boxes: boxes around findings, in the 224 px images.
        info: content of dataset.json.
        large: (N, 448, 448) uint8 of the same films, for teachers of 448 px; None if not requested.
    """

    path: Path
    images: NDArray[np.uint8]
    labels: tuple[str, ...]
    ids: NDArray[np.str_]
    patients: NDArray[np.str_]
    splits: NDArray[np.str_]
    targets: FloatArray
    abnormal: FloatArray
    boxes: Boxes
    info: dict[str, Any]
    large: NDArray[np.uint8] | None = None

    @classmethod
    def open(cls, path: Path) -> Prepared:
        """Open a data set that `prepare` wrote.

        An open data set stays as it is if it is prepared again.

        Raises:
            InputError: the data set does not exist, is damaged, or has a newer format; reason "dataset".
        """
        path = Path(path)
        return read_whole(path, lambda: cls._read(path))

    @classmethod
    def _read(cls, path: Path) -> Prepared:
        if not os.path.isfile(path / DATASET):
            raise InputError(
                f"{path} holds no prepared data set (no {DATASET}): make one with `edgecxr prepare`", "dataset"
            )
        try:
            info = read_json(path / DATASET, LARGEST_FACTS)
            if format_of(info) > FORMAT:
                version = brief(info.get("version"), 40)
                raise InputError(
                    f"{path} was prepared by a newer edgecxr ({version}): upgrade edgecxr, or {_REMEDY}", "dataset"
                )
            labels = tuple(check_facts(info)["labels"])
            table = read_table(path / "table.csv", written=True)
            if tuple(table.columns) != (*FIXED_COLUMNS, *labels):
                raise ValueError("table.csv has other columns than dataset.json")
            images = mapped(path / IMAGES, len(table), BASE_SIZE)
            large = mapped(path / LARGE, len(table), LARGE_SIZE) if (path / LARGE).exists() else None
            ids, patients, splits = (np.array(table.columns[name]) for name in FIXED_COLUMNS[:3])
            targets = np.stack([table.values(label) for label in labels], axis=1)
            abnormal = table.values("abnormal")
            boxes = read_boxes(path / BOXES, ids, labels)
            # The main hash does not cover the boxes, so compare their number.
            if len(boxes) != info.get("boxes", len(boxes)):
                raise ValueError(f"{BOXES} holds {len(boxes)} boxes, but {DATASET} counts {info['boxes']}")
            return cls(path, images, labels, ids, patients, splits, targets, abnormal, boxes, info, large)
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"the prepared data set {path} is damaged ({brief(error)}): {_REMEDY}", "dataset"
            ) from error

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    @property
    def name(self) -> str:
        """Name of the data set, such as "vindr"."""
        return str(self.info["name"])

    @property
    def hash(self) -> str:
        """SHA-256 of the 224 px images and the table.

        Equal hashes mean equal data, whatever its origin.
        """
        return str(self.info["hash"])

    @property
    def hashes(self) -> tuple[str, ...]:
        """Hash of the data set and, for a pack, of its source.

        The source of a pack is the data set from which its films were drawn.
        """
        return tuple(str(self.info[key]) for key in ("hash", "data_hash") if key in self.info)

    @property
    def phantom(self) -> bool:
        """Return whether the films are synthetic."""
        return bool(self.info["phantom"])

    @property
    def renderings(self) -> dict[str, int]:
        """Numbers of films of each of `edgecxr.vocabulary.RENDERINGS`.

        Empty if the data set was prepared by a version that did not record them.
        """
        total: Counter[str] = Counter()
        for counts in self.info["counts"].values():
            total.update(counts.get("renderings", {}))
        return {rendering: total[rendering] for rendering in RENDERINGS if total[rendering]}

    def rows(self, split: str) -> NDArray[np.intp]:
        """Return the indices of a split's images, ascending."""
        return np.flatnonzero(self.splits == split)

    def images_for(self, size: int) -> NDArray[np.uint8]:
        """Return the images that inputs of side `size` are made from.

        Returns:
            `large` for 448 px, else `images`.

        Raises:
            InputError: there are no 448 px images; reason "dataset".
        """
        if source_size(size) == BASE_SIZE:
            return self.images
        if self.large is None and self.info["provenance"].get("kind") == "pack":
            raise InputError(
                f"{self.path} has no {size} px images: pack it from a data set that was prepared with --size "
                f"{LARGE_SIZE}",
                "dataset",
            )
        if self.large is None:
            origin = self.info["provenance"]
            place = [shlex.quote(str(origin[key])) for key in ("kind", "source") if key in origin]
            command = " ".join(["edgecxr prepare", *place, "--name", shlex.quote(self.name), f"--size {LARGE_SIZE}"])
            raise InputError(
                f"data set {self.name} in {self.path} has no {size} px images ({LARGE}): prepare it again as before, "
                f"with --size {LARGE_SIZE}, such as `{command}`",
                "dataset",
            )
        return self.large

    def inputs(self, rows: NDArray[np.intp], size: int) -> FloatArray:
        """Return images as inputs of a model.

        Args:
            rows: (n,) indices of the images.
            size: side of the model's input, in pixels.

        Returns:
            (n, 1, size, size) float32 in [0, 1].

        Raises:
            InputError: as in `images_for`.
        """
        return box_mean(self.images_for(size)[rows], size)[:, None]

    def summary(self) -> dict[str, Any]:
        """Return the facts that a model card records about its training data.

        Paths and the warnings are left out, since local paths and names must not leave the machine.
        """
        origin = self.info["provenance"].items()
        provenance = {key: value for key, value in origin if key != "warnings" and not str(value).startswith("/")}
        return {
            **{key: self.info[key] for key in ("name", "hash", "phantom", "images", "rejected", "counts")},
            "provenance": provenance,
            "train_hash": self.info.get("train_hash"),
        }

    def describe(self) -> str:
        """Return a short text: folder, image counts, findings and rejections."""
        lines = [
            f"{self.name}{' (synthetic phantom films)' if self.phantom else ''}: {len(self)} images in {self.path}"
        ]
        for split, counts in self.info["counts"].items():
            positives = ", ".join(f"{label} {_positive(classes)}" for label, classes in counts["labels"].items())
            abnormal = counts["abnormal"]["positive"]
            lines.append(
                f"  {split}: {counts['images']} images, {counts['patients']} patients, {abnormal} abnormal; {positives}"
            )
        if self.large is not None:
            lines.append(f"  also at {LARGE_SIZE} px, for teachers of `edgecxr train --res {LARGE_SIZE}`")
        if self.renderings:
            lines.append(f"  films: {in_words(self.renderings)}")
        if (unused := self.info.get("boxes_unused", 0)) or len(self.boxes):
            others = f"; {unused} others: the finding is no label, or not positive after merging" if unused else ""
            lines.append(f"  boxes: {len(self.boxes)} around findings{others}")
        if self.info.get("unlisted"):
            count = f"{self.info['unlisted']} (see {self.path / 'unlisted.csv'})"
            lines.append(f"  images beside folders of classes, or that no line names: {count}")
        if (twins := self.info.get("duplicates", {})).get("images"):
            count, across, where = twins["images"], twins.get("across_splits", 0), self.path / "duplicates.csv"
            leak = f"; {across} are in several splits: results will look too good" if across else ""
            lines.append(f"  images that repeat the pixels of an earlier one: {count} (see {where}){leak}")
        rejected = ", ".join(f"{reason} {count}" for reason, count in self.info["rejected"].items())
        if rejected:
            lines.append(f"  rejected: {rejected} (see {self.path / 'rejected.csv'})")
        return joined([*lines, f"  pictures: {self.path / 'contact_sheet.png'}"])

    def film_warnings(self) -> list[str]:
        """Return each kind of assumption about films, with count and example."""
        warned = self.info.get("warned", {})
        return [
            f"{text} ({count} {'film' if count == 1 else 'films'}"
            + (f", such as {brief(warned[text])})" if text in warned else ")")
            for text, count in self.info.get("warnings", {}).items()
        ]

    def check(self) -> None:
        """Compare all hashed files with their recorded hashes.

        Raises:
            InputError: a file has changed since it was prepared; reason "dataset".
        """
        for key, names in _HASHED.items():
            exist = all((self.path / name).exists() for name in names)
            # Data sets of older versions lack some hashes: accept them.
            is_stated = exist and (key in self.info or names == (LARGE,))
            try:
                digest = content_hash(self.path, names) if is_stated else None
            except (OSError, BadFile):
                digest = ""
            if digest != self.info.get(key):
                raise InputError(
                    f"files of {self.path} ({' and '.join(names)}) have changed since they were prepared: delete it, "
                    f"and {_REMEDY}",
                    "dataset",
                )


def _positive(classes: dict[str, int]) -> str:
    labelled = classes["positive"] + classes["negative"]
    return str(classes["positive"]) if labelled or not classes["unknown"] else "not known"


def train_hash(ids: NDArray[np.str_]) -> str:
    """Return the SHA-256 of the names of training images.

    It identifies the division of images that a model learns from. Names of unusable images count, too.

    Args:
        ids: (N,) names of the training images.
    """
    return hashlib.sha256("\n".join(sorted(ids.tolist())).encode()).hexdigest()


def content_hash(folder: Path, names: Sequence[str] = (IMAGES, "table.csv")) -> str:
    """Return the SHA-256 of files of a prepared data set.

    Args:
        folder: the data set's folder.
        names: the files, hashed one after the other; by default images and table.
    """
    digest = hashlib.sha256()
    for name in names:
        with open_file(folder / name) as file:
            if name not in (IMAGES, LARGE) and size_of(file) > _LARGEST_TEXT:
                raise BadFile(f"{name} is larger than any list of films")
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def mapped(file: Path, count: int, size: int) -> NDArray[np.uint8]:
    """Return the images of a file, mapped from the disk.

    Args:
        file: in the folder of a prepared data set.
        count: number of images.
        size: their side, in pixels.

    Returns:
        (count, size, size).

    Raises:
        ValueError: they are others.
        OSError: the file cannot be read.
    """

    def check(header: Header) -> None:
        if header.shape != (count, size, size) or header.dtype != np.uint8:
            raise ValueError(f"{file.name} is {header.dtype} {header.shape} for {count} lines in table.csv")

    return map_array(file, check)
