"""Journal of decoded images, so that a killed run can resume."""

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
from edgecxr.storage.json_values import parse_json
from edgecxr.storage.private import own_folder
from edgecxr.storage.reading import BadFile, read_bytes, read_text

COMMIT_SECONDS = 1.0
MARK = "inputs"
LARGEST_LINES = 1 << 30
"""Limit in bytes of a file with a line for each film."""


@dataclass(frozen=True)
class Outcome:
    """Result of decoding one image.

    Attributes:
        index: index of the image in its data set.
        reason: why it was rejected, one of `edgecxr.errors.REASONS`; empty if it was not.
        message: the reason in words, for people.
        warnings: objections of the quality gate, and assumptions made by the reader.
        shape: rows and columns of the film; None if it was rejected.
        rendering: how its grey levels came about, one of `edgecxr.vocabulary.RENDERINGS`; None if nothing tells.
    """

    index: int
    reason: str = ""
    message: str = ""
    warnings: tuple[str, ...] = ()
    shape: tuple[int, int] | None = None
    rendering: str | None = None


class Journal:
    """Pixels and outcomes of the images decoded so far, in a folder.

    An outcome is written as a line, only after its pixels are on the disk. A line cut off by a crash is ignored.

    Args:
        folder: created if needed.
        inputs: fingerprint of the inputs; work on other inputs is deleted.
        sizes: sides of the images that are kept of each film, in pixels.
    """

    def __init__(self, folder: Path, inputs: str, sizes: tuple[int, ...] = (BASE_SIZE,)) -> None:
        self.folder = folder
        self.sizes = sizes
        self.outcomes: dict[int, Outcome] = {}
        own_folder(folder, "remove it")
        pixels, lines, mark = folder / "pixels.raw", folder / "journal.jsonl", folder / MARK
        if read_mark(folder) != inputs:
            # Delete lines first: a crash in between must not leave lines without pixels.
            lines.unlink(missing_ok=True)
            pixels.unlink(missing_ok=True)
            atomic_write(mark, inputs)
        if os.path.lexists(lines):
            self._load(read_bytes(lines, LARGEST_LINES).decode("utf-8", errors="replace"))
        pixels.touch()
        self._pixels = pixels.open("r+b")
        self._lines = lines.open("a", encoding="utf-8")
        self._lines.write("\n")  # ends a line that was cut off
        self._waiting: list[Outcome] = []
        self._committed = time.monotonic()

    def add(self, outcome: Outcome, pixels: bytes | None) -> None:
        """Record an image; the next commit makes it safe.

        This commits by itself once a second has passed since the last commit.
        """
        if pixels is not None:
            self._pixels.seek(outcome.index * _bytes(self.sizes))
            self._pixels.write(pixels)
        self._waiting.append(outcome)
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Write everything recorded so far to the disk, pixels first."""
        _sync(self._pixels)
        for done in self._waiting:
            self.outcomes[done.index] = done
            facts = (done.index, done.reason, done.message, done.warnings, done.shape, done.rendering)
            self._lines.write(json.dumps(facts) + "\n")
        _sync(self._lines)
        self._waiting.clear()
        self._committed = time.monotonic()

    def images(self, indices: NDArray[np.intp], size: int = BASE_SIZE) -> NDArray[np.uint8]:
        """Return the pixels of decoded images, (n, size, size)."""
        result = np.empty((len(indices), size, size), np.uint8)
        before = _bytes(self.sizes[: self.sizes.index(size)])
        for image, index in zip(result, indices.tolist(), strict=True):
            self._pixels.seek(index * _bytes(self.sizes) + before)
            if self._pixels.readinto(image.data) != image.nbytes:
                raise EdgeCxrError(f"{self._pixels.name} is shorter than its journal says: delete its folder")
        return result

    def close(self) -> None:
        """Close the files without a commit."""
        # A full disk may refuse buffered pixels; the lines of those images are not written either.
        with contextlib.suppress(OSError):
            self._pixels.close()
        with contextlib.suppress(OSError):
            self._lines.close()

    def _load(self, text: str) -> None:
        for line in text.split("\n"):
            with contextlib.suppress(ValueError):
                index, reason, message, warnings, shape, rendering = parse_json(line)
                # Try rejected images again: the cause may be fixed, such as a missing permission.
                if not reason:
                    self.outcomes[index] = Outcome(index, reason, message, tuple(warnings), tuple(shape), rendering)


def read_mark(folder: Path) -> str | None:
    """Return the fingerprint in a journal's folder; None without one."""
    try:
        return read_text(folder / MARK, 1000)
    except (OSError, BadFile):
        return None


def _bytes(sizes: tuple[int, ...]) -> int:
    return sum(size**2 for size in sizes)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
