"""A prepared data set: every image at 224 px in one array, its table, and what was rejected.

images.npy         (N, 224, 224) uint8
images-448.npy     (N, 448, 448) uint8, of the same films; only where it was asked for
table.csv          id, patient, split, abnormal and one column per finding; an empty cell is not known
boxes.csv          id, label and corners of boxes around findings in the 224 px images; only where there are any
dataset.json       name, labels, provenance, counts, hash
rejected.csv       id, reason, message
decoded.jsonl      what was read: name, file and its state, warnings and shape of each film, which is not read again
unlisted.csv       files beside the images that no line of a table names; only where there are any
duplicates.csv     id, same_as and their splits, of images with equal pixels; only where there are any
contact_sheet.png  a few of the images
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.data.tables.boxes import BOXES, Boxes, read_boxes
from edgecxr.data.tables.table import read_table
from edgecxr.errors import InputError
from edgecxr.films.resize import BASE_SIZE, LARGE_SIZE, box_mean, source_size
from edgecxr.storage.folders import DATASET, read_whole
from edgecxr.vocabulary import FloatArray

# Goes up when the same films would give other pixels or another table.
FORMAT = 2

IMAGES = "images.npy"
LARGE = "images-448.npy"
DECODED = "decoded.jsonl"
FIXED_COLUMNS = ("id", "patient", "split", "abnormal")
_HASHED = {
    "hash": (IMAGES, "table.csv"), "large_hash": (LARGE,), "boxes_hash": (BOXES,), "decoded_hash": (DECODED,),
}  # fmt: skip
_REMEDY = "prepare the data set again with `edgecxr prepare`"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A data set ready for training; its N images are those that could be read.

    Attributes:
        path: its folder.
        images: (N, 224, 224) uint8, mapped from the disk, read-only.
        labels: the L findings.
        ids: (N,) names of the images.
        patients: (N,) names of the patients.
        splits: (N,) "train", "val" or "test".
        targets: (N, L) float32 in [0, 1], or NaN where a label is not known.
        abnormal: (N,) float32 in [0, 1], or NaN.
        boxes: around findings, in the 224 px images.
        info: what dataset.json says.
        large: (N, 448, 448) uint8, of the same films, for teachers of 448 px; None where it was not asked for.
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
        """Open what `prepare` wrote; what is open stays as it is when the data set is prepared anew.

        Raises:
            InputError: there is none, it is damaged, or of a newer format; reason "dataset".
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
            info = json.loads((path / DATASET).read_text(encoding="utf-8"))
            if info["format"] > FORMAT:
                raise InputError(
                    f"{path} was prepared by a newer edgecxr ({info.get('version')}): upgrade edgecxr, or {_REMEDY}",
                    "dataset",
                )
            labels = tuple(info["labels"])
            table = read_table(path / "table.csv")
            if tuple(table.columns) != (*FIXED_COLUMNS, *labels):
                raise ValueError("table.csv has other columns than dataset.json")
            images = _mapped(path / IMAGES, len(table), BASE_SIZE)
            large = _mapped(path / LARGE, len(table), LARGE_SIZE) if (path / LARGE).exists() else None
            ids, patients, splits = (np.array(table.columns[name]) for name in FIXED_COLUMNS[:3])
            targets = np.stack([table.values(label) for label in labels], axis=1)
            abnormal = table.values("abnormal")
            boxes = read_boxes(path / BOXES, ids, labels)
            # The hash does not cover them.
            if len(boxes) != info.get("boxes", len(boxes)):
                raise ValueError(f"{BOXES} holds {len(boxes)} boxes, but {DATASET} counts {info['boxes']}")
            return cls(path, images, labels, ids, patients, splits, targets, abnormal, boxes, info, large)
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise InputError(f"the prepared data set {path} is damaged ({error}): {_REMEDY}", "dataset") from error

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    @property
    def name(self) -> str:
        """Its name, such as "vindr"."""
        return str(self.info["name"])

    @property
    def hash(self) -> str:
        """SHA-256 of 224 px images and table: equal hashes mean the same data, however it was made."""
        return str(self.info["hash"])

    @property
    def hashes(self) -> tuple[str, ...]:
        """Its own hash, and of a pack that of the data set whose films it holds."""
        return tuple(str(self.info[key]) for key in ("hash", "data_hash") if key in self.info)

    @property
    def phantom(self) -> bool:
        """Whether its films are synthetic."""
        return bool(self.info["phantom"])

    def rows(self, split: str) -> NDArray[np.intp]:
        """Return the indices of a split's images, ascending."""
        return np.flatnonzero(self.splits == split)

    def images_for(self, size: int) -> NDArray[np.uint8]:
        """Return what the inputs of a model of side `size` are made from: `large` for 448 px, else `images`.

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
        """Return images as a model of side `size` takes them, (n, 1, size, size) float32 in [0, 1].

        Raises:
            InputError: as `images_for` does.
        """
        return box_mean(self.images_for(size)[rows], size)[:, None]

    def summary(self) -> dict[str, Any]:
        """Return what a model card records of the data it was trained on; without paths and names that stay here."""
        provenance = {key: value for key, value in self.info["provenance"].items() if key not in ("source", "warnings")}
        return {
            **{key: self.info[key] for key in ("name", "hash", "phantom", "images", "rejected", "counts")},
            "provenance": provenance,
            "train_hash": self.info.get("train_hash"),
        }

    def describe(self) -> str:
        """Return a few lines for people: where it lies, how many images of what, how many were rejected."""
        lines = [
            f"{self.name}{' (synthetic phantom films)' if self.phantom else ''}: {len(self)} images in {self.path}"
        ]
        for split, counts in self.info["counts"].items():
            found = ", ".join(f"{label} {_positive(classes)}" for label, classes in counts["labels"].items())
            abnormal = counts["abnormal"]["positive"]
            lines.append(
                f"  {split}: {counts['images']} images, {counts['patients']} patients, {abnormal} abnormal; {found}"
            )
        if self.large is not None:
            lines.append(f"  also at {LARGE_SIZE} px, for teachers of `edgecxr train --res {LARGE_SIZE}`")
        if len(self.boxes):
            lines.append(f"  boxes: {len(self.boxes)} around findings")
        if self.info.get("unlisted"):
            lines.append(f"  images that no line names: {self.info['unlisted']} (see {self.path / 'unlisted.csv'})")
        twins = self.info.get("duplicates", {})
        if twins.get("images"):
            count, across, where = twins["images"], twins["across_splits"], self.path / "duplicates.csv"
            leak = f"; {across} are in several splits: results will look too good" if across else ""
            lines.append(f"  images that repeat the pixels of an earlier one: {count} (see {where}){leak}")
        rejected = ", ".join(f"{reason} {count}" for reason, count in self.info["rejected"].items())
        if rejected:
            lines.append(f"  rejected: {rejected} (see {self.path / 'rejected.csv'})")
        return "\n".join([*lines, f"  pictures: {self.path / 'contact_sheet.png'}"])

    def check(self) -> None:
        """Read all that has a hash and compare it.

        Raises:
            InputError: something has changed since it was prepared.
        """
        for key, names in _HASHED.items():
            there = all((self.path / name).exists() for name in names)
            # Sets of before boxes had a hash are taken as they are.
            wanted = there and (key in self.info or names == (LARGE,))
            if (content_hash(self.path, names) if wanted else None) != self.info.get(key):
                raise InputError(
                    f"files of {self.path} ({' and '.join(names)}) have changed since they were prepared: delete it, "
                    f"and {_REMEDY}",
                    "dataset",
                )


def _positive(classes: dict[str, int]) -> str:
    known = classes["positive"] + classes["negative"]
    return str(classes["positive"]) if known or not classes["unknown"] else "not known"


def train_hash(ids: NDArray[np.str_]) -> str:
    """Return the SHA-256 of the names of training images, usable or not: which division of images a model learns from.

    Args:
        ids: (N,) of the training images.
    """
    return hashlib.sha256("\n".join(sorted(ids.tolist())).encode()).hexdigest()


def content_hash(folder: Path, names: Sequence[str] = (IMAGES, "table.csv")) -> str:
    """Return the SHA-256 of files of a prepared data set, one after the other: by default of images and table."""
    digest = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _mapped(file: Path, count: int, size: int) -> NDArray[np.uint8]:
    images: NDArray[np.uint8] = np.load(file, mmap_mode="r")
    if images.shape != (count, size, size) or images.dtype != np.uint8:
        raise ValueError(f"{file.name} is {images.dtype} {images.shape} for {count} lines in table.csv")
    return images
