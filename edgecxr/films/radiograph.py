"""What a film is once it has been read: its pixels, what the file says of them, and what speaks against it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecxr.vocabulary import FloatArray


@dataclass(frozen=True)
class Objection:
    """What speaks against a film being one that a model should look at.

    Attributes:
        reason: one of `errors.GATE_REASONS`.
        message: the same for people, without the name of the file.
    """

    reason: str
    message: str


@dataclass(frozen=True)
class Radiograph:
    """One frontal or lateral film, ready to be resized.

    Attributes:
        pixels: (H, W) float32 in [0, 1]; air is black, bone is white.
        source: the path it was read from, or a description.
        view: "PA", "AP", "LL" or None where the file does not say.
        warnings: what the reader had to assume, one sentence each.
        objections: what the file itself says against being a frontal chest film.
        size: rows and columns of the film, where it was decoded at a lower resolution; None where `pixels` has them.
    """

    pixels: FloatArray
    source: str
    view: str | None = None
    warnings: tuple[str, ...] = ()
    objections: tuple[Objection, ...] = ()
    size: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the film."""
        rows, columns = self.pixels.shape
        return self.size or (rows, columns)


@dataclass(frozen=True)
class FilmRead:
    """What is left of a film once it has been read.

    Attributes:
        source: the path it was read from, or a description.
        image: (S, S) uint8, what models see is the box mean of; S is 224 or 448.
        view: "PA", "AP", "LL" or None where the file does not say.
        warnings: what the reader had to assume, one sentence each.
        objections: what the file and its pixels say against being a frontal chest film.
        timings_ms: of "read" (for a path) and "preprocess".
        display: (h, w) uint8 for pictures, its long side at most 1024; None unless asked for.
        header: attributes of a DICOM file, as `edgecxr.films.header` has them; None unless asked for.
    """

    source: str
    image: NDArray[np.uint8]
    view: str | None
    warnings: tuple[str, ...]
    timings_ms: dict[str, float]
    display: NDArray[np.uint8] | None = None
    header: dict[str, str] | None = None
    objections: tuple[Objection, ...] = ()
