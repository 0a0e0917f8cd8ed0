"""ChestMNIST of MedMNIST: the films of NIH ChestX-ray14 at 28, 64, 128 or 224 px in one file, with its own splits.

chestmnist.npz, chestmnist_64.npz, chestmnist_128.npz, chestmnist_224.npz:
train_images, val_images, test_images (N, S, S) uint8; train_labels, val_labels, test_labels (N, 14) of 0 and 1
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.typing import NDArray

from edgecxr.data.adapters.listed import NO_PATIENTS, warned
from edgecxr.data.dataset import SPLITS, Box
from edgecxr.data.tables.labels import SETS, choose, merged, unknown_warnings
from edgecxr.errors import InputError
from edgecxr.films.image_file import from_array
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import checked
from edgecxr.vocabulary import FloatArray

OWN = SETS["nih14"]
"""In the order of its columns, under NIH's names."""


class ChestMnist:
    """ChestMNIST, a `CxrDataset` whose films lie in one file.

    Images are taken out of the packed file one after the other, since all of them may need 6 GB; going back to an
    earlier one begins anew.

    Args:
        path: one of the files, or a folder that holds exactly one.
        labels: what `edgecxr.data.tables.labels.choose` takes; by default all 14.
        seed: unused; the splits are MedMNIST's.
        name: of the prepared data set.

    Raises:
        InputError: it is no such file; reason "dataset".
        UsageError: unknown labels.
    """

    boxes: tuple[Box, ...] = ()
    unlisted: tuple[Path, ...] = ()

    def __init__(
        self, path: Path, labels: str | Sequence[str] | None = None, seed: int = 0, name: str = "chestmnist"
    ) -> None:
        path = _file(Path(path))
        sources = choose(labels, OWN, "ChestMNIST")
        own, counts = _labels(path)
        self.name, self.labels = name, tuple(sources)
        self.targets = merged(own, OWN, sources)
        self.abnormal: FloatArray = own.max(axis=1)
        self.splits = np.repeat(SPLITS, counts)
        self.ids = np.concatenate(
            [[f"{split}-{i:06}" for i in range(n)] for split, n in zip(SPLITS, counts, strict=True)]
        )
        self.patients = self.ids
        self.files = (path,) * len(self.ids)
        self._counts = counts
        self._images: dict[str, _Images] = {}
        self.provenance: dict[str, Any] = {
            "kind": "chestmnist", "source": str(path.resolve()), "cut": [], "phantom": False,
            "labels_from": {label: list(parts) for label, parts in sources.items()},
            "warnings": [
                NO_PATIENTS,
                *unknown_warnings(sources, OWN, "ChestMNIST"),
                *warned(path, self.labels, self.targets, self.abnormal, self.patients, self.splits),
            ],
        }  # fmt: skip

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def reader(self, index: int) -> Callable[[], Radiograph]:
        """Return what reads image `index`, its pixels in hand.

        Raises:
            InputError: the file is damaged, or has other images than labels; reason "dataset".
        """
        split = str(self.splits[index])
        if split not in self._images:
            self._images = {split: _Images(self.files[0], split, self._counts[SPLITS.index(split)])}
        pixels = self._images[split][index - sum(self._counts[: SPLITS.index(split)])]
        return partial(_film, pixels, str(self.ids[index]))


class _Images:
    """The images of a split in the packed file.

    Raises:
        InputError: they cannot be read, or are not so many; reason "dataset".
    """

    def __init__(self, path: Path, split: str, count: int) -> None:
        self._path, self._name = path, f"{split}_images"
        with _refused(path, self._name):
            self._stream = zipfile.ZipFile(path).open(f"{self._name}.npy")  # noqa: SIM115  # for as long as there are films
            read_header = {1: read_array_header_1_0, 2: read_array_header_2_0}[read_magic(self._stream)[0]]
            shape, in_columns, kind = read_header(self._stream)
            if kind != np.uint8 or in_columns or len(shape) != 3 or shape[0] != count:
                raise ValueError(f"{kind} {shape} for {count} labels")
            self._shape, self._first = shape[1:], self._stream.tell()

    def __getitem__(self, place: int) -> NDArray[np.uint8]:
        area = math.prod(self._shape)
        with _refused(self._path, self._name):
            self._stream.seek(self._first + place * area)
            return np.frombuffer(self._stream.read(area), np.uint8).reshape(self._shape)


def _film(pixels: NDArray[np.uint8], name: str) -> Radiograph:
    found = from_array(pixels)
    return checked(Radiograph(found.pixels, name, None, found.warnings))


def _file(path: Path) -> Path:
    if os.path.isdir(path):
        found = sorted(path.glob("chestmnist*.npz"))
        if len(found) != 1:
            there = f"it holds {', '.join(file.name for file in found)}" if found else "it holds none"
            raise InputError(
                f"{path} does not hold one chestmnist*.npz ({there}): give the path of the file", "dataset"
            )
        return found[0]
    return path


def _array(path: Path, name: str) -> NDArray[Any]:
    with _refused(path, name), np.load(path, allow_pickle=False) as file:
        return np.asarray(file[name])


@contextmanager
def _refused(path: Path, name: str) -> Iterator[None]:
    """Turn what goes wrong with an array of the file into an InputError."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: give a chestmnist*.npz of MedMNIST", "dataset") from error
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is no ChestMNIST, {name} cannot be read ({type(error).__name__}: {error}): give a "
            "chestmnist*.npz of MedMNIST",
            "dataset",
        ) from error


def _labels(path: Path) -> tuple[FloatArray, list[int]]:
    """Return the findings (N, 14) of all splits, and how many images each has."""
    parts = [_array(path, f"{split}_labels") for split in SPLITS]
    for split, part in zip(SPLITS, parts, strict=True):
        if part.ndim != 2 or part.shape[1] != len(OWN) or not np.isin(part, (0, 1)).all():
            raise InputError(
                f"{path}: {split}_labels is {part.dtype} {part.shape}, not (N, {len(OWN)}) of 0 and 1: give a "
                "chestmnist*.npz of MedMNIST",
                "dataset",
            )
    return np.concatenate(parts).astype(np.float32), [len(part) for part in parts]
