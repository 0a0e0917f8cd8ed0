"""Numbers that a DICOM file states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgecxr.errors import brief

if TYPE_CHECKING:
    from pydicom import Dataset


def number(dataset: Dataset, keyword: str, warnings: list[str] | None = None) -> float | None:
    """Return an element's first value as a finite number, or None.

    What is there and is no number is warned of.

    Args:
        dataset: the file.
        keyword: of the element.
        warnings: gets what was assumed.
    """
    if keyword not in dataset:
        return None
    warnings, raw = [] if warnings is None else warnings, dataset.get_item(keyword).value
    stated = raw.decode("ascii", "replace") if isinstance(raw, bytes) else raw
    try:
        value = dataset[keyword].value
        values = [value] if isinstance(value, (int, float, str)) else list(value or [""])
        if len(values) > 1:
            warnings.append(f"the file's {keyword} has {len(values)} values; the first was taken")
        if values[0] == "":
            return None
        if np.isfinite(number := float(values[0])):
            return number
    except Exception:  # pydicom raises nearly anything over a malformed element
        pass
    warnings.append(f"the file's {keyword} is broken ({brief(stated, 40)}); it was ignored")
    return None
