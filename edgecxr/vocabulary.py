"""Names and array types that the parts of edgecxr share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

ABNORMAL = "abnormal"
"""Name of the normal/abnormal task, used beside the labels."""

DEFAULT_RULE = "youden"
"""Operating point whose thresholds are used unless another is asked for."""

DOUBT = "?"
"""Follows the name of an output that is unreliable on test films."""

FEW_CASES = 20
"""Results from fewer positive or negative films than this carry a warning: with 20, a sensitivity of 90 % has a 95 %
interval of about 70 to 97 %; with 10 the interval begins at 60 %, too wide to judge a threshold."""

PRECISIONS = ("fp32", "fp16", "int8")
"""Precisions of a bundle's model files."""

AUTO = "auto"
"""What stands for the faster precision."""

INPUTS = ("native", "upsample")
"""How an image enters the model: cut into patches as it is, or enlarged to 224 px first."""

STEMS = ("patch", "conv")
"""How an image becomes tokens: by one linear map of each patch, or by a few convolutions."""

WITHOUT_RESULT = {
    "no-identifiers": "no DICOM result: the film lacks a UID that a result must refer to",
    "no-patient-id": "no DICOM result: the film's PatientID cannot be repeated",
    "not-made": "no DICOM result: neither the report nor the picture could be made",
    "no-report": "the DICOM picture alone: the report could not be made",
    "no-picture": "the DICOM report alone: the picture could not be made",
    "may-show-names": "the DICOM report alone: the film's pixels may show names, and --no-phi leaves them out",
    "not-drawn": "no picture of --overlay: it could not be drawn",
}
"""Reason codes of results that a predicted film lacks, as they appear in JSON output."""

RENDERINGS = {
    "dicom": "DICOM films, rendered by their LUT or window",
    "windowed": "pictures that were rendered by DICOM's window",
    "equalised": "pictures whose histogram was equalised",
    "picture": "pictures whose rendering is not known",
}
"""How the grey levels of films came about.

"dicom": by `edgecxr.films`. "windowed": in the same way by whoever published the pictures. "equalised": by a histogram
equalisation of the whole film, as the publisher says or the pixels show. "picture": nobody knows.
"""

FloatArray = NDArray[np.float32]


def in_words(counts: Mapping[str, int]) -> str:
    """Return the numbers of films of each rendering as text.

    Args:
        counts: key of `RENDERINGS` -> number of films.
    """
    return "; ".join(f"{RENDERINGS[rendering]}: {count}" for rendering, count in counts.items())
