"""The grey-scale pipeline of DICOM: stored value -> modality LUT -> VOI LUT or window -> inversion -> [0, 1].

A pixel of at most 16 bits has at most 65536 possible values. Everything is therefore computed once for each possible
value, in float64, and the film is one table lookup: exact, and without float64 copies of the film.

pydicom's `apply_modality_lut` and `apply_voi_lut` are not used: the latter wraps its index at 256 for VOI LUTs with
8-bit entries, and both raise on the empty or partly filled elements that real files have. A test holds the two equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.vocabulary import FloatArray

if TYPE_CHECKING:
    from pydicom import Dataset

PERCENTILES = (0.5, 99.5)
"""What is shown of a film whose file gives no usable window."""

_SATURATED = 0.99  # a window that clips more of the film than this is no window for it
_MIN_SPREAD = 1 / 32  # below 8 of 256 grey levels, nothing is left to see

# Rec. 601, the luminance that Pillow and the JPEG standard use.
_LUMINANCE = (0.299, 0.587, 0.114)

Values = NDArray[np.float64]


def display_table(dataset: Dataset, stored: NDArray[np.int64], sample: NDArray[Any]) -> tuple[FloatArray, list[str]]:
    """Return the grey level of every possible pixel word.

    Args:
        dataset: the file's elements; only the modality LUT, VOI LUT and image pixel modules are read.
        stored: (K,) the stored value that each of the K possible words stands for.
        sample: (n,) words that occur in the film, to judge the window by.

    Returns:
        (K,) float32 in [0, 1], air black; and what had to be assumed, one sentence each.

    Raises:
        ValueError, AttributeError, TypeError: the modality LUT breaks its own format.
    """
    warnings: list[str] = []
    values = _modality(dataset, stored, warnings)
    seen = values[sample]
    padding = _number(dataset, "PixelPaddingValue")
    if padding is not None:
        rest = sample[stored[sample] != padding]
        seen = values[rest] if rest.size else seen
        sample = rest if rest.size else sample
    grey = _voi(dataset, values, warnings)
    if grey is not None and _useless(grey[sample]):
        warnings.append("the file's window leaves nearly nothing to see; contrast was set by percentiles instead")
        grey = stretch(values, seen)
    elif grey is None:
        bits = int(dataset.BitsStored)
        full = _full_range(stored, values, bits)
        if bits <= 8 and not _useless(full[sample]):
            # Already made for an 8-bit display: stretching it would set it apart from the PNG of the same film.
            warnings.append(f"the file gives no window; the full range of its {bits} bits is shown")
            grey = full
        else:
            warnings.append("the file gives no window; contrast was set by percentiles")
            grey = stretch(values, seen)
    if _inverted(dataset, warnings):
        grey = 1 - grey
    if padding is not None:
        grey[stored == padding] = 0  # not image: as dark as air, whatever the polarity
    return grey.astype(np.float32), warnings


def _full_range(stored: NDArray[np.int64], values: Values, bits: int) -> Values:
    low = -(1 << (bits - 1)) if stored.min() < 0 else 0
    ends = values[(stored >= low) & (stored < low + (1 << bits))]
    return np.clip((values - ends.min()) / np.ptp(ends), 0, 1)


def stretch(values: Values, seen: Values) -> Values:
    """Map `values` linearly so that nearly all of `seen` spans [0, 1]; clipped."""
    low, high = _ends(seen)
    if low == high:
        low, high = seen.min(), seen.max()
    return np.clip((values - low) / max(high - low, 1e-300), 0, 1)


def _ends(seen: Values) -> tuple[float, float]:
    """Return the grey levels nearest to the `PERCENTILES`; np.percentile would have to import numpy.ma first."""
    ranks = np.rint(np.divide(PERCENTILES, 100) * (seen.size - 1)).astype(np.intp)
    low, high = np.partition(seen, ranks, axis=None)[ranks].tolist()
    return low, high


def luminance(rgb: NDArray[Any], white: int) -> tuple[FloatArray, bool]:
    """Turn colour into grey.

    Args:
        rgb: (H, W, 3) unsigned integers.
        white: the value of full intensity.

    Returns:
        (H, W) float32 in [0, 1]; and whether the channels really differ, beyond what rounding and JPEG do to grey.
    """
    grey = np.multiply(rgb[..., 0], np.float32(_LUMINANCE[0] / white), dtype=np.float32)
    for channel in (1, 2):
        grey += np.multiply(rgb[..., channel], np.float32(_LUMINANCE[channel] / white), dtype=np.float32)
    np.clip(grey, 0, 1, out=grey)
    some = thin(rgb).astype(np.float32)
    return grey, bool(np.mean(np.ptp(some, axis=-1) > white / 16) > 0.01)


def thin(pixels: NDArray[Any], limit: int = 1 << 18) -> NDArray[Any]:
    """Return a view of every k-th row and column, so that at most about `limit` pixels are left for statistics."""
    step = max(1, int(np.ceil(np.sqrt(pixels.shape[0] * pixels.shape[1] / limit))))
    return pixels[::step, ::step]


def _modality(dataset: Dataset, stored: NDArray[np.int64], warnings: list[str]) -> Values:
    """Return the modality value of each stored value (PS3.3 C.11.1)."""
    if dataset.get("ModalityLUTSequence"):
        looked_up = _lookup(dataset, dataset.ModalityLUTSequence[0], stored.astype(np.float64))[0]
        if np.ptp(looked_up) > 0:
            return looked_up
        warnings.append("the file's modality LUT has one value only; it was ignored")
        return stored.astype(np.float64)
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    if slope == 0:
        warnings.append("the file's RescaleSlope is 0; it was ignored")
        slope = None
    with np.errstate(over="ignore"):
        values: Values = stored.astype(np.float64) * (1.0 if slope is None else slope) + (intercept or 0.0)
    if not np.all(np.isfinite(values)) or np.ptp(values) == 0:
        warnings.append("the file's rescale slope and intercept are out of range; they were ignored")
        return stored.astype(np.float64)
    return values


def _voi(dataset: Dataset, values: Values, warnings: list[str]) -> Values | None:
    """Return the first VOI LUT or else the first window of the file applied to `values`, in [0, 1] (PS3.3 C.11.2)."""
    if dataset.get("VOILUTSequence"):
        try:
            table, white = _lookup(dataset, dataset.VOILUTSequence[0], values)
            return np.asarray(table / white)
        except (ValueError, TypeError, AttributeError, IndexError, KeyError, OverflowError):
            warnings.append("the file's VOI LUT is malformed; it was ignored")
    center, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    if center is None or width is None:
        return None
    shape = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if width <= 0 or (width < 1 and shape not in ("LINEAR_EXACT", "SIGMOID")):
        warnings.append(f"the file's window is not valid (width {width:g}); it was ignored")
        return None
    if shape not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        warnings.append("the file's VOI LUT function is unknown; LINEAR was assumed")
    return window(values, center, width, shape).astype(np.float64, copy=False)


def window(values: Values, center: float, width: float, shape: str = "LINEAR") -> NDArray[Any]:
    """Apply a window as PS3.3 C.11.2.1.2 and C.11.2.1.3 define it, with an output range of [0, 1].

    Args:
        values: modality values of any shape.
        center: the WindowCenter.
        width: the WindowWidth; at least 1 for LINEAR, above 0 otherwise.
        shape: "LINEAR_EXACT", "SIGMOID"; anything else is LINEAR.
    """
    with np.errstate(over="ignore"):
        if shape == "SIGMOID":
            return 1 / (1 + np.exp(-4 * (values - center) / width))
        if shape == "LINEAR_EXACT":
            return np.clip((values - center) / width + 0.5, 0, 1)
        if width == 1:
            return np.where(values > center - 0.5, 1.0, 0.0)
        return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _lookup(dataset: Dataset, item: Dataset, values: Values) -> tuple[Values, int]:
    """Apply a LUT of a Modality or VOI LUT Sequence; return the entries for `values`, and the value of white."""
    # The VR of the descriptor depends on the pixels' sign and is often written wrongly: take what makes sense.
    entries, first, bits = (int(value) for value in item.LUTDescriptor)
    entries = entries % 65536 or 65536
    if values.min() >= 0:
        first %= 65536
    elif first > 32767:
        first -= 65536
    data = item.LUTData
    if isinstance(data, bytes):
        order = ">" if dataset.original_encoding[1] is False else "<"
        table = np.frombuffer(data[: len(data) // 2 * 2], dtype=f"{order}u2").astype(np.uint16)
    else:
        table = (np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF).astype(np.uint16)
    if bits <= 8 and table.size < entries <= 2 * table.size:
        table = table.astype("<u2").view(np.uint8).astype(np.uint16)  # two entries to a word
    table = table[:entries]
    white = max((1 << bits) - 1 if 1 <= bits <= 16 else 0, int(table.max()))
    if white == 0:
        raise ValueError("a lookup table of zeros")
    index = np.clip(np.rint(values) - first, 0, table.size - 1).astype(np.int64)
    return table[index].astype(np.float64), white


def _inverted(dataset: Dataset, warnings: list[str]) -> bool:
    """Whether low values are white. In DX both elements state the same inversion, so that two do not cancel."""
    photometric = dataset.get("PhotometricInterpretation")
    shape = str(dataset.get("PresentationLUTShape") or "").upper()
    if (photometric, shape) in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")):
        warnings.append(
            f"PhotometricInterpretation {photometric} and PresentationLUTShape {shape} contradict each other; "
            "the film was inverted once"
        )
    return photometric == "MONOCHROME1" or shape == "INVERSE"


def _useless(grey: Values) -> bool:
    """Whether a film of these grey levels shows nearly nothing."""
    low, high = _ends(grey)
    return bool(np.mean((grey <= 0) | (grey >= 1)) > _SATURATED or high - low < _MIN_SPREAD)


def _number(dataset: Dataset, keyword: str) -> float | None:
    """Return the first value of an element as a finite number, or None where there is none."""
    try:
        value = dataset.get(keyword)
        number = float(value if isinstance(value, (int, float, str)) else value[0])
    except (TypeError, ValueError, IndexError, OverflowError, AttributeError):
        return None
    return number if np.isfinite(number) else None
