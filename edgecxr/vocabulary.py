"""Words and array types that travel between the parts of edgecxr."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ABNORMAL = "abnormal"
"""What the normal/abnormal task is called beside the labels."""

FEW_CASES = 20
"""Fewer positive or negative films than this give a warning beside what rests on them: with 20, a sensitivity of 90 %
has a 95 % interval of about 70 to 97 %; with 10 it begins at 60 %, which says next to nothing of a threshold."""

PRECISIONS = ("fp32", "fp16", "int8")
"""Of a bundle's model files."""

INPUTS = ("native", "upsample")
"""How an image enters the model: cut into patches as it is, or enlarged to 224 px first."""

STEMS = ("patch", "conv")
"""What makes tokens of an image: one linear map of each patch, or a few convolutions."""

FloatArray = NDArray[np.float32]
