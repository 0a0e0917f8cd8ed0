"""DICOM file -> Radiograph.

`edgecxr.films.elements` reads the elements, `edgecxr.films.codestreams` the pixels, and `edgecxr.films.grayscale` turns
stored values into grey. Files are untrusted: any exception of pydicom or a decoder becomes an `InputError` here.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels import apply_color_lut
from pydicom.uid import UID

from edgecxr.errors import AGAIN, InputError, brief
from edgecxr.films.codestreams.extent import surplus
from edgecxr.films.codestreams.offsets import without_broken_offsets
from edgecxr.films.codestreams.pixel_data import (
    SYNTAXES,
    NoDecoderError,
    describes_itself,
    first_frame,
    transfer_syntax,
)
from edgecxr.films.codestreams.row_length import other_row_length
from edgecxr.films.codestreams.tail import tail
from edgecxr.films.elements import read_elements
from edgecxr.films.grayscale import display_table, luminance, thin
from edgecxr.films.radiograph import TURNED, Radiograph, StoredPixels
from edgecxr.films.shutter import shutter
from edgecxr.films.statements.against import is_for_processing, objections_of
from edgecxr.films.statements.coded_terms import texts
from edgecxr.films.statements.functional_groups import SEQUENCES, take_from_first_frame
from edgecxr.films.statements.padding import padding_ends, padding_words
from edgecxr.films.statements.regions import region_warning
from edgecxr.films.statements.subject import subject_warnings
from edgecxr.films.statements.view import DESCRIPTIONS, VIEWS, WIDER, aspect_of, stated_view, turn_of
from edgecxr.vocabulary import FloatArray

MAX_PIXELS = 100_000_000
"""No film has more; a file that claims more is refused before decoding."""

_COLOURS = ("Red", "Green", "Blue")
KEYWORDS = [
    *("SOPClassUID", "Modality", "BodyPartExamined", "AnatomicRegionSequence", "ViewPosition", "ViewCodeSequence"),
    *("PrimaryAnatomicStructureSequence", "PatientOrientation", *DESCRIPTIONS, *WIDER),
    *("PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PatientBreedDescription", "PatientBreedCodeSequence"),
    *("QualityControlImage", "ImageType", "DerivationDescription", "DerivationCodeSequence"),
    *("ShutterShape", "ShutterLeftVerticalEdge", "ShutterRightVerticalEdge", "ShutterUpperHorizontalEdge"),
    *("ShutterLowerHorizontalEdge", "CenterOfCircularShutter", "RadiusOfCircularShutter"),
    "VerticesOfThePolygonalShutter",
    *("PresentationIntentType", "PresentationLUTShape"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", *SEQUENCES),
    *(f"{colour}PaletteColorLookupTable{part}" for colour in _COLOURS for part in ("Descriptor", "Data")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "FloatPixelData", "DoubleFloatPixelData", "PixelData"),
]
"""Elements that are read; no patient names and private sequences are kept."""

_FEW = 0.01  # share of the pixels that decides nothing
_REQUIRED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation")
_ADDRESS = re.compile(r"<[\w.]+ object at 0x[0-9a-fA-F]+>")  # a library's name for what it reads
_ONE_SAMPLE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")


def read_dicom(path: Path) -> Radiograph:
    """Read a DICOM file's first frame with its display settings applied.

    Raises:
        InputError: the file is not a radiograph for presentation, or cannot be read; see its `reason`.
    """
    # pydicom warns of every small fault; the Radiograph's own warnings cover what affects the pixels.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _faults(path, "is malformed", "malformed"):
            dataset, notes = read_elements(path, KEYWORDS)
            notes += take_from_first_frame(dataset) + _completed(dataset)
            _check(path, dataset)
            notes += _notes(dataset)
            view, contradictions = stated_view(dataset)
            part = region_warning(dataset)
            notes += [*contradictions, *([part] if part else []), *subject_warnings(dataset)]
            objections = objections_of(dataset, view)
            syntax = transfer_syntax(dataset)
            if syntax not in SYNTAXES:
                readable = "uncompressed, or as JPEG lossless, JPEG-LS or JPEG 2000"
                raise InputError(
                    f"{path} has the transfer syntax {brief(syntax.name, 60)}, which is not read: send it {readable}",
                    "undecodable",
                )
        reason = "undecodable" if syntax.is_private or syntax.is_encapsulated else "malformed"
        with _faults(path, "cannot be decoded", reason):
            if syntax.is_encapsulated and without_broken_offsets(dataset):
                notes.append("the table of offsets of the pixel data is broken; it was ignored")
            notes += [note] if (note := surplus(dataset, syntax)) else []
            try:
                frame = first_frame(dataset, syntax)
            except NoDecoderError as error:
                raise InputError(f"{path}: {error}, which is not installed: install it", "undecodable") from error
            if not describes_itself(syntax):
                _check_rows(path, frame)
        with _faults(path, "has malformed lookup tables", "malformed"):
            held, more = _grey(dataset, frame, syntax)
            size, aspect = (int(dataset.Rows), int(dataset.Columns)), aspect_of(dataset)
            sideways, mirrored, inverted = turn_of(dataset, view)
            if sideways:
                size, aspect = size[::-1], 1 / aspect
            if sideways or mirrored or inverted:
                held = _turned(held, sideways, mirrored, inverted)
                how = " and ".join(["on its side"] * sideways + ["mirrored"] * mirrored + ["upside down"] * inverted)
                more.append(f"PatientOrientation says that the film is {how}; {TURNED}")
    named = view if view in VIEWS else None
    return Radiograph(held, str(path), named, (*notes, *more), objections, size, aspect, "dicom")


@contextlib.contextmanager
def _faults(path: Path, problem: str, reason: str) -> Iterator[None]:
    """Turn other exceptions into an InputError with one printable line."""
    try:
        yield
    except (InputError, MemoryError):  # the caller handles a lack of memory
        raise
    except Exception as error:  # a hostile file makes pydicom and the decoders raise nearly anything
        last = _ADDRESS.sub("the codestream", (str(error).strip().splitlines() or [""])[-1])
        raise InputError(f"{path} {problem} ({type(error).__name__}: {brief(last)}): {AGAIN}", reason) from error


def _completed(dataset: Dataset) -> list[str]:
    """Complete the description of the pixels, and return what was assumed.

    The case of PhotometricInterpretation is corrected, and a missing SamplesPerPixel added.
    """
    notes = []
    stated = dataset.get("PhotometricInterpretation")
    photometric = str(stated or "").strip().upper()
    if stated and photometric != stated:
        dataset.PhotometricInterpretation = photometric
        notes.append(f"PhotometricInterpretation is not written as {photometric}, which was assumed")
    if dataset.get("SamplesPerPixel") is None and photometric.startswith(("MONOCHROME", "PALETTE", "RGB", "YBR_")):
        dataset.SamplesPerPixel = 3 if photometric.startswith(("RGB", "YBR_")) else 1
        notes.append(f"SamplesPerPixel is missing; {dataset.SamplesPerPixel} was assumed")
    return notes


def _check(path: Path, dataset: Dataset) -> None:
    """Refuse files that are not radiographs for presentation, and impossible sizes."""
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise InputError(
            f"{path} has floating-point pixels: save or send it as a radiograph for presentation", "unsupported"
        )
    if not dataset.get("PixelData"):
        modality = _text(dataset, "Modality")
        kind = f" (modality {modality})" if modality else ""
        raise InputError(f"{path} has no pixel data{kind}: save or send it with its image", "no-pixels")
    if is_for_processing(dataset):
        raise InputError(f"{path} is FOR PROCESSING: use the study's FOR PRESENTATION image", "unsupported")
    for keyword in _REQUIRED:
        if dataset.get(keyword) in (None, ""):
            raise InputError(f"{path} lacks {keyword}, so its pixels cannot be read: {AGAIN}", "malformed")
    photometric, samples = str(dataset.PhotometricInterpretation), int(dataset.get("SamplesPerPixel") or 0)
    kind = _text(dataset, "PhotometricInterpretation")
    if not photometric.startswith((*_ONE_SAMPLE, "RGB", "YBR_")):
        raise InputError(f"{path} has pixels of kind {kind}: save or send the film as MONOCHROME2", "unsupported")
    if samples != (1 if photometric in _ONE_SAMPLE else 3):
        raise InputError(
            f"{path} contradicts itself, {samples} samples per pixel and PhotometricInterpretation {kind}: {AGAIN}",
            "malformed",
        )
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows < 1 or columns < 1 or rows * columns > MAX_PIXELS:
        raise InputError(f"{path} claims {rows} x {columns} pixels: no radiograph has that size", "unsupported")
    if int(dataset.BitsAllocated) == 1 or int(dataset.BitsStored) > 16:
        raise InputError(f"{path} has {dataset.BitsStored}-bit pixels: a radiograph has 8 to 16 bits", "unsupported")


def _check_rows(path: Path, frame: NDArray[Any]) -> None:
    """Refuse pixels that were cut into rows of the wrong length."""
    length = other_row_length(frame if frame.ndim == 2 else np.ascontiguousarray(frame[..., 0]))
    if length is not None:
        raise InputError(
            f"{path} has rows of {frame.shape[1]} pixels by its header, but its pixels line up in rows of {length}: "
            f"Rows and Columns are exchanged or wrong: {AGAIN}",
            "malformed",
        )


def _notes(dataset: Dataset) -> list[str]:
    frames = int(dataset.get("NumberOfFrames") or 1)
    return [f"the first of {frames} frames was taken"] if frames > 1 else []


def _grey(dataset: Dataset, frame: NDArray[Any], syntax: UID) -> tuple[FloatArray | StoredPixels, list[str]]:
    """Return the film's grey levels, and the assumptions made.

    The levels are (H, W), float32 in [0, 1] or to be looked up, with air black.
    """
    bits = int(dataset.BitsStored)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        frame = apply_color_lut(frame, dataset)
        bits = 8 * frame.dtype.itemsize
    visible, shuttered = shutter(dataset, frame.shape)
    if frame.ndim == 3:
        pixels, notes = _of_colour(frame, (1 << bits) - 1, visible)
        return pixels, [*notes, *shuttered]

    width = min(8 * frame.dtype.itemsize, 16)
    if describes_itself(syntax):
        bits = width
    signed = dataset.PixelRepresentation == 1 and bits <= width
    bits = min(bits, width)
    stored = np.arange(1 << bits)
    if signed:
        stored[1 << (bits - 1) :] -= 1 << bits
    words = _words(frame)
    more: list[str] = []
    sample = thin(words)
    counts = visible_counts = np.bincount(sample.ravel(), minlength=1 << width)
    if visible is not None:
        visible_counts = np.bincount(sample[thin(visible)], minlength=1 << width)
    padding = padding_words(dataset, bits, width, signed)
    if padding is not None and counts[padding].any() and counts[~padding].any():
        more.append(f"padding is a value of more bits than BitsStored, {bits}, says; whole words were compared with it")
        counts, visible_counts = (np.where(padding, 0, histogram) for histogram in (counts, visible_counts))
        visible_counts = visible_counts if visible_counts.any() else counts
    else:
        padding = None
    shift = 0 if describes_itself(syntax) else _shift(dataset, counts, bits, signed, more)
    # Bits above and below those stored mean nothing: a stored value has several words.
    visible_counts = visible_counts.reshape(-1, 1 << bits, 1 << shift).sum(axis=(0, 2))
    grey, notes = display_table(dataset, stored, visible_counts)
    if not describes_itself(syntax) and _beyond(counts, bits + shift, signed):
        notes.append(f"the pixels use more bits than BitsStored, {bits}, says; those beyond were ignored")
    word = words[-1, -1]
    ends = padding_ends(dataset, signed, [])
    padded = ends is not None and ends[0] <= stored[(word >> shift) & (len(stored) - 1)] <= ends[1]
    padded |= padding is not None and bool(padding[word])
    if (visible is None or visible[-1].any()) and (cut := tail(words, padded)):
        notes.append(cut)
    notes += [*more, *shuttered]
    table = np.repeat(grey, 1 << shift) if shift else grey
    if padding is not None:
        table = np.tile(table, len(padding) // len(table))
        table[padding] = 0
    if words.max() >= len(table):
        words = words & words.dtype.type(len(table) - 1)
    return StoredPixels(words, table, visible), notes


def _of_colour(frame: NDArray[Any], white: int, visible: NDArray[np.bool_] | None) -> tuple[FloatArray, list[str]]:
    """Return a colour frame's grey levels, and the assumptions made.

    They are black outside the shutter.
    """
    pixels, coloured = luminance(frame, white)
    notes = ["the image is in colour; its luminance was taken"] if coloured else []
    if visible is None:
        return pixels, [*notes, *filter(None, [tail(frame)])]
    pixels[~visible] = 0
    return pixels, [*notes, *filter(None, [tail(frame) if visible[-1].any() else None])]


def _shift(dataset: Dataset, counts: NDArray[Any], bits: int, signed: bool, notes: list[str]) -> int:
    """Return by how many bits values are shifted up.

    HighBit above BitsStored - 1 (retired, found in old files) says so. It is believed unless the words say otherwise:
    those of shifted values use the bits up to it, and none below their own.

    Args:
        dataset: the file.
        counts: of each possible word.
        bits: those stored.
        signed: whether words are signed.
        notes: gets what was assumed.
    """
    stated = dataset.get("HighBit")
    shift = bits - 1 if stated in (None, "") else int(stated)
    shift += 1 - bits
    if shift == 0 or stated in (None, ""):
        return 0
    if shift < 0 or len(counts) < 1 << (bits + shift):
        notes.append(f"HighBit {stated} and BitsStored {bits} contradict each other; HighBit was ignored")
        return 0
    few = counts.sum() * _FEW
    below, above = counts.sum() - counts[:: 1 << shift].sum(), counts[1 << bits :].sum()
    if signed:
        above -= counts[-(1 << (bits - 1)) :].sum()  # copies of the sign
    if below > few and above <= few:
        notes.append(f"HighBit {stated} says that the pixels are shifted up, which they are not; it was ignored")
        return 0
    if below > few:
        notes.append(f"the pixels use bits below those that HighBit {stated} says; they were ignored")
    return shift


def _turned(
    film: FloatArray | StoredPixels, sideways: bool, mirrored: bool, inverted: bool
) -> FloatArray | StoredPixels:
    def turned(pixels: NDArray[Any]) -> NDArray[Any]:
        pixels = pixels.T if sideways else pixels
        return np.ascontiguousarray(pixels[:: -1 if inverted else 1, :: -1 if mirrored else 1])

    if isinstance(film, StoredPixels):
        visible = None if film.visible is None else turned(film.visible)
        return StoredPixels(turned(film.words), film.table, visible)
    return turned(film)


def _words(frame: NDArray[Any]) -> NDArray[Any]:
    """Return unsigned words of 8 or 16 bits.

    Signed values keep their bits.
    """
    word = np.dtype(np.uint8 if frame.dtype.itemsize == 1 else np.uint16)
    plain = frame.dtype.isnative and frame.dtype.itemsize == word.itemsize
    return frame.view(word) if plain else frame.astype(word)


def _beyond(counts: NDArray[Any], bits: int, signed: bool) -> bool:
    """Return whether pixel words have bits beyond those stored.

    Copies of the sign do not count.

    Args:
        counts: of each possible word.
        bits: those stored, and those below them.
        signed: whether words are signed.
    """
    used = np.asarray(counts.reshape(-1, 1 << bits).any(axis=1))
    used[0] = False
    if signed:
        used[-1] = False
    return bool(used.any())


def _text(dataset: Dataset, keyword: str) -> str:
    """Return an element's first value as short printable upper-case text, or ""."""
    return next(iter(texts(dataset, keyword)), "")[:16]
