"""Make synthetic chest X-rays: DICOM files in the layout of VinDr-CXR.

With them everything runs without data.

    train/<image_id>.dicom   test/<image_id>.dicom   phantom.json
    annotations/image_labels_{train,test}.csv   annotations/annotations_{train,test}.csv   annotations/patients.csv

A film is made in three steps: attenuation is summed along rays through a simple body (modules anatomy, body and
structures), lesions change it (disease, lesions), and a detector turns it into pixels (film). No phantom stands for a
patient, and no result on phantoms says anything about patients.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecxr.errors import EdgeCxrError, InputError, UsageError
from edgecxr.machine.cores import cores
from edgecxr.phantom.anatomy import patient_of, stream
from edgecxr.phantom.disease import LABELS, NO_FINDING
from edgecxr.phantom.film import Box, FilmPlan, plan, render
from edgecxr.storage.atomic import atomic_write, writing
from edgecxr.storage.reading import BadFile, read_text
from edgecxr.storage.spreadsheet import csv_text
from edgecxr.storage.unfinished import is_unfinished
from edgecxr.workers.pool import Pool
from edgecxr.workers.work import Limits, Work, WorkerEnd, run

if TYPE_CHECKING:
    from edgecxr.data.dataset import Dataset

VERSION = 1
"""Version of the recipe; another version makes other films, whatever the seed."""

MARKER = "phantom.json"
_LARGEST_TEXT = 1 << 30
_SMALLEST = 8  # fewer films would leave a split without images
_FALSE_ALARM = 0.008  # rate at which a reader reports an absent finding


def phantom(
    folder: Path,
    n: int = 2000,
    seed: int = 0,
    merge: str = "majority",
    val_fraction: float = 0.1,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Make the films missing in `folder`, and open the data set.

    Args:
        folder: folder for the DICOM files and tables.
        n: number of films, at least 8; a fifth of them is the test set.
        seed: seed of the films and of the split into train and val.
        merge: how the readers' labels are merged; see `edgecxr.data.adapters.vindr.vindr`.
        val_fraction: fraction of the training patients that becomes "val".
        workers: processes; by default one for each CPU.
        progress: called with (films done, n).

    Raises:
        InputError: the folder holds other films; reason "dataset".
        UsageError: `n` or `seed` is out of range, or the folder cannot be written.
    """
    from edgecxr.data.adapters.vindr import vindr

    write_phantom(folder, n, seed, workers, progress)
    facts = {"kind": "phantom", "phantom": True, "seed": seed, "n": n, "version": VERSION}
    return vindr(Path(folder), LABELS, merge, val_fraction, seed, name="phantom", provenance=facts)


def write_phantom(
    folder: Path,
    n: int,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `n` synthetic films and their tables.

    Existing films are kept: an interrupted call resumes, and a larger `n` adds films. The files do not depend on the
    number of workers or on interruptions. The tables are written last: a folder that has them is complete.

    Args:
        folder: created if it does not exist.
        n: number of films, at least 8.
        seed: not negative.
        workers: processes; by default one for each CPU.
        progress: called with (films done, n).

    Raises:
        InputError: the folder holds other films; reason "dataset".
        UsageError: `n` or `seed` is out of range, or the folder cannot be written.
        EdgeCxrError: a worker was killed; call again to go on.
    """
    if n < _SMALLEST or seed < 0:
        raise UsageError(f"a phantom data set has at least {_SMALLEST} films and a seed from 0 (given: {n}, {seed})")
    folder = Path(folder)
    _claim(folder, seed)
    missing = [index for index in range(n) if not _path(folder, seed, index).exists()]
    done = n - len(missing)
    if progress:
        progress(done, n)
    for _ in _written_films(folder, seed, missing, workers or cores()):
        done += 1
        if progress:
            progress(done, n)
    _write_tables(folder, seed, n)


def image_id(seed: int, index: int) -> str:
    """Return a film's name: 32 hexadecimal digits, as in VinDr-CXR."""
    return hashlib.sha256(f"edgecxr phantom {VERSION} {seed} {index}".encode()).hexdigest()[:32]


def split_of(index: int) -> str:
    """Return the film's split, "train" or "test".

    A fifth of the patients, and of the films, is for testing. The split does not depend on the number of films.
    """
    return "test" if patient_of(index) % 5 == 2 else "train"


def _path(folder: Path, seed: int, index: int) -> Path:
    return folder / split_of(index) / f"{image_id(seed, index)}.dicom"


def _claim(folder: Path, seed: int) -> None:
    """Mark the folder as belonging to this seed.

    Raises:
        InputError: the folder holds something else; reason "dataset".
    """
    marker = folder / MARKER
    content = json.dumps({"phantom": True, "seed": seed, "version": VERSION})
    with writing(folder):
        if marker.is_file():
            if _text_of(marker) != content:
                raise InputError(
                    f"{folder} holds phantoms of another seed or version: delete it or name another", "dataset"
                )
            return
        # A killed run may have left an unfinished marker.
        if folder.is_dir() and any(not is_unfinished(entry.name) for entry in folder.iterdir()):
            raise InputError(f"{folder} is not empty and holds no phantoms: name another folder", "dataset")
        atomic_write(marker, content)


def _written_films(folder: Path, seed: int, indices: list[int], workers: int) -> Iterator[int]:
    """Write films, in one or several processes, and yield their numbers."""
    workers = min(workers, len(indices) // 4)  # a process takes as long to start as a few films
    if workers <= 1:
        for index in indices:
            yield _write_film(folder, seed, index)
        return

    def ended(index: int, ended: WorkerEnd) -> int:
        raise EdgeCxrError("a process that makes phantoms was killed: run the command again to go on")

    work = Work(partial(_write_film_there, folder, seed), lambda index, answer, data: index, ended)
    with Pool(work, workers, Limits(tries=2)) as pool:
        for index, _ in run(pool, indices):
            yield index


def _write_film_there(folder: Path, seed: int, index: int) -> tuple[None, bytes]:
    _write_film(folder, seed, index)
    return None, b""


def _write_film(folder: Path, seed: int, index: int) -> int:
    # Imported here, so that opening finished phantoms loads no encoders.
    from edgecxr.phantom.dicom_file import encode

    atomic_write(_path(folder, seed, index), encode(render(seed, index), seed))
    return index


def _write_tables(folder: Path, seed: int, n: int) -> None:
    labels: dict[str, list[list[object]]] = {"train": [], "test": []}
    boxes: dict[str, list[list[object]]] = {"train": [], "test": []}
    for index in range(n):
        film, name = plan(seed, index), image_id(seed, index)
        if split_of(index) == "test":
            labels["test"].append([name, *_row(film.disease.present)])
            boxes["test"] += [[name, *box] for box in _boxes(film.boxes())]
            continue
        for reader, findings, reader_boxes in _readings(seed, film):
            labels["train"].append([name, reader, *_row(findings)])
            boxes["train"] += [[name, reader, *box] for box in _boxes(reader_boxes)]
    corners: list[object] = ["class_name", "x_min", "y_min", "x_max", "y_max"]
    head: dict[str, list[object]] = {"train": ["image_id", "rad_id"], "test": ["image_id"]}
    tables: dict[str, list[list[object]]] = {"patients.csv": [["image_id", "patient"]]}
    tables["patients.csv"] += [[image_id(seed, index), f"PHANTOM-{seed}-{patient_of(index):05d}"] for index in range(n)]
    for split in ("test", "train"):
        tables[f"annotations_{split}.csv"] = [head[split] + corners, *boxes[split]]
        tables[f"image_labels_{split}.csv"] = [[*head[split], *LABELS, NO_FINDING], *labels[split]]
    for name, rows in tables.items():
        text = csv_text(rows[0], rows[1:])
        path = folder / "annotations" / name
        if _text_of(path) != text:
            atomic_write(path, text)


def _text_of(path: Path) -> str | None:
    """Return a file's text; None if there is none."""
    try:
        return read_text(path, _LARGEST_TEXT)
    except (OSError, BadFile):
        return None


def _row(present: Iterable[str]) -> list[int]:
    present = set(present)
    return [*(int(label in present) for label in LABELS), int(not present)]


def _boxes(boxes: list[Box]) -> list[tuple[object, ...]]:
    return list(boxes) if boxes else [(NO_FINDING, "", "", "", "")]


def _readings(seed: int, film: FilmPlan) -> Iterator[tuple[str, tuple[str, ...], list[Box]]]:
    """Yield the name, labels and boxes of each of three readers.

    Readers miss faint findings and sometimes report absent ones.
    """
    rng = stream(seed, film.index, 7)
    # As in VinDr-CXR, three of 17 readers read nearly all abnormal films, so the reader predicts the label.
    usual = film.disease.present and rng.random() < 0.9
    readers = (8, 9, 10) if usual else rng.choice(np.arange(1, 18), 3, replace=False).tolist()
    everywhere = plan(seed, film.index, LABELS)
    for reader in readers:
        draws = rng.random(len(LABELS))
        findings = tuple(
            label
            for label, draw in zip(LABELS, draws, strict=True)
            if draw < (0.62 + 0.36 * film.disease.clarity[label] if label in film.disease.clarity else _FALSE_ALARM)
        )
        truth, alarms = film.boxes(), everywhere.boxes()
        boxes = []
        for label in findings:
            source = truth if label in film.disease.present else alarms
            for _, *corners in (box for box in source if box[0] == label):
                boxes.append((label, *_by_hand(corners, film, rng)))
        yield f"R{reader}", findings, boxes


def _by_hand(corners: list[float], film: FilmPlan, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Return a box as a reader would draw it, slightly off."""
    x0, y0, x1, y1 = corners
    spread = 1.5 + 0.03 * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
    drawn = np.array(corners) + rng.normal(0, 1, 4) * spread
    limits = np.array([film.exposure.columns - 1, film.exposure.rows - 1] * 2)
    a, b, c, d = np.clip(drawn, 0, limits).round(1).tolist()
    return min(a, c), min(b, d), max(a, c), max(b, d)
