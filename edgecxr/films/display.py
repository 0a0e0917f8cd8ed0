"""A film as a picture for people."""

from __future__ import annotations

import numpy as np
from PIL import Image

from edgecxr.vocabulary import FloatArray

LONG_SIDE = 1024
SHORT_SIDE = 560
"""Films are scaled to at most `LONG_SIDE`; a picture is at least `SHORT_SIDE` wide, so that a caption fits."""


def displayed(pixels: FloatArray) -> Image.Image:
    """Return a film (H, W) in [0, 1] as a grey picture, its long side from `SHORT_SIDE` to `LONG_SIDE` pixels."""
    grey = Image.fromarray((pixels * 255).round().astype(np.uint8))
    # Small films are enlarged: an attention map over 28 pixels is not seen.
    wanted = min(max(max(grey.size), SHORT_SIDE), LONG_SIDE)
    scale = wanted / max(grey.size)
    size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
    return grey.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
