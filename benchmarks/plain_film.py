"""DICOM film -> 224 px image, pixel by pixel as the standard says it, for one plain film at a time.

What `edgecxr.films` must give bit for bit (tests/films/test_stored_pixels.py), and what film.py holds its speed
against. It knows uncompressed grey films that state all that they must, with either a window or a lookup table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

Pixels = NDArray[np.float64]


def read(path: Path, size: int = 224) -> NDArray[np.uint8]:
    """Return a film as (size, size), as `edgecxr.films.read.read_film` does."""
    return base(grey(dcmread(path)), size)


def grey(film: Dataset) -> NDArray[np.float32]:
    """Return the grey levels (H, W) of a film, in [0, 1]."""
    stored = stored_values(film)
    values = modality(film, stored)
    padded = np.zeros(stored.shape, bool)
    if "PixelPaddingValue" in film:
        padded = stored == film.PixelPaddingValue
    counted = thin(~padded) if thin(~padded).any() else np.ones_like(thin(padded))
    sample = thin(values)[counted]
    shown = voi(film, values)
    if shown is None and film.BitsStored <= 8:
        low, high = ((-1, 1) if film.PixelRepresentation else (0, 2)) if film.BitsStored > 1 else (0, 0)
        half = 1 << (film.BitsStored - 1)
        ends = modality(film, np.array([low * half, high * half - 1]))
        shown = np.clip((values - ends.min()) / np.ptp(ends), 0, 1)
    if shown is None or useless(thin(shown)[counted]):
        shown = np.clip((values - lowest(sample)) / max(highest(sample) - lowest(sample), 1e-300), 0, 1)
    if film.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    shown[padded] = 0
    return shown.astype(np.float32)


def stored_values(film: Dataset) -> NDArray[np.int64]:
    """Return the bits of each pixel that count, (H, W)."""
    order = "<" if film.file_meta.TransferSyntaxUID.is_little_endian else ">"
    words = np.frombuffer(film.PixelData, f"{order}u{film.BitsAllocated // 8}", film.Rows * film.Columns)
    shifted = words.astype(np.int64).reshape(film.Rows, film.Columns) >> (film.HighBit + 1 - film.BitsStored)
    values = shifted & ((1 << film.BitsStored) - 1)
    if film.PixelRepresentation == 1:
        values[values >= 1 << (film.BitsStored - 1)] -= 1 << film.BitsStored
    return values


def modality(film: Dataset, stored: NDArray[np.int64]) -> Pixels:
    """Apply the rescale slope and intercept (PS3.3 C.11.1)."""
    return stored.astype(np.float64) * float(film.get("RescaleSlope", 1)) + float(film.get("RescaleIntercept", 0))


def voi(film: Dataset, values: Pixels) -> Pixels | None:
    """Apply the lookup table or window (PS3.3 C.11.2); None without."""
    if "VOILUTSequence" in film:
        item = film.VOILUTSequence[0]
        entries, first, _ = item.LUTDescriptor
        table = np.asarray(item.LUTData)
        index = np.clip(np.rint(values) - first, 0, (entries or 65536) - 1).astype(np.int64)
        used = int(at_rank(table, 0.999)).bit_length() or int(table.max()).bit_length()  # whatever the file says
        return np.clip(table[index] / ((1 << used) - 1), 0, 1)
    if "WindowCenter" not in film:
        return None
    center, width = float(film.WindowCenter), float(film.WindowWidth)
    shape = film.get("VOILUTFunction", "LINEAR")
    if shape == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - center) / width)))
    if shape == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    if width == 1:
        return np.where(values > center - 0.5, 1.0, 0.0)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def useless(shown: Pixels) -> bool:
    """Return whether nearly all of a film is black or white, or of one grey."""
    clipped = np.mean((shown <= 0) | (shown >= 1)) > 0.99
    return bool(clipped) or at_rank(shown, 0.995) - at_rank(shown, 0.005) < 1 / 32


def lowest(sample: Pixels) -> float:
    """Return what becomes black without a window."""
    low = at_rank(sample, 0.005)
    return low if low < at_rank(sample, 0.995) else float(sample.min())


def highest(sample: Pixels) -> float:
    """Return what becomes white without a window."""
    high = at_rank(sample, 0.995)
    return high if at_rank(sample, 0.005) < high else float(sample.max())


def at_rank(sample: Pixels, share: float) -> float:
    """Return the value of which `share` of a sample is less."""
    rank = int(np.rint(share * (sample.size - 1)))
    return float(np.partition(sample, rank, axis=None)[rank])


def thin(pixels: NDArray[Any], limit: int = 1 << 18) -> NDArray[Any]:
    """Return a view with every k-th row and column, of `limit` pixels at most."""
    step = max(1, int(np.ceil(np.sqrt(pixels.size / limit))))
    return pixels[::step, ::step]


def base(pixels: NDArray[np.float32], size: int = 224) -> NDArray[np.uint8]:
    """Average grey levels (H, W) of more than `size` pixels a side to (size, size), rounded half up."""
    mean = shrunk(shrunk(pixels, size).T, size).T
    return np.clip(np.floor(255 * mean + 0.5), 0, 255).astype(np.uint8)


def shrunk(pixels: NDArray[np.floating], size: int) -> Pixels:
    """Average (H, W) to (size, W) in float64, row after row; a row at an edge counts with its share."""
    height = len(pixels)
    result = np.empty((size, pixels.shape[1]))
    for i, row in enumerate(result):
        start, head = divmod(i * height, size)
        stop, tail = divmod((i + 1) * height, size)
        np.add.reduce(pixels[start:stop], axis=0, dtype=np.float64, out=row)
        if head:
            row -= pixels[start] * np.float64(head / size)
        if tail:
            row += pixels[stop] * np.float64(tail / size)
    return np.multiply(result, size / height)
