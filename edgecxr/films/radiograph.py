"""Classes for films that have been read, and for objections to them."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Radiograph:
    """One frontal or lateral film, ready to be resized.

    Attributes:
        pixels: (H, W) float32 in [0, 1]; air is black, bone is white.
        source: the path it was read from, or a description.
        view: "PA", "AP" or "LL"; None if the file does not say.
        warnings: the reader's assumptions, one sentence each.
        objections: the file's own statements against it being a frontal chest film.
        size: rows and columns of the film if it was decoded at a lower resolution; None if `pixels` has them.
        aspect: height of a pixel as a multiple of its width.
        rendering: how its grey levels came about, one of `edgecxr.vocabulary.RENDERINGS`; None if nothing tells.
    """

    pixels: FloatArray
    source: str
    view: str | None = None
    warnings: tuple[str, ...] = ()
    objections: tuple[Objection, ...] = ()
    size: tuple[int, int] | None = None
    aspect: float = 1.0
    rendering: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the film."""
        rows, columns = self.pixels.shape
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
