"""Radiograph -> model input: the only resize in the project.

Training and the device both use it. Every model sees the box mean of the same 224 x 224 uint8 image, except teachers of
448 px, which see the same film at that size. All sums are IEEE additions in a fixed order, so that every machine gets
the same bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecxr.films.radiograph import Radiograph
from edgecxr.vocabulary import FloatArray

BASE_SIZE = 224
LARGE_SIZE = 448
SIZES = (224, 112, 56, 28)
INPUT_SIZES = (LARGE_SIZE, *SIZES)


def to_base(pixels: FloatArray, size: int = BASE_SIZE) -> NDArray[np.uint8]:
    """Resize a film to the square image for the cache and training.

    The aspect ratio is not kept. An axis of at least `size` pixels is shrunk by exact area averaging, a shorter one is
    interpolated bilinearly.

    Args:
        pixels: (H, W) in [0, 1].
        size: side of the result.

    Returns:
        (size, size) uint8, rounded half up.
    """
    image = _shrink(_shrink(pixels, size).T, size).T
    if image.shape != (size, size):
        from PIL import Image

        film = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
        image = np.asarray(film.resize((size, size), Image.Resampling.BILINEAR), dtype=np.float64)
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
    return box_mean(to_base(radiograph.pixels, source_size(size)), size)[None, None]


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
        # Positions are in units of 1/size of a row, hence integers.
        start, head = divmod(i * height, size)
        stop, tail = divmod((i + 1) * height, size)
        np.add.reduce(image[start:stop], axis=0, dtype=np.float64, out=row)
        if head:
            row -= image[start] * np.float64(head / size)
        if tail:
            row += image[stop] * np.float64(tail / size)
    result *= size / height
    return result
