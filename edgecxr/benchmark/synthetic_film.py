"""Synthetic films of clinical size, for timing the film readers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

SIZE = (2500, 2048)
"""Rows and columns."""

BITS = 14


def write_films(folder: Path, rows: int = SIZE[0], columns: int = SIZE[1], kinds: tuple[str, ...] = ()) -> list[Path]:
    """Write one synthetic 14-bit chest film in several transfer syntaxes.

    Args:
        folder: for the files, which are named KIND.dcm.
        rows: of the film.
        columns: of the film.
        kinds: some of "uncompressed", "jpeg-lossless" and "jpeg2000"; empty means all.

    Returns:
        The files.
    """
    import pydicom
    from PIL import Image
    from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1

    from edgecxr.phantom.dicom_file import encode, file_of
    from edgecxr.phantom.film import render

    film = render(seed=0, index=3)
    small = Image.fromarray(film.pixels)
    large = np.asarray(small.resize((columns, rows), Image.Resampling.BICUBIC), np.float64)
    # Add noise, which enlarging removes: without it the compressed files would be far too small.
    large = large + np.random.default_rng(0).normal(0, 0.004, large.shape)
    stored = np.rint(1000 + 14000 * np.clip(large, 0, 1)).astype(np.uint16)
    syntaxes = {
        "uncompressed": ExplicitVRLittleEndian,
        "jpeg-lossless": JPEGLosslessSV1,
        "jpeg2000": JPEG2000Lossless,
    }
    written = []
    for name in kinds or syntaxes:
        dataset = pydicom.dcmread(io.BytesIO(encode(film, 0)))
        dataset.pop("VOILUTSequence", None)
        dataset.Rows, dataset.Columns = rows, columns
        dataset.BitsStored, dataset.HighBit = BITS, BITS - 1
        dataset.PhotometricInterpretation, dataset.PresentationLUTShape = "MONOCHROME2", "IDENTITY"
        dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = 8000, 14000, "LINEAR"
        written.append(folder / f"{name}.dcm")
        written[-1].write_bytes(file_of(dataset, stored, syntaxes[name]))
    return written
