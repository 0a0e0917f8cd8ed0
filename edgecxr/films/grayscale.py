"""DICOM's grey-scale pipeline, from stored values to [0, 1].

The steps are: stored value -> modality LUT -> VOI LUT or window -> inversion -> [0, 1].

A pixel of at most 16 bits has at most 65536 possible values. Everything is therefore computed once for each possible
value, in float64, and the film is one table lookup: exact, and without float64 copies of the film.

pydicom's `apply_modality_lut` and `apply_voi_lut` are not used: the latter wraps its index at 256 for VOI LUTs with
8-bit entries, and both raise on the empty or partly filled elements that real files have. A test compares them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import brief
from edgecxr.films.statements.padding import padded_values
from edgecxr.films.statements.stated_numbers import number
from edgecxr.vocabulary import FloatArray

if TYPE_CHECKING:
    from pydicom import Dataset

PERCENTILES = (0.5, 99.5)
"""The range of grey levels that is shown if a file gives no usable window."""

_SATURATED = 0.99  # a window that clips a larger share of the film is not used
_WHITE_RANK = 0.999  # share of a lookup table's entries that are not above its white
_MIN_SPREAD = 1 / 32  # fewer than 8 of 256 grey levels show nothing

# Rec. 601, the luminance that Pillow and the JPEG standard use.
_LUMINANCE = (0.299, 0.587, 0.114)

Values = NDArray[np.float64]


def display_table(
    dataset: Dataset, stored: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[FloatArray, list[str]]:
    """Return the grey level of every possible stored value.

    Args:
        dataset: the file's elements; only the modality LUT, VOI LUT and image pixel modules are read.
        stored: (K,) the possible stored values.
        counts: (K,) how often each occurs in a sample of the film, to judge the window by.

    Returns:
        (K,) float32 in [0, 1], air black; and the assumptions made, one sentence each.

    Raises:
        ValueError, AttributeError, TypeError: the modality LUT breaks its own format.
    """
    warnings: list[str] = []
    values, rescaled = _modality(dataset, stored, warnings)
    padding = padded_values(dataset, stored, warnings)
    if padding is not None and counts[~padding].any():
        counts = np.where(padding, 0, counts)
    elif padding is not None:
        warnings.append("by PixelPaddingValue all of the film is padding; it was ignored")
        padding = None
    grey = _voi(dataset, values, warnings) if rescaled else None
    if grey is not None and _useless(grey, counts):
        warnings.append("the file's window leaves nearly nothing to see; contrast was set by percentiles instead")
        grey = _stretch(values, values, counts)
    elif grey is None:
        bits = int(dataset.BitsStored)
        is_warned = not rescaled or any("window" in warning for warning in warnings)
        lacks = "contrast" if is_warned else "the file gives no window; contrast"
        full = _full_range(stored, values, bits)
        if bits <= 8 and not _useless(full, counts):
            # The film was made for an 8-bit display: stretching would make it differ from a PNG of the same film.
            warnings.append(f"{lacks.removesuffix('contrast')}the full range of its {bits} bits is shown")
            grey = full
        else:
            warnings.append(f"{lacks} was set by percentiles")
            grey = _stretch(values, values, counts)
    if _inverted(dataset, warnings):
        grey = 1 - grey
    if padding is not None:
        grey[padding] = 0  # show padding as air in either polarity
    return grey.astype(np.float32), warnings


def _full_range(stored: NDArray[np.int64], values: Values, bits: int) -> Values:
    low = -(1 << (bits - 1)) if stored.min() < 0 else 0
    ends = values[(stored >= low) & (stored < low + (1 << bits))]
    return np.clip((values - ends.min()) / np.ptp(ends), 0, 1)


def stretch(values: Values, visible: Values) -> Values:
    """Scale `values` linearly so that nearly all of `visible` spans [0, 1].

    Results outside [0, 1] are clipped.
    """
    return _stretch(values, visible.ravel(), np.ones(visible.size, np.int64))


def _stretch(values: Values, visible: Values, counts: NDArray[np.int64]) -> Values:
    low, high = _ends(visible, counts)
    if low == high:
        visible = visible[counts > 0]
        low, high = visible.min(), visible.max()
    return np.clip((values - low) / max(high - low, 1e-300), 0, 1)


def _ends(visible: Values, counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return the grey levels nearest to the `PERCENTILES`.

    Args:
        visible: (K,) grey levels.
        counts: (K,) how often each occurs.
    """
    visible, counts = visible[counts > 0], counts[counts > 0]
    order = np.argsort(visible, kind="stable")  # quick where the table rises or falls
    cumulative = counts[order].cumsum()
    # np.percentile is not used because it imports numpy.ma.
    ranks = np.rint(np.divide(PERCENTILES, 100) * (cumulative[-1] - 1))
    low, high = visible[order[np.searchsorted(cumulative, ranks, side="right")]].tolist()
    return low, high


def luminance(rgb: NDArray[Any], white: int) -> tuple[FloatArray, bool]:
    """Turn colour into grey.

    Args:
        rgb: (H, W, 3) unsigned integers.
        white: the value of full intensity.

    Returns:
        (H, W) float32 in [0, 1]; and whether the channels differ by more than rounding and JPEG cause in grey images.
    """
    grey = np.multiply(rgb[..., 0], np.float32(_LUMINANCE[0] / white), dtype=np.float32)
    for channel in (1, 2):
        grey += np.multiply(rgb[..., channel], np.float32(_LUMINANCE[channel] / white), dtype=np.float32)
    np.clip(grey, 0, 1, out=grey)
    sampled = thin(rgb).astype(np.float32)
    return grey, bool(np.mean(np.ptp(sampled, axis=-1) > white / 16) > 0.01)


def thin(pixels: NDArray[Any], limit: int = 1 << 18) -> NDArray[Any]:
    """Return a view with about `limit` pixels at most, for statistics.

    It has every k-th row and column.
    """
    step = max(1, int(np.ceil(np.sqrt(pixels.shape[0] * pixels.shape[1] / limit))))
    return pixels[::step, ::step]


def _modality(dataset: Dataset, stored: NDArray[np.int64], warnings: list[str]) -> tuple[Values, bool]:
    """Return the modality value of each stored value (PS3.3 C.11.1).

    Also returns whether they are those that the file means, so that its window fits them.
    """
    values = stored.astype(np.float64)
    if dataset.get("ModalityLUTSequence"):
        looked_up = _lookup(dataset, dataset.ModalityLUTSequence[0], values, warnings)[0]
        if np.ptp(looked_up) > 0:
            return looked_up, True
        warnings.append("the file's modality LUT has one value only; it was ignored")
        return values, False
    warning_count = len(warnings)
    slope, intercept = (number(dataset, keyword, warnings) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        warnings.append("the file's RescaleSlope is 0; it was ignored")
    if any(warning.endswith("ignored") for warning in warnings[warning_count:]):
        return values, False
    with np.errstate(over="ignore"):
        rescaled: Values = values * (1.0 if slope is None else slope) + (intercept or 0.0)
    if not np.all(np.isfinite(rescaled)) or np.ptp(rescaled) == 0:
        warnings.append("the file's rescale slope and intercept are out of range; they were ignored")
        return values, False
    return rescaled, True


def _voi(dataset: Dataset, values: Values, warnings: list[str]) -> Values | None:
    """Apply the file's first VOI LUT, or else its first window.

    Returns `values` mapped to [0, 1] (PS3.3 C.11.2), or None if the file has no usable LUT or window.
    """
    if dataset.get("VOILUTSequence"):
        try:
            looked_up, table, bits = _lookup(dataset, dataset.VOILUTSequence[0], values, warnings)
            return np.clip(looked_up / _white(table, bits, warnings), 0, 1)
        except (ValueError, TypeError, AttributeError, IndexError, KeyError, OverflowError):
            warnings.append("the file's VOI LUT is malformed; it was ignored")
    center, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    if center is None or width is None:
        texts = [str(dataset.get(keyword)) for keyword in ("WindowCenter", "WindowWidth") if dataset.get(keyword)]
        if texts:
            warnings.append(f"the file's window is broken ({brief(', '.join(texts), 40)}); it was ignored")
        return None
    shape = str(dataset.get("VOILUTFunction") or "").strip().upper() or "LINEAR"
    if width <= 0 or (width < 1 and shape not in ("LINEAR_EXACT", "SIGMOID")):
        warnings.append(f"the file's window is not valid (width {width:g}); it was ignored")
        return None
    if shape not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        warnings.append("the file's VOI LUT function is unknown; LINEAR was assumed")
    return window(values, center, width, shape).astype(np.float64, copy=False)


def window(values: Values, center: float, width: float, shape: str = "LINEAR") -> NDArray[Any]:
    """Apply a DICOM window with an output range of [0, 1].

    The formulas are those of PS3.3 C.11.2.1.2 and C.11.2.1.3.

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


def _lookup(
    dataset: Dataset, item: Dataset, values: Values, warnings: list[str]
) -> tuple[Values, NDArray[np.uint16], int]:
    """Apply a LUT of a Modality or VOI LUT Sequence.

    Returns the entries for `values`, all entries, and how many bits the file says that they have.
    """
    # The descriptor's VR depends on the pixels' sign and is often wrong: infer the sign from the values.
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
    if bits <= 8 and table.size == entries + 1:
        table = table[:entries]  # bytes are padded to an even number
    elif table.size != entries:
        warnings.append(f"a lookup table has {table.size} entries and not {entries}, as it says; all were used")
    if not table.any():
        raise ValueError("a lookup table of zeros")
    index = np.clip(np.rint(values) - first, 0, table.size - 1).astype(np.int64)
    return table[index].astype(np.float64), table, bits


def _white(table: NDArray[np.uint16], bits: int, warnings: list[str]) -> int:
    """Return the value of white in a VOI LUT.

    It follows from the bits of the entries, a few left out. Those that the file states are believed if they are one
    more: a table need not use all of its range. 16 is not: files state the size of the words that the entries lie in.
    """
    top = int(np.sort(table)[round(_WHITE_RANK * (table.size - 1))]) or int(table.max())
    used = top.bit_length()
    if used + 1 == bits < 16:
        return (1 << bits) - 1
    if used != bits:
        warnings.append(f"a lookup table has entries of {used} bits and not {bits}, as it says; {used} were assumed")
    return (1 << used) - 1


def _inverted(dataset: Dataset, warnings: list[str]) -> bool:
    """Return whether low values are white.

    In DX both elements state the same inversion, so two do not cancel.
    """
    photometric = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    if (photometric, shape) in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")):
        warnings.append(
            f"PhotometricInterpretation {photometric} and PresentationLUTShape {shape} contradict each other; "
            "the film was inverted once"
        )
    return photometric == "MONOCHROME1" or shape == "INVERSE"


def _useless(grey: Values, counts: NDArray[np.int64]) -> bool:
    """Return whether a film of these grey levels shows nearly nothing."""
    if counts[(grey <= 0) | (grey >= 1)].sum() / counts.sum() > _SATURATED:
        return True
    low, high = _ends(grey, counts)
    return high - low < _MIN_SPREAD
