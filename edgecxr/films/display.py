"""A film as a picture for people."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgecxr.films.radiograph import StoredPixels
from edgecxr.vocabulary import FloatArray

LONG_SIDE = 1024
SHORT_SIDE = 560
"""A picture's long side is `SHORT_SIDE` to `LONG_SIDE` pixels; a caption needs a width of `SHORT_SIDE`."""


def displayed(film: FloatArray | StoredPixels, aspect: float = 1.0) -> Image.Image:
    """Return a film as a grey picture for people, with square pixels.

    Args:
        film: (H, W) in [0, 1], or the words that such grey levels are looked up by.
        aspect: height of a film's pixel as a multiple of its width.

    Returns:
        A picture whose long side has from `SHORT_SIDE` to `LONG_SIDE` pixels.
    """
    levels = film.looked_up(_rounded(film.table)) if isinstance(film, StoredPixels) else _rounded(film)
    grey = Image.fromarray(levels)
    # Enlarge small films: an attention map over 28 pixels would be too small to see.
    height = grey.height * aspect
    longer_side = min(max(grey.width, height, SHORT_SIDE), LONG_SIDE)
    scale = longer_side / max(grey.width, height)
    size = (max(1, round(grey.width * scale)), max(1, round(height * scale)))
    return grey.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def _rounded(grey: FloatArray) -> NDArray[np.uint8]:
    return (grey * 255).round().astype(np.uint8)
