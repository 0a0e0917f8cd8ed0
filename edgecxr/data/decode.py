"""Reads and resizes all images of a data set in parallel processes, so that a killed run goes on where it was."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.data.dataset import CxrDataset
from edgecxr.data.workers import follow_parent
from edgecxr.errors import AGAIN, EdgeCxrError, InputError
from edgecxr.runtime.preprocess import BASE_SIZE, to_base
from edgecxr.runtime.read import warnings_at
from edgecxr.workspace import atomic_write

CHUNK = 4
COMMIT_SECONDS = 1.0
MARK = "inputs"

_MOST_CRASHES = 20
"""Images in a row that may end their processes; more are the machine's doing."""

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Outcome:
    """What became of one image.

    Attributes:
        index: of the image in its data set.
        reason: why it was rejected, one of `edgecxr.errors.REASONS`; empty where it was not.
        message: the same for people.
        warnings: what the reader had to assume.
        shape: rows and columns of the film; None where it was rejected.
    """

    index: int
    reason: str = ""
    message: str = ""
    warnings: tuple[str, ...] = ()
    shape: tuple[int, int] | None = None


Decoded = tuple[Outcome, bytes | None]


class Journal:
    """The pixels decoded so far and a line for each image that is done, in a folder.

    A line is written only after its pixels are on the disk; a line that was cut off by a crash counts for nothing.

    Args:
        folder: made if need be.
        inputs: fingerprint of what is decoded; work on other inputs is thrown away.
        sizes: sides of the images that are kept of each film, in pixels.
    """

    def __init__(self, folder: Path, inputs: str, sizes: tuple[int, ...] = (BASE_SIZE,)) -> None:
        self.folder = folder
        self.sizes = sizes
        self.outcomes: dict[int, Outcome] = {}
        folder.mkdir(parents=True, exist_ok=True)
        pixels, lines, mark = folder / "pixels.raw", folder / "journal.jsonl", folder / MARK
        if not mark.exists() or mark.read_text() != inputs:
            # The lines first: a crash between the two must not leave lines without their pixels.
            lines.unlink(missing_ok=True)
            pixels.unlink(missing_ok=True)
            atomic_write(mark, inputs)
        if lines.exists():
            self._load(lines.read_text(encoding="utf-8", errors="replace"))
        pixels.touch()
        self._pixels = pixels.open("r+b")
        self._lines = lines.open("a", encoding="utf-8")
        self._lines.write("\n")  # ends a line that was cut off
        self._waiting: list[Outcome] = []
        self._committed = time.monotonic()

    def add(self, outcome: Outcome, pixels: bytes | None) -> None:
        """Record an image; it is safe after the next commit, which comes within a second."""
        if pixels is not None:
            self._pixels.seek(outcome.index * _bytes(self.sizes))
            self._pixels.write(pixels)
        self._waiting.append(outcome)
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Bring everything recorded so far to the disk: the pixels first."""
        _sync(self._pixels)
        for done in self._waiting:
            self.outcomes[done.index] = done
            self._lines.write(json.dumps([done.index, done.reason, done.message, done.warnings, done.shape]) + "\n")
        _sync(self._lines)
        self._waiting.clear()
        self._committed = time.monotonic()

    def images(self, indices: NDArray[np.intp], size: int = BASE_SIZE) -> NDArray[np.uint8]:
        """Return the pixels of images that are done, (n, size, size)."""
        result = np.empty((len(indices), size, size), np.uint8)
        before = _bytes(self.sizes[: self.sizes.index(size)])
        for image, index in zip(result, indices.tolist(), strict=True):
            self._pixels.seek(index * _bytes(self.sizes) + before)
            if self._pixels.readinto(image.data) != image.nbytes:
                raise EdgeCxrError(f"{self._pixels.name} is shorter than its journal says: delete its folder")
        return result

    def close(self) -> None:
        """Close the files, without a commit."""
        # A full disk may refuse what is still buffered; the lines of those images are not written either.
        with contextlib.suppress(OSError):
            self._pixels.close()
        with contextlib.suppress(OSError):
            self._lines.close()

    def _load(self, text: str) -> None:
        for line in text.split("\n"):
            with contextlib.suppress(ValueError):
                index, reason, message, warnings, shape = json.loads(line)
                # A rejected image is tried again: its cause may be mended, such as a missing permission.
                if not reason:
                    self.outcomes[index] = Outcome(index, reason, message, tuple(warnings), tuple(shape))


def decode_all(
    dataset: CxrDataset,
    journal: Journal,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    executor: str = "processes",
    strict: bool = False,
) -> None:
    """Decode what the journal does not have yet.

    Args:
        dataset: picklable.
        journal: made for this data set.
        workers: processes; 1 stays in this one.
        progress: called with (images done, images in all).
        executor: "processes" of this machine, or "ray", a cluster that sees the same files.
        strict: stop at the first image that cannot be used.

    Raises:
        InputError: an image cannot be used, and `strict` is set; what was decoded before is kept.
        MissingPackage: Ray is not installed.
        EdgeCxrError: several processes in a row end at once, or Ray's cluster fails.
    """
    todo = [index for index in range(len(dataset)) if index not in journal.outcomes]
    done = len(dataset) - len(todo)
    sizes = journal.sizes
    if executor == "ray":
        from edgecxr.data.ray_executor import decoded

        results: Iterator[Decoded] = decoded(dataset, todo, sizes)
    else:
        results = (
            _in_processes(dataset, todo, sizes, workers)
            if workers > 1
            else (decode_one(dataset, i, sizes) for i in todo)
        )
    if progress:
        progress(done, len(dataset))
    # Closed at once when this is left by an exception, so that the workers end.
    with contextlib.closing(results):  # type: ignore[type-var]
        for outcome, pixels in results:
            journal.add(outcome, pixels)
            done += 1
            if progress:
                progress(done, len(dataset))
            if strict and outcome.reason:
                journal.commit()
                raise InputError(
                    f"{outcome.message} (--strict stops here; without it such films are listed)", outcome.reason
                )
    journal.commit()


def decode_one(dataset: CxrDataset, index: int, sizes: tuple[int, ...]) -> Decoded:
    """Decode one image in this process; whatever goes wrong with it is an outcome."""
    try:
        film = dataset.read(index)
        pixels = b"".join(to_base(film.pixels, size).tobytes() for size in sizes)
        # Who prepares data knows what is in it: what a device would refuse is said, and taken.
        said = (*(objection.message for objection in film.objections), *warnings_at(film, max(sizes)))
        return Outcome(index, warnings=said, shape=film.shape), pixels
    except InputError as error:
        return Outcome(index, error.reason, str(error)), None
    except Exception as error:  # a decoder's fault in one file must not end hours of work on the others
        first = (str(error).strip().splitlines() or ["no details"])[0]
        return Outcome(index, "undecodable", f"{dataset.files[index]}: {type(error).__name__}: {first}"), None


def _in_processes(
    dataset: CxrDataset, todo: list[int], sizes: tuple[int, ...], workers: int
) -> Generator[Decoded, None, None]:
    left = todo
    while left:
        found: list[int] = []
        suspects: list[int] = []
        try:
            for decoded in _in_pool(dataset, left, sizes, workers, suspects):
                found.append(decoded[0].index)
                yield decoded
        except BrokenProcessPool:
            # One of those at work ended its process, and the pool with it: they are read one by one.
            for decoded in _one_by_one(dataset, suspects, sizes):
                found.append(decoded[0].index)
                yield decoded
        gone = set(found)
        left = [index for index in left if index not in gone]


def _in_pool(
    dataset: CxrDataset, todo: list[int], sizes: tuple[int, ...], workers: int, suspects: list[int]
) -> Generator[Decoded, None, None]:
    """Decode in a pool of processes; where it breaks, `suspects` are the images that were at work.

    Raises:
        BrokenProcessPool: a process was killed, or an image ended it.
    """
    chunks = (todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK))
    running: dict[Future[list[Decoded]], list[int]] = {}
    with ProcessPoolExecutor(workers, _SPAWN, _start_worker, (dataset,)) as pool:
        try:
            while True:
                for chunk in islice(chunks, 3 * workers - len(running)):
                    running[pool.submit(_decode_chunk, chunk, sizes)] = chunk
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield from future.result()
                    del running[future]
        except BrokenProcessPool:
            suspects += [index for chunk in running.values() for index in chunk]
            raise
        finally:
            for future in running:
                future.cancel()


def _one_by_one(dataset: CxrDataset, indices: list[int], sizes: tuple[int, ...]) -> Generator[Decoded, None, None]:
    """Decode images in one process, of which a new one is started whenever it ends; an image that ends two is rejected.

    Raises:
        EdgeCxrError: one process after the other ends: that is no image's doing.
    """
    waiting = deque(indices)
    in_a_row, suspect = 0, -1
    while waiting:
        with ProcessPoolExecutor(1, _SPAWN, _start_worker, (dataset,)) as pool:
            try:
                while waiting:
                    yield pool.submit(_decode_chunk, [waiting[0]], sizes).result()[0]
                    waiting.popleft()
                    in_a_row = 0
            except BrokenProcessPool as error:
                in_a_row += 1
                if in_a_row == _MOST_CRASHES:
                    raise EdgeCxrError(
                        f"{_MOST_CRASHES} processes in a row ended at once, near {dataset.files[waiting[0]]}: is there "
                        "too little memory, or does a program call this outside `if __name__ == '__main__'`?"
                    ) from error
                if waiting[0] == suspect:  # once may be anybody's doing
                    yield crashed(dataset, waiting.popleft())
                else:
                    suspect = waiting[0]


def crashed(dataset: CxrDataset, index: int) -> Decoded:
    """Return what becomes of an image that ended the process that read it."""
    return Outcome(index, "crash", f"{dataset.files[index]} ended the process that read it: {AGAIN}"), None


_dataset: CxrDataset  # of a worker process


def _start_worker(dataset: CxrDataset) -> None:
    global _dataset
    _dataset = dataset
    follow_parent()


def _decode_chunk(indices: list[int], sizes: tuple[int, ...]) -> list[Decoded]:
    return [decode_one(_dataset, index, sizes) for index in indices]


def _bytes(sizes: tuple[int, ...]) -> int:
    return sum(size**2 for size in sizes)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
