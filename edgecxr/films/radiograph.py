"""Classes for films that have been read, and for objections to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgecxr.vocabulary import FloatArray

TURNED = "it was turned"
"""End of the warning about a film that was turned, so that corners measured on its stored pixels do not fit it."""


@dataclass(frozen=True)
class Objection:
    """A reason why a model should not look at a film.

    Attributes:
        reason: one of `errors.GATE_REASONS`.
        message: the same in words for people, without the file's name.
    """

    reason: str
    message: str


_Number = TypeVar("_Number", bound=np.generic)
_BLOCK = 1 << 15  # pixels looked up at a time: numpy widens indices to 64 bits, and they should stay in the cache


@dataclass(frozen=True, eq=False)
class StoredPixels:
    """Pixels as they are stored, and the grey level of every word.

    Attributes:
        words: (H, W) uint8 or uint16, less than K.
        table: (K,) float32, the grey level of each word.
        visible: (H, W) which pixels a shutter leaves; the others are black. None means all.
    """

    words: NDArray[Any]
    table: FloatArray
    visible: NDArray[np.bool_] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.words.shape
        return rows, columns

    def grey(self) -> FloatArray:
        """Return the grey levels, (H, W) float32."""
        return self.looked_up(self.table)

    def looked_up(self, table: NDArray[_Number]) -> NDArray[_Number]:
        """Return each word's entry in a table.

        It is 0 where a shutter hides the film.

        Args:
            table: (K,).
        """
        values = np.empty(self.shape, table.dtype)
        step = max(1, _BLOCK // self.shape[1])
        for start in range(0, self.shape[0], step):
            self.look_up(table, slice(start, start + step), values[start : start + step])
        return values

    def look_up(self, table: NDArray[_Number], rows: slice, out: NDArray[_Number]) -> None:
        """Write the entries of a few rows into `out`, as `looked_up` does."""
        np.take(table, self.words[rows], out=out, mode="wrap")  # quicker than "clip"; no word is too large
        if self.visible is not None:
            np.multiply(out, self.visible[rows], out=out)

    def part(self, rows: slice, columns: slice) -> StoredPixels:
        """Return a part of the film."""
        visible = None if self.visible is None else self.visible[rows, columns]
        return StoredPixels(self.words[rows, columns], self.table, visible)

    def is_blank(self) -> bool:
        """Return whether all pixels have the same grey level."""
        few = self.part(slice(None, None, 32), slice(None, None, 32)).grey()
        if few.min() != few.max():
            return False
        grey = self.grey()
        return bool(grey.min() == grey.max())


@dataclass(frozen=True)
class Radiograph:
    """One frontal or lateral film, ready to be resized.

    Attributes:
        held: its grey levels (H, W), float32 in [0, 1]; or its words, from which they are looked up.
        source: the path it was read from, or a description.
        view: "PA", "AP" or "LL"; None if the file does not say.
        warnings: the reader's assumptions, one sentence each.
        objections: the file's own statements against it being a frontal chest film.
        size: rows and columns of the film if it was decoded at a lower resolution; None if its pixels have them.
        aspect: height of a pixel as a multiple of its width.
        rendering: how its grey levels came about, one of `edgecxr.vocabulary.RENDERINGS`; None if nothing tells.
    """

    held: FloatArray | StoredPixels
    source: str
    view: str | None = None
    warnings: tuple[str, ...] = ()
    objections: tuple[Objection, ...] = ()
    size: tuple[int, int] | None = None
    aspect: float = 1.0
    rendering: str | None = None

    @cached_property
    def pixels(self) -> FloatArray:
        """(H, W) float32 in [0, 1]; air is black, bone is white."""
        return self.held.grey() if isinstance(self.held, StoredPixels) else self.held

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the film."""
        rows, columns = self.held.shape
        return self.size or (rows, columns)


@dataclass(frozen=True)
class FilmRead:
    """A film reduced to what a model needs.

    Attributes:
        source: the path it was read from, or a description.
        image: (S, S) uint8, whose box mean is a model's input; S is 224 or 448.
        view: "PA", "AP" or "LL"; None if the file does not say.
        warnings: the reader's assumptions, one sentence each.
        objections: of the file and its pixels to it being a frontal chest film.
        timings_ms: milliseconds of "read" (for a path) and "preprocess".
        display: (h, w) uint8 for pictures, its long side at most 1024; None unless requested.
        header: attributes of a DICOM file, as in `edgecxr.films.header`; None unless requested.
        rendering: how its grey levels came about, one of `edgecxr.vocabulary.RENDERINGS`; None if nothing tells.
    """

    source: str
    image: NDArray[np.uint8]
    view: str | None
    warnings: tuple[str, ...]
    timings_ms: dict[str, float]
    display: NDArray[np.uint8] | None = None
    header: dict[str, str] | None = None
    objections: tuple[Objection, ...] = ()
    rendering: str | None = None
