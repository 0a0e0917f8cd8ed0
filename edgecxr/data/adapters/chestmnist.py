"""ChestMNIST of MedMNIST: NIH ChestX-ray14 films in one file.

The films have 28, 64, 128 or 224 px and MedMNIST's own splits.

chestmnist.npz, chestmnist_64.npz, chestmnist_128.npz, chestmnist_224.npz:
train_images, val_images, test_images (N, S, S) uint8; train_labels, val_labels, test_labels (N, 14) of 0 and 1
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.data.adapters.checks import NO_PATIENTS, warned
from edgecxr.data.adapters.nih import PICTURES
from edgecxr.data.dataset import SPLITS, Dataset
from edgecxr.data.tables.labels import SETS, choose, merged, unknown_warnings
from edgecxr.errors import InputError, brief
from edgecxr.films.image_file import from_array
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import checked
from edgecxr.storage.archives import open_archive, unpacking
from edgecxr.storage.reading import BadFile
from edgecxr.vocabulary import FloatArray

OWN = SETS["nih14"]
"""Findings in the order of the file's columns, under NIH's names."""


_MOST_ARRAYS = 100
_LARGEST = 32 << 30
_LARGEST_SIDE = 1024


def chestmnist(path: Path, labels: str | Sequence[str] | None = None, name: str = "chestmnist") -> Dataset:
    """Open ChestMNIST with the splits of MedMNIST.

    Images are unpacked from the file one after the other, since all of them may need 6 GB. Going back to an earlier
    image unpacks again from the beginning.

    Args:
        path: one of the files, or a folder that holds exactly one.
        labels: as in `edgecxr.data.tables.labels.choose`; by default all 14.
        name: name of the prepared data set.

    Raises:
        InputError: the file is not ChestMNIST; reason "dataset".
        UsageError: unknown labels.
    """
    path = _file(Path(path))
    sources = choose(labels, OWN, "ChestMNIST")
    own, counts = _labels(path)
    targets, abnormal = merged(own, OWN, sources), own.max(axis=1)
    splits = np.repeat(SPLITS, counts)
    ids = np.concatenate([[f"{split}-{i:06}" for i in range(n)] for split, n in zip(SPLITS, counts, strict=True)])
    provenance: dict[str, Any] = {
        "kind": "chestmnist", "source": str(path.resolve()), "cut": [], "phantom": False,
        "labels_from": {label: list(parts) for label, parts in sources.items()},
        "warnings": [
            NO_PATIENTS,
            *unknown_warnings(sources, OWN, "ChestMNIST"),
            *warned(path, tuple(sources), targets, abnormal, ids, splits),
        ],
    }  # fmt: skip
    readers, files = _Packed(path, counts, ids), (path,) * len(ids)
    return Dataset(
        name, tuple(sources), ids, targets, abnormal, ids, splits, files, provenance,
        pictures=PICTURES, readers=readers,
    )  # fmt: skip


class _Packed:
    """A factory of readers for the images in the packed file.

    Called with an image's index, it returns a function that reads the image and already holds its pixels.

    Raises:
        InputError: on a call, if the file is damaged or has other images than labels; reason "dataset".
    """

    def __init__(self, path: Path, counts: list[int], ids: NDArray[np.str_]) -> None:
        self._path, self._counts, self._ids = path, counts, ids
        self._images: dict[str, _Images] = {}

    def __call__(self, index: int) -> Callable[[], Radiograph]:
        place, split = index, 0
        while place >= self._counts[split]:
            place, split = place - self._counts[split], split + 1
        if SPLITS[split] not in self._images:
            self._images = {SPLITS[split]: _Images(self._path, SPLITS[split], self._counts[split])}
        return partial(_film, self._images[SPLITS[split]][place], str(self._ids[index]))


class _Images:
    """The images of a split in the packed file.

    Raises:
        InputError: they cannot be read, or their number is not `count`; reason "dataset".
    """

    def __init__(self, path: Path, split: str, count: int) -> None:
        self._path, self._name = path, f"{split}_images"
        with _refused(path, self._name):
            self._open = ExitStack()  # while films are read
            archive = self._open.enter_context(open_archive(path, _MOST_ARRAYS, _LARGEST))
            header, self._stream = archive.open(self._name)
            if header.dtype != np.uint8 or header.in_columns or len(header.shape) != 3 or header.shape[0] != count:
                raise BadFile(f"{header.dtype} {header.shape} for {count} labels")
            if max(header.shape[1:]) > _LARGEST_SIDE:
                raise BadFile(f"images of shape {header.shape[1:]}")
            self._shape, self._first = header.shape[1:], header.begin

    def __getitem__(self, place: int) -> NDArray[np.uint8]:
        area = math.prod(self._shape)
        with _refused(self._path, self._name):
            self._stream.seek(self._first + place * area)
            return np.frombuffer(self._stream.read(area), np.uint8).reshape(self._shape)


def _film(pixels: NDArray[np.uint8], name: str) -> Radiograph:
    film = from_array(pixels)
    return checked(Radiograph(film.pixels, name, None, film.warnings, rendering=film.rendering))


def _file(path: Path) -> Path:
    if os.path.isdir(path):
        files = sorted(path.glob("chestmnist*.npz"))
        if len(files) != 1:
            content = f"it holds {', '.join(file.name for file in files)}" if files else "it holds none"
            raise InputError(
                f"{path} does not hold one chestmnist*.npz ({content}): give the path of the file", "dataset"
            )
        return files[0]
    return path


def _array(path: Path, name: str) -> NDArray[Any]:
    with _refused(path, name), open_archive(path, _MOST_ARRAYS, _LARGEST) as archive:
        header = archive.header(name)
        if header.dtype.kind not in "biuf" or len(header.shape) != 2 or header.shape[1] != len(OWN):
            raise BadFile(f"it is {header.dtype} {header.shape}, not (N, {len(OWN)})")
        return archive.array(name)


@contextmanager
def _refused(path: Path, name: str) -> Iterator[None]:
    """Convert errors of an array in the file to `InputError`."""
    try:
        with unpacking():
            yield
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: give a chestmnist*.npz of MedMNIST", "dataset") from error
    except (OSError, BadFile) as error:
        raise InputError(
            f"{path} is no ChestMNIST, {name} cannot be read ({brief(error)}): give a chestmnist*.npz of MedMNIST",
            "dataset",
        ) from error


def _labels(path: Path) -> tuple[FloatArray, list[int]]:
    """Return all findings (N, 14) and the number of images per split."""
    parts = [_array(path, f"{split}_labels") for split in SPLITS]
    for split, part in zip(SPLITS, parts, strict=True):
        if not np.isin(part, (0, 1)).all():
            raise InputError(
                f"{path}: {split}_labels is {part.dtype} {part.shape}, not of 0 and 1: give a chestmnist*.npz of "
                "MedMNIST",
                "dataset",
            )
    return np.concatenate(parts).astype(np.float32), [len(part) for part in parts]
