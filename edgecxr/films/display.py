"""A film as a picture for people."""

from __future__ import annotations

import numpy as np
from PIL import Image

from edgecxr.vocabulary import FloatArray

LONG_SIDE = 1024
SHORT_SIDE = 560
"""A picture's long side is `SHORT_SIDE` to `LONG_SIDE` pixels; a caption needs a width of `SHORT_SIDE`."""


def displayed(pixels: FloatArray, aspect: float = 1.0) -> Image.Image:
    """Return a film as a grey picture for people, with square pixels.

    Args:
        pixels: (H, W) in [0, 1].
        aspect: height of a film's pixel as a multiple of its width.

    Returns:
        A picture whose long side has from `SHORT_SIDE` to `LONG_SIDE` pixels.
    """
    grey = Image.fromarray((pixels * 255).round().astype(np.uint8))
    # Enlarge small films: an attention map over 28 pixels would be too small to see.
    height = grey.height * aspect
    wanted = min(max(grey.width, height, SHORT_SIDE), LONG_SIDE)
    scale = wanted / max(grey.width, height)
    size = (max(1, round(grey.width * scale)), max(1, round(height * scale)))
    return grey.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
