"""Synthetic films for comparing an engine with its ONNX file.

A device has no films of its own at hand, and a bundle ships none.
"""

from __future__ import annotations

import numpy as np

from edgecxr.vocabulary import FloatArray

FILMS = 32

_GRIDS = (3, 5, 9, 17)
_GRAIN = 0.02


def check_films(size: int, count: int = FILMS, seed: int = 0) -> FloatArray:
    """Make smooth random images with the grey values of films.

    Each is a sum of random surfaces, the coarser the stronger, with a contrast and brightness of its own and a little
    grain. They show no chest, but go through every layer with values of the usual size.

    Args:
        size: side in pixels.
        count: number of images.
        seed: random seed; the same images on every machine.

    Returns:
        (count, 1, size, size) float32 in [0, 1].
    """
    rng = np.random.default_rng(seed)
    places = np.linspace(0, 1, size)
    surfaces = np.zeros((count, size, size))
    for grid in _GRIDS:
        # Linear interpolation between the knots, along both axes.
        weights = np.maximum(0, 1 - np.abs(places[:, None] - np.linspace(0, 1, grid)) * (grid - 1))
        surfaces += weights @ rng.normal(0, 1 / grid, (count, grid, grid)) @ weights.T
    low, high = (surfaces.min(axis=(1, 2), keepdims=True), surfaces.max(axis=(1, 2), keepdims=True))
    darkest, brightest = rng.uniform(0, 0.3, (count, 1, 1)), rng.uniform(0.6, 1, (count, 1, 1))
    films = darkest + (brightest - darkest) * (surfaces - low) / (high - low)
    films += rng.normal(0, _GRAIN, films.shape)
    return np.clip(films, 0, 1).astype(np.float32)[:, None]
