"""DICOM file -> Radiograph.

pydicom reads the elements, `edgecxr.films.pixel_data` the pixels, and `edgecxr.films.grayscale` turns stored values
into grey. Files come from anywhere: whatever pydicom or a decoder raises on one is turned into an `InputError` here.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_color_lut
from pydicom.uid import UID

from edgecxr.errors import AGAIN, InputError, brief
from edgecxr.films.grayscale import display_table, luminance, thin
from edgecxr.films.pixel_data import NoDecoderError, describes_itself, first_frame, transfer_syntax
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.statements import VIEWS, objections_of, stated_view, texts
from edgecxr.vocabulary import FloatArray

MAX_PIXELS = 100_000_000
"""More than any film has; a file that claims more is refused before anything is decoded."""

MAX_BYTES = 1 << 30
"""Larger files are refused unread."""

# Nothing else is kept: neither names of patients nor private sequences.
_COLOURS = ("Red", "Green", "Blue")
_KEYWORDS = [
    *("SOPClassUID", "Modality", "BodyPartExamined", "ViewPosition", "ViewCodeSequence"),
    *("PresentationIntentType", "PresentationLUTShape"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *(f"{colour}PaletteColorLookupTable{part}" for colour in _COLOURS for part in ("Descriptor", "Data")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "FloatPixelData", "DoubleFloatPixelData", "PixelData"),
]
_REQUIRED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation")
_ONE_SAMPLE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")


def read_dicom(path: Path) -> Radiograph:
    """Read the first frame of a DICOM file as it is meant to be seen.

    Raises:
        InputError: the file is no radiograph for presentation, or cannot be read; see its reason code.
    """
    # pydicom warns of every small fault of a file; what matters to the pixels is said in the Radiograph's warnings.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _faults(path, "is malformed", "malformed"):
            dataset = _parse(path)
            _check(path, dataset)
            notes = _notes(dataset)
            view = stated_view(dataset)
            objections = objections_of(dataset, view)
            syntax = transfer_syntax(dataset)
        reason = "undecodable" if syntax.is_private or syntax.is_encapsulated else "malformed"
        with _faults(path, "cannot be decoded", reason):
            try:
                frame = first_frame(dataset, syntax)
            except NoDecoderError as error:
                raise InputError(f"{path}: {error}, which is not installed: install it", "undecodable") from error
        with _faults(path, "has malformed lookup tables", "malformed"):
            pixels, more = _grey(dataset, frame, syntax)
        size = int(dataset.Rows), int(dataset.Columns)
    return Radiograph(pixels, str(path), view if view in VIEWS else None, (*notes, *more), objections, size)


@contextlib.contextmanager
def _faults(path: Path, what: str, reason: str) -> Iterator[None]:
    """Turn any exception that is not ours into an InputError of one printable line."""
    try:
        yield
    except (InputError, MemoryError):  # how much memory there is, is not for the file's reader to say
        raise
    except Exception as error:  # a hostile file makes pydicom and the decoders raise nearly anything
        last = (str(error).strip().splitlines() or [""])[-1]
        raise InputError(f"{path} {what} ({type(error).__name__}: {brief(last)}): {AGAIN}", reason) from error


def _parse(path: Path) -> Dataset:
    """Return the elements that we use, PixelData still encoded."""
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES >> 20} MiB: extract the single film", "unsupported")
    with warnings.catch_warnings(record=True) as said, path.open("rb") as file:
        warnings.simplefilter("always")
        dataset = dcmread(file, force=True, specific_tags=list(_KEYWORDS))
    # pydicom then returns no elements at all, as if the file had none.
    if any("End of file" in str(warning.message) for warning in said):
        raise InputError(f"{path} ends too early: {AGAIN}", "malformed")
    return dataset


def _check(path: Path, dataset: Dataset) -> None:
    """Refuse what is no radiograph for presentation, and sizes that no film has."""
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise InputError(
            f"{path} has floating-point pixels: save or send it as a radiograph for presentation", "unsupported"
        )
    if not dataset.get("PixelData"):
        modality = _text(dataset, "Modality")
        kind = f" (modality {modality})" if modality else ""
        raise InputError(f"{path} has no pixel data{kind}: save or send it with its image", "no-pixels")
    if _text(dataset, "PresentationIntentType") == "FOR PROCESSING":
        raise InputError(f"{path} is FOR PROCESSING: use the study's FOR PRESENTATION image", "unsupported")
    for keyword in _REQUIRED:
        if dataset.get(keyword) in (None, ""):
            raise InputError(f"{path} lacks {keyword}, so its pixels cannot be read: {AGAIN}", "malformed")
    photometric, samples = str(dataset.PhotometricInterpretation), int(dataset.get("SamplesPerPixel") or 0)
    if samples != (1 if photometric in _ONE_SAMPLE else 3 if photometric.startswith(("RGB", "YBR_")) else None):
        raise InputError(
            f"{path} has {samples} samples per pixel of kind {_text(dataset, 'PhotometricInterpretation')}: "
            "save or send the film as MONOCHROME2",
            "unsupported",
        )
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows < 1 or columns < 1 or rows * columns > MAX_PIXELS:
        raise InputError(f"{path} claims {rows} x {columns} pixels: no radiograph has that size", "unsupported")
    if int(dataset.BitsAllocated) == 1 or int(dataset.BitsStored) > 16:
        raise InputError(f"{path} has {dataset.BitsStored}-bit pixels: a radiograph has 8 to 16 bits", "unsupported")


def _notes(dataset: Dataset) -> list[str]:
    frames = int(dataset.get("NumberOfFrames") or 1)
    return [f"the first of {frames} frames was taken"] if frames > 1 else []


def _grey(dataset: Dataset, frame: NDArray[Any], syntax: UID) -> tuple[FloatArray, list[str]]:
    """Return (H, W) float32 in [0, 1], air black, and what had to be assumed."""
    bits = int(dataset.BitsStored)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        frame = apply_color_lut(frame, dataset)
        bits = 8 * frame.dtype.itemsize
    if frame.ndim == 3:
        pixels, coloured = luminance(frame, (1 << bits) - 1)
        return pixels, ["the image is in colour; its luminance was taken"] if coloured else []

    width = min(8 * frame.dtype.itemsize, 16)
    if describes_itself(syntax):
        bits = width
    # HighBit above BitsStored - 1 (retired, found in old files) means that the values are shifted up.
    shift = int(dataset.get("HighBit") or 0) + 1 - bits
    shift = shift if 0 < shift <= width - bits else 0
    stored = (np.arange(1 << width) >> shift) & ((1 << bits) - 1)
    if dataset.PixelRepresentation == 1:
        stored[stored >= 1 << (bits - 1)] -= 1 << bits
    # Conversion to an unsigned word keeps the bits of signed values, and mends the byte order.
    word = np.uint8 if width == 8 else np.uint16
    table, notes = display_table(dataset, stored, thin(frame).astype(word).ravel())
    pixels = np.empty(frame.shape, np.float32)
    rows = max(1, (1 << 18) // frame.shape[1])  # numpy widens indices to 64 bits: some rows at a time
    for start in range(0, frame.shape[0], rows):
        part = slice(start, start + rows)
        np.take(table, frame[part].astype(word), out=pixels[part], mode="clip")
    return pixels, notes


def _text(dataset: Dataset, keyword: str) -> str:
    """Return a short printable upper-case form of an element's first value, or ""."""
    return next(iter(texts(dataset, keyword)), "")[:16]
