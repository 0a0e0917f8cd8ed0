"""Built-in synthetic chest X-rays: real DICOM files in the layout of VinDr-CXR, so that everything runs without data.

    train/<image_id>.dicom   test/<image_id>.dicom   phantom.json
    annotations/image_labels_{train,test}.csv   annotations/annotations_{train,test}.csv   annotations/patients.csv

A film is made from sums of attenuation along rays through a simple body (anatomy, body and
structures), what disease does to them (disease, lesions), and a detector (film). No
phantom stands for a patient, and no result on phantoms says anything about patients.
"""

from __future__ import annotations

import csv
import hashlib
import io
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
from edgecxr.workers.processes import Ended, Processes

if TYPE_CHECKING:
    from edgecxr.data.adapters.vindr import VinDr

VERSION = 1
"""Of the recipe: films of another version are others, whatever their seed."""

MARKER = "phantom.json"
_SMALLEST = 8  # fewer films would leave a split without images
_FALSE_ALARM = 0.008  # of a reader, for each finding that is not there


def phantom(
    folder: Path,
    n: int = 2000,
    seed: int = 0,
    merge: str = "majority",
    val_fraction: float = 0.1,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VinDr:
    """Make the films that are not in `folder` yet, and open them as a data set.

    Args:
        folder: to write the DICOM files and tables into.
        n: number of films, at least 8; a fifth of them is the test set.
        seed: of the films, and of the division into train and val.
        merge: how readers are merged; see `edgecxr.data.adapters.vindr.VinDr`.
        val_fraction: part of the training patients that becomes "val".
        workers: processes; by default one for each CPU.
        progress: called with (films done, n).

    Raises:
        InputError: the folder holds other films; reason "dataset".
        UsageError: `n` or `seed` is out of range, or the folder cannot be written.
    """
    from edgecxr.data.adapters.vindr import VinDr

    write_phantom(folder, n, seed, workers, progress)
    facts = {"kind": "phantom", "phantom": True, "seed": seed, "n": n, "version": VERSION}
    return VinDr(Path(folder), LABELS, merge, val_fraction, seed, name="phantom", provenance=facts)


def write_phantom(
    folder: Path,
    n: int,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `n` synthetic films and their tables.

    What is there stays: an interrupted call goes on where it was, and a larger `n` adds films. The files do not depend
    on the number of workers or on interruptions. The tables come last: a folder that has them is complete.

    Args:
        folder: made if need be.
        n: number of films, at least 8.
        seed: not negative.
        workers: processes; by default one for each CPU. With more than one, the calling program must be importable
            (`if __name__ == "__main__"`).
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
    for _ in _made(folder, seed, missing, workers or cores()):
        done += 1
        if progress:
            progress(done, n)
    _write_tables(folder, seed, n)


def image_id(seed: int, index: int) -> str:
    """Return the name of a film: 32 hexadecimal digits, as in VinDr-CXR."""
    return hashlib.sha256(f"edgecxr phantom {VERSION} {seed} {index}".encode()).hexdigest()[:32]


def split_of(index: int) -> str:
    """Return "train" or "test": a fifth of the patients, and of the films, are for testing, whatever `n` is."""
    return "test" if patient_of(index) % 5 == 2 else "train"


def _path(folder: Path, seed: int, index: int) -> Path:
    return folder / split_of(index) / f"{image_id(seed, index)}.dicom"


def _claim(folder: Path, seed: int) -> None:
    """Mark the folder as that of this seed, or raise where it holds something else."""
    marker = folder / MARKER
    wanted = json.dumps({"phantom": True, "seed": seed, "version": VERSION})
    with writing(folder):
        if marker.is_file():
            if marker.read_text(encoding="utf-8") != wanted:
                raise InputError(
                    f"{folder} holds phantoms of another seed or version: delete it or name another", "dataset"
                )
            return
        # A kill may have left the unfinished marker.
        if folder.is_dir() and any(entry.name != f".{MARKER}.tmp" for entry in folder.iterdir()):
            raise InputError(f"{folder} is not empty and holds no phantoms: name another folder", "dataset")
        atomic_write(marker, wanted)


def _made(folder: Path, seed: int, indices: list[int], workers: int) -> Iterator[int]:
    """Write films, in this process or in several, and yield their numbers."""
    workers = min(workers, len(indices) // 4)  # a process takes as long to start as a few films
    if workers <= 1:
        for index in indices:
            yield _write_film(folder, seed, index)
        return
    with Processes(workers, float("inf")) as processes:
        for index, result in processes.run(partial(_write_film, folder, seed), indices):
            if isinstance(result, Ended):
                raise EdgeCxrError("a process that makes phantoms was killed: run the command again to go on")
            yield index


def _write_film(folder: Path, seed: int, index: int) -> int:
    # Here, so that opening finished phantoms loads no encoders.
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
        for reader, seen, found in _readings(seed, film):
            labels["train"].append([name, reader, *_row(seen)])
            boxes["train"] += [[name, reader, *box] for box in _boxes(found)]
    corners: list[object] = ["class_name", "x_min", "y_min", "x_max", "y_max"]
    head: dict[str, list[object]] = {"train": ["image_id", "rad_id"], "test": ["image_id"]}
    tables: dict[str, list[list[object]]] = {"patients.csv": [["image_id", "patient"]]}
    tables["patients.csv"] += [[image_id(seed, index), f"PHANTOM-{seed}-{patient_of(index):05d}"] for index in range(n)]
    for split in ("test", "train"):
        tables[f"annotations_{split}.csv"] = [head[split] + corners, *boxes[split]]
        tables[f"image_labels_{split}.csv"] = [[*head[split], *LABELS, NO_FINDING], *labels[split]]
    for name, rows in tables.items():
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        path = folder / "annotations" / name
        if not path.exists() or path.read_text(encoding="utf-8") != text.getvalue():
            atomic_write(path, text.getvalue())


def _row(present: Iterable[str]) -> list[int]:
    present = set(present)
    return [*(int(label in present) for label in LABELS), int(not present)]


def _boxes(found: list[Box]) -> list[tuple[object, ...]]:
    return list(found) if found else [(NO_FINDING, "", "", "", "")]


def _readings(seed: int, film: FilmPlan) -> Iterator[tuple[str, tuple[str, ...], list[Box]]]:
    """Yield what each of three readers reports: faint findings are missed, and some are seen that are not there."""
    rng = stream(seed, film.index, 7)
    # As in VinDr-CXR, three of 17 readers read nearly all abnormal films: who read gives the label away.
    usual = film.disease.present and rng.random() < 0.9
    readers = (8, 9, 10) if usual else rng.choice(np.arange(1, 18), 3, replace=False).tolist()
    everywhere = plan(seed, film.index, LABELS)
    for reader in readers:
        draws = rng.random(len(LABELS))
        seen = tuple(
            label
            for label, draw in zip(LABELS, draws, strict=True)
            if draw < (0.62 + 0.36 * film.disease.clarity[label] if label in film.disease.clarity else _FALSE_ALARM)
        )
        truth, alarms = film.boxes(), everywhere.boxes()
        found = []
        for label in seen:
            source = truth if label in film.disease.present else alarms
            for _, *corners in (box for box in source if box[0] == label):
                found.append((label, *_by_hand(corners, film, rng)))
        yield f"R{reader}", seen, found


def _by_hand(corners: list[float], film: FilmPlan, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Draw a box as a reader does, a little off."""
    x0, y0, x1, y1 = corners
    spread = 1.5 + 0.03 * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
    drawn = np.array(corners) + rng.normal(0, 1, 4) * spread
    limits = np.array([film.exposure.columns - 1, film.exposure.rows - 1] * 2)
    a, b, c, d = np.clip(drawn, 0, limits).round(1).tolist()
    return min(a, c), min(b, d), max(a, c), max(b, d)
