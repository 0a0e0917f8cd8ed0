"""Radiograph -> model input: the only resize in the project.

Training and the device both use it. Every model sees the box mean of the same 224 x 224 uint8 image, except teachers of
448 px, which see the same film at that size. All sums are exact integers or IEEE additions in a fixed order, so that
every machine gets the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.films.radiograph import Radiograph, StoredPixels
from edgecxr.vocabulary import FloatArray

BASE_SIZE = 224
LARGE_SIZE = 448
SIZES = (224, 112, 56, 28)
INPUT_SIZES = (LARGE_SIZE, *SIZES)


_STRAIGHT = 2.0**-22
"""Largest distance of grey levels from a straight line; that of 32-bit numbers on one is at most 2^-24."""

_ARITHMETIC = 2.0**-40
"""More than the rounding of all sums in float64 can change a mean by."""

_DOUBTFUL = 1024
"""Number of cells from which on averaging all anew is quicker than one after the other."""


def to_base(film: FloatArray | StoredPixels, size: int = BASE_SIZE) -> NDArray[np.uint8]:
    """Resize a film to the square image for the cache and training.

    The aspect ratio is not kept. An axis of at least `size` pixels is shrunk by exact area averaging, a shorter one is
    interpolated bilinearly.

    Args:
        film: (H, W) in [0, 1], or the words that such grey levels are looked up by.
        size: side of the result.

    Returns:
        (size, size) uint8, rounded half up.
    """
    if isinstance(film, StoredPixels):
        image = _averaged_words(film, size)
        return _to_base(film.grey(), size) if image is None else image
    return _to_base(film, size)


def _to_base(pixels: FloatArray, size: int) -> NDArray[np.uint8]:
    image = _shrink(_shrink(pixels, size).T, size).T
    if image.shape != (size, size):
        from PIL import Image

        film = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
        image = np.asarray(film.resize((size, size), Image.Resampling.BILINEAR), dtype=np.float64)
    return _rounded(image)


def _rounded(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(np.floor(255 * image + 0.5), 0, 255).astype(np.uint8)


def source_size(size: int) -> int:
    """Return the side of the uint8 image behind a model's input.

    Args:
        size: side of the model's input.

    Returns:
        448 or 224 px.
    """
    return max(size, BASE_SIZE)


def upscale_warning(shape: tuple[int, ...], size: int = BASE_SIZE) -> str | None:
    """Return a warning if a film is too small, else None.

    Args:
        shape: (H, W) of the film.
        size: side of the image that is made of it.
    """
    if min(shape) >= size:
        return None
    return f"the image has only {shape[0]} x {shape[1]} pixels; it was enlarged to {size} x {size}"


def box_mean(base: NDArray[np.uint8], size: int) -> FloatArray:
    """Average the base image down to a model's input size.

    The sum is exact in integers and divided once, so that training code can be checked for the same bits.

    Args:
        base: (..., 224, 224); or (..., 448, 448) for a size of 448, where nothing is averaged.
        size: one of `INPUT_SIZES`.

    Returns:
        (..., size, size) float32 in [0, 1].

    Raises:
        ValueError: `size` is another number, or `base` does not fit it.
    """
    if size not in INPUT_SIZES:
        raise ValueError(f"size {size} is not one of {INPUT_SIZES}")
    k = source_size(size) // size
    blocks = base.reshape(*base.shape[:-2], size, k, size, k)
    total = blocks.sum(axis=(-3, -1), dtype=np.uint32)
    return total.astype(np.float32) / np.float32(k * k * 255)


def model_input(radiograph: Radiograph, size: int) -> FloatArray:
    """Return a film as the input of a model of side `size`.

    Returns:
        (1, 1, size, size) float32 in [0, 1].
    """
    return box_mean(to_base(radiograph.held, source_size(size)), size)[None, None]


def _shrink(image: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """Average (H, W) to (size, W), weighting rows at the edges.

    Row i is the mean over [i*H/size, (i+1)*H/size). The image is unchanged if H <= size.

    Float64 sums make the result the correctly rounded mean for any film; rows are added one after the other.
    """
    height = image.shape[0]
    if height <= size:
        return image
    result = np.empty((size, image.shape[1]), np.float64)
    for i, row in enumerate(result):
        _average(image[i * height // size :], i, size, height, row)
    return result


def _average(image: NDArray[np.floating], i: int, size: int, height: int, row: NDArray[np.float64]) -> None:
    """Write row i of `_shrink` into `row`.

    `image` begins with the first row of the film that it covers.
    """
    # Positions are in units of 1/size of a row, hence integers.
    start, head = divmod(i * height, size)
    stop, tail = divmod((i + 1) * height, size)
    np.add.reduce(image[: stop - start], axis=0, dtype=np.float64, out=row)
    if head:
        row -= image[0] * np.float64(head / size)
    if tail:
        row += image[stop - start] * np.float64(tail / size)
    row *= size / height


@dataclass(frozen=True)
class _Integers:
    """Integers that stand for the grey levels of a film.

    A grey level is `scale` times its integer less `zero`, plus `offset`; it is off by less than `error`.
    """

    write: Callable[[slice, NDArray[Any]], object]
    """Writes the integers of a few rows into an array."""
    dtype: np.dtype[Any]
    zero: int
    scale: float
    offset: float
    error: float


def _integers(film: StoredPixels, most: int) -> _Integers | None:
    """Return integers, or None if grey levels exceed [0, 1].

    They are so small that the sum of `most` has 32 bits.
    """
    table, words = film.table.astype(np.float64), film.words
    if not (table.min() >= 0 and table.max() <= 1):  # nan is neither
        return None
    changes = np.flatnonzero(np.diff(table))
    # Most windows are a straight line between two words: then the clipped words themselves will do.
    if changes.size and film.visible is None and most < 1 << 16:
        low, high = int(changes[0]), int(changes[-1]) + 1
        slope = (table[high] - table[low]) / (high - low)
        line = table[low] + slope * (np.arange(len(table)).clip(low, high) - low)
        error = float(np.abs(table - line).max())
        if error < _STRAIGHT:
            ends = (words.dtype.type(low), words.dtype.type(high))

            def clip(rows: slice, out: NDArray[Any]) -> None:
                words[rows].clip(*ends, out=out)

            return _Integers(clip, words.dtype, low, slope, table[low], error + _ARITHMETIC)
    unit = 1 << min(24, (((1 << 32) - 1) // most).bit_length() - 1)  # grey levels have 24 binary digits themselves
    rounded = np.rint(table * unit).astype(np.uint32)
    return _Integers(partial(film.look_up, rounded), rounded.dtype, 0, 1 / unit, 0.0, 0.5 / unit + _ARITHMETIC)


def _averaged_words(film: StoredPixels, size: int) -> NDArray[np.uint8] | None:
    """Return what `_to_base` does of a film's grey levels, much faster.

    Integers stand for the grey levels, since their sums are exact in any order. Cells whose mean is so near to where
    rounding changes that the result could differ are averaged once more, as `_to_base` does it.

    Args:
        film: (H, W).
        size: side of the result.

    Returns:
        (size, size); None if the film is too small, its grey levels are not in [0, 1], or too many cells are near.
    """
    height, width = film.shape
    if min(height, width) <= size:
        return None
    tops, heads = np.divmod(np.arange(size + 1) * height, size)
    rows = int(np.diff(tops).max())
    integers = _integers(film, rows * (width // size + 1))
    if integers is None:
        return None
    sums, firsts = np.empty((2, size, width), np.uint32)
    buffer = np.empty((rows, width), integers.dtype)
    ends = tops.tolist()
    for i in range(size):
        block = buffer[: ends[i + 1] - ends[i]]
        integers.write(slice(ends[i], ends[i + 1]), block)
        np.add.reduce(block, axis=0, dtype=np.uint32, out=sums[i])
        firsts[i] = block[0]
    whole, edges = _row_sums(sums, size), _row_sums(firsts, size) * heads[:-1, None]
    whole = whole * size - edges
    whole[:-1] += edges[1:]
    whole -= integers.zero * height * width
    grey = whole * (255 * integers.scale / (height * width)) + (255 * integers.offset + 0.5)
    near = np.argwhere(np.abs(grey - np.rint(grey)) < 255 * integers.error)
    if len(near) > _DOUBTFUL:
        return None
    image = grey.clip(0, 255).astype(np.uint8)  # cuts fractions off
    for i, j in near.tolist():
        image[i, j] = _cell(film, i, j, size)
    return image


def _row_sums(rows: NDArray[np.uint32], size: int) -> NDArray[np.int64]:
    """Return rows (n, W) summed over cells, (n, size).

    The sums are in units of 1/size.
    """
    starts, heads = np.divmod(np.arange(size) * rows.shape[1], size)
    edges = rows.take(starts, axis=1) * heads
    sums = np.add.reduceat(rows, starts, axis=1, dtype=np.uint32) * np.int64(size) - edges
    sums[:, :-1] += edges[:, 1:]
    return sums


def _cell(film: StoredPixels, i: int, j: int, size: int) -> np.uint8:
    """Return the pixel (i, j) of `_to_base`."""
    height, width = film.shape
    rows, columns = (slice(n * side // size, (n + 1) * side // size + 1) for n, side in ((i, height), (j, width)))
    grey = film.part(rows, columns).grey()
    row = np.empty(grey.shape[1])
    _average(grey, i, size, height, row)
    mean = np.empty(1)
    _average(row[:, None], j, size, width, mean)
    return _rounded(mean)[0]
