"""What has been decoded of a data set so far, on the disk, so that a killed run goes on where it was."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import EdgeCxrError
from edgecxr.films.resize import BASE_SIZE
from edgecxr.storage.atomic import atomic_write

COMMIT_SECONDS = 1.0
MARK = "inputs"


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


def _bytes(sizes: tuple[int, ...]) -> int:
    return sum(size**2 for size in sizes)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
