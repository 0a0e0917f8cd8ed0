"""ChestMNIST of MedMNIST: the films of NIH ChestX-ray14 at 28, 64, 128 or 224 px in one file, with its own splits.

chestmnist.npz, chestmnist_64.npz, chestmnist_128.npz, chestmnist_224.npz:
train_images, val_images, test_images (N, S, S) uint8; train_labels, val_labels, test_labels (N, 14) of 0 and 1
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.data.dataset import SPLITS, Box
from edgecxr.data.labels import SETS, choose, merged, unknown_warnings
from edgecxr.data.listed import NO_PATIENTS, warned
from edgecxr.errors import InputError
from edgecxr.runtime.image import from_array
from edgecxr.runtime.read import checked
from edgecxr.runtime.types import FloatArray, Radiograph

OWN = SETS["nih14"]
"""In the order of its columns, under NIH's names."""


class ChestMnist:
    """ChestMNIST, a `CxrDataset` whose films lie in one file.

    The images of a split are read into memory at first use, in each process that reads some: 60 MB of the training
    films at 28 px, 4 GB at 224 px; with few gigabytes give fewer --workers.

    Args:
        path: one of the files, or a folder that holds exactly one.
        labels: what `edgecxr.data.labels.choose` takes; by default all 14.
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
        self._images: dict[str, NDArray[np.uint8]] = {}
        self.provenance: dict[str, Any] = {
            "kind": "chestmnist", "source": str(path.resolve()), "phantom": False,
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

    def read(self, index: int) -> Radiograph:
        """Return image `index`; raises `InputError` where it cannot be used."""
        split = str(self.splits[index])
        if split not in self._images:
            self._images = {split: _array(self.files[0], f"{split}_images")}  # one at a time: they are large
        film = from_array(self._images[split][index - sum(self._counts[: SPLITS.index(split)])])
        return checked(Radiograph(film.pixels, str(self.ids[index]), None, film.warnings))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the images out: each process reads its own."""
        return self.__dict__ | {"_images": {}}


def _file(path: Path) -> Path:
    if path.is_dir():
        found = sorted(path.glob("chestmnist*.npz"))
        if len(found) != 1:
            there = f"it holds {', '.join(file.name for file in found)}" if found else "it holds none"
            raise InputError(
                f"{path} does not hold one chestmnist*.npz ({there}): give the path of the file", "dataset"
            )
        return found[0]
    return path


def _array(path: Path, name: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return np.asarray(file[name])
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: give a chestmnist*.npz of MedMNIST", "dataset") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
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
