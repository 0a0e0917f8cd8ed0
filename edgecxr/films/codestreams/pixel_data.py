"""Decode the first frame of PixelData to its stored words.

Decoders have a fixed order, so that machines with the same packages use the same one.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_fragments, get_frame
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    HTJ2K,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEGLSTransferSyntaxes,
    RLELossless,
)
from pydicom.uid import JPEG2000 as JPEG2000Lossy

from edgecxr.films.codestreams import jpeg, jpeg2000, runs
from edgecxr.films.codestreams.extent import check_size, first_fragment, jpeg_frame
from edgecxr.films.signatures import JPEG_2000

# The first installed plug-in always decodes, so that two machines give the same pixels, of lossy syntaxes too. If it
# finds a stream damaged, no other is tried: that one might return half a film.
_PLUGINS = {
    JPEGBaseline8Bit: ("pillow", "gdcm"),
    JPEGLossless: ("gdcm", "pylibjpeg"),
    JPEGLosslessSV1: ("gdcm", "pylibjpeg"),
    JPEGLSLossless: ("pyjpegls", "gdcm"),
    JPEGLSNearLossless: ("pyjpegls", "gdcm"),
    JPEG2000Lossless: ("pylibjpeg", "gdcm"),
    JPEG2000Lossy: ("pylibjpeg", "gdcm"),
    HTJ2KLossless: ("pylibjpeg",),
    HTJ2KLosslessRPCL: ("pylibjpeg",),
    HTJ2K: ("pylibjpeg",),
    RLELossless: ("pydicom",),
}
_PACKAGES = {
    "pillow": "Pillow",
    "gdcm": "python-gdcm",
    "pyjpegls": "pyjpegls",
    "pylibjpeg": "pylibjpeg-openjpeg",
    "pydicom": "pydicom",
}

SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGExtended12Bit,
    *_PLUGINS,
)
"""The transfer syntaxes that edgecxr reads."""

# What GDCM's libjpeg says of whole films: it tries to read 12 bits as 8, and some encoders fill in the scan's header.
_HARMLESS = re.compile("precision|invalid sos parameters", re.IGNORECASE)

# Frame markers of the JPEG processes, for files that do not state their transfer syntax.
_JPEG_KINDS = {
    0xC0: JPEGBaseline8Bit,
    0xC1: JPEGExtended12Bit,
    0xC3: JPEGLosslessSV1,
    0xF7: JPEGLSLossless,
}


class NoDecoderError(Exception):
    """Error if the decoder of a transfer syntax is not installed.

    The message names the package.

    Attributes:
        package: its name for pip.
    """

    def __init__(self, message: str, package: str) -> None:
        super().__init__(message, package)
        self.package = package

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Codec:
    """The decoder of a transfer syntax on this machine.

    Attributes:
        plugin: pydicom's name for it; "" for uncompressed pixels.
        package: the package that provides it, by its name for pip.
        preferred: the package that decodes if it is installed; lossy pixels of another may differ.
    """

    plugin: str
    package: str
    preferred: str


def codec_of(syntax: UID, bits: int = 12) -> Codec:
    """Return the decoder of a transfer syntax on this machine.

    Args:
        syntax: one of `SYNTAXES`.
        bits: BitsStored, which selects the decoder of JPEG Extended.

    Raises:
        NoDecoderError: it is not installed.
    """
    if not syntax.is_encapsulated:
        return Codec("", _PACKAGES["pydicom"], _PACKAGES["pydicom"])
    syntax = _decoded_as(syntax, bits)
    available = get_decoder(syntax).available_plugins
    preferred = _PACKAGES[_PLUGINS[syntax][0]]
    for plugin in _PLUGINS[syntax]:
        if plugin in available:
            return Codec(plugin, _PACKAGES[plugin], preferred)
    raise NoDecoderError(f"{syntax.name} needs the package {preferred}", preferred)


def transfer_syntax(dataset: Dataset) -> UID:
    """Return the transfer syntax of the pixels.

    It is inferred from the data if the file does not state it or is evidently wrong.
    """
    stated = UID(dataset.file_meta.get("TransferSyntaxUID") or "")
    if stated and not stated.is_private and not stated.is_transfer_syntax:
        return stated
    encapsulated = dataset["PixelData"].is_undefined_length
    if stated and (stated.is_private or stated.is_encapsulated or not encapsulated):
        return stated
    if encapsulated:
        stream = first_fragment(dataset)
        if stream.startswith(JPEG_2000):
            return JPEG2000Lossy
        marker = (jpeg_frame(stream) or (0,))[0]
        if marker in _JPEG_KINDS:
            return _JPEG_KINDS[marker]
    implicit, little = dataset.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def first_frame(dataset: Dataset, syntax: UID) -> NDArray[Any]:
    """Decode the first frame only.

    A large JPEG 2000 film is decoded at half its size (`edgecxr.films.codestreams.jpeg2000`).

    Returns:
        (H, W) integers as wide as the words of the file, bits above BitsStored not yet removed; or (H, W, 3), RGB.

    Raises:
        NoDecoderError: the syntax's decoder is not installed.
        ValueError: the codestream's size or precision differs from the file's.
        Exception: nearly any, on a damaged file.
    """
    options = as_pixel_options(dataset)
    options["pixel_keyword"] = "PixelData"
    options.setdefault("planar_configuration", 0)
    if syntax == JPEGExtended12Bit:
        syntax = _decoded_as(syntax, dataset.BitsStored)
        if syntax == JPEGLosslessSV1:
            options["bits_stored"] = 12  # the stream's precision: overshoots beyond BitsStored must not wrap around
    decoder = get_decoder(syntax)
    plugin = ""
    if syntax.is_encapsulated:
        check_size(dataset, syntax)
        if syntax in JPEGLSTransferSyntaxes and not _ends_with_marker(dataset):
            raise ValueError("the codestream lacks its end")  # CharLS would search for it for seconds
        _check_whole(dataset, syntax)
        if syntax in (JPEG2000Lossless, JPEG2000Lossy) and (small := _halved(dataset)) is not None:
            return small
        plugin = codec_of(syntax).plugin
        if syntax == JPEGBaseline8Bit and (marked := jpeg.stated_rgb(_frame_stream(dataset))) is not None:
            dataset["PixelData"].value = encapsulate([marked], has_bot=False)
            options |= {"number_of_frames": 1, "photometric_interpretation": "RGB"}
            options.pop("extended_offsets", None)
    else:
        # Ignore later frames, which may be truncated; `view_only` saves a copy of the film.
        options |= {"number_of_frames": 1, "allow_excess_frames": False, "view_only": True}
        if dataset["PixelData"].is_undefined_length:  # uncompressed pixels inside items, after an empty offset table
            dataset["PixelData"].value = b"".join(islice(generate_fragments(dataset.PixelData), 1, None))
        options["pixel_vr"] = dataset["PixelData"].VR
    if not describes_itself(syntax):
        options["correct_unused_bits"] = False
    no_messages: list[str] = []
    with jpeg.gdcm_messages() if plugin == "gdcm" else contextlib.nullcontext(no_messages) as messages:
        try:
            frame, _ = decoder.as_array(dataset.PixelData, index=0, decoding_plugin=plugin, **options)
        except RuntimeError as error:
            if plugin == "gdcm":  # its own message is about a missing attribute
                raise ValueError("GDCM finds the codestream damaged") from error
            raise
    # GDCM's libjpeg fills missing and damaged parts with what it likes and only prints a warning.
    faults = [line for line in messages if not _HARMLESS.search(line)]
    if faults:
        raise ValueError(f"the decoder says: {faults[0]}")
    return np.asarray(frame)


def _check_whole(dataset: Dataset, syntax: UID) -> None:
    """Refuse damaged streams whose decoders are silent about it.

    Raises:
        ValueError: the first frame's stream is damaged.
    """
    if syntax not in (JPEGBaseline8Bit, RLELossless, *JPEG2000TransferSyntaxes):
        return
    stream = _frame_stream(dataset)
    if syntax == RLELossless:
        wrong = runs.fault_of_frame(stream, int(dataset.Rows), int(dataset.Columns))
    else:
        wrong = jpeg.fault(stream) if syntax == JPEGBaseline8Bit else jpeg2000.fault(stream)
    if wrong:
        raise ValueError(wrong)


def _frame_stream(dataset: Dataset) -> bytes:
    """Return the first frame's codestream."""
    return get_frame(dataset.PixelData, 0, number_of_frames=int(dataset.get("NumberOfFrames") or 1))


def _halved(dataset: Dataset) -> NDArray[Any] | None:
    """Decode a large, ordinary film at half its size, or return None."""
    plain = int(dataset.get("NumberOfFrames") or 1) == 1 == dataset.SamplesPerPixel and not dataset.PixelRepresentation
    # Padding is recognised by its exact value, which halving would mix with its neighbours.
    padded = "PixelPaddingValue" in dataset or "PixelPaddingRangeLimit" in dataset
    if not plain or dataset.BitsAllocated != 16 or padded:
        return None
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return None
    return jpeg2000.halved(get_frame(dataset.PixelData, 0, number_of_frames=1), int(dataset.Rows), int(dataset.Columns))


def describes_itself(syntax: UID) -> bool:
    """Return whether decoded values have the codestream's own precision.

    Then there is nothing to remove above BitsStored.
    """
    return syntax == JPEGExtended12Bit or syntax in JPEG2000TransferSyntaxes or syntax in JPEGLSTransferSyntaxes


def _decoded_as(syntax: UID, bits: int) -> UID:
    """Return the syntax to pass to pydicom.

    For JPEG Extended pydicom offers only its GPL plug-in.
    """
    if syntax != JPEGExtended12Bit:
        return syntax
    # GDCM follows the stream's content if it is not told the syntax.
    return JPEGBaseline8Bit if bits == 8 else JPEGLosslessSV1


def _ends_with_marker(dataset: Dataset) -> bool:
    """Return whether a single JPEG frame ends with its end marker."""
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        return True
    data = bytes(dataset.PixelData[-64:])
    return b"\xff\xd9" in data
