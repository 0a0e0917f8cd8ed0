"""Encoded PixelData -> the stored words of its first frame, by the same decoder on every machine."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_fragments, get_frame
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

from edgecxr.films.jpeg2000 import halved

# The first one installed decodes, always: two machines then give the same pixels, of lossy syntaxes too. None is asked
# for a second opinion on a stream that another one found damaged: what it returned could be half a film.
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

_JPEG2000_STARTS = (b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")
# The frame markers of the JPEG kinds, for files that do not name what they hold.
_JPEG_KINDS = {
    0xC0: JPEGBaseline8Bit,
    0xC1: JPEGExtended12Bit,
    0xC3: JPEGLosslessSV1,
    0xF7: JPEGLSLossless,
}


class NoDecoderError(Exception):
    """The decoder of a transfer syntax is not installed; the message names the package.

    Attributes:
        package: what pip calls it.
    """

    def __init__(self, message: str, package: str) -> None:
        super().__init__(message, package)
        self.package = package

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Codec:
    """What decodes a transfer syntax on this machine.

    Attributes:
        plugin: pydicom's name for it; "" for uncompressed pixels.
        package: what brings it, as pip calls it.
        preferred: the package that would decode if it were installed; lossy pixels may differ from its.
    """

    plugin: str
    package: str
    preferred: str


def codec_of(syntax: UID, bits: int = 12) -> Codec:
    """Return what decodes a transfer syntax here.

    Args:
        syntax: one of `SYNTAXES`.
        bits: BitsStored, by which the decoder of JPEG Extended is chosen.

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
    """Return how the pixels are encoded; taken from the data where the file does not say or is evidently wrong."""
    stated = UID(dataset.file_meta.get("TransferSyntaxUID") or "")
    encapsulated = dataset["PixelData"].is_undefined_length
    if stated and (stated.is_private or stated.is_encapsulated or not encapsulated):
        return stated
    if encapsulated:
        stream = _first_fragment(dataset)
        if stream.startswith(_JPEG2000_STARTS):
            return JPEG2000Lossy
        marker = (_jpeg_frame(stream) or (0,))[0]
        if marker in _JPEG_KINDS:
            return _JPEG_KINDS[marker]
    implicit, little = dataset.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def first_frame(dataset: Dataset, syntax: UID) -> NDArray[Any]:
    """Decode the first frame only; a large JPEG 2000 film at half its size (`edgecxr.films.jpeg2000`).

    Returns:
        (H, W) integers as wide as the words of the file, bits above BitsStored not yet removed; or (H, W, 3), RGB.

    Raises:
        NoDecoderError: the syntax's decoder is not installed.
        ValueError: the codestream's size or precision is not the file's.
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
        _check_size(dataset, _first_fragment(dataset))
        if syntax in (JPEG2000Lossless, JPEG2000Lossy) and (small := _halved(dataset)) is not None:
            return small
        plugin = codec_of(syntax).plugin
    else:
        # Later frames may be cut off; and the film is not copied before it is looked up in the table.
        options |= {"number_of_frames": 1, "allow_excess_frames": False, "view_only": True}
        options["pixel_vr"] = dataset["PixelData"].VR
    if not describes_itself(syntax):
        options["correct_unused_bits"] = False
    nothing: list[bytes] = []
    listening = _captured() if plugin == "gdcm" else contextlib.nullcontext(nothing)
    with listening as said:
        try:
            frame, _ = decoder.as_array(dataset.PixelData, index=0, decoding_plugin=plugin, **options)
        except RuntimeError as error:
            if plugin == "gdcm":  # its own words are of a missing attribute
                raise ValueError("GDCM finds the codestream damaged") from error
            raise
    # GDCM's libjpeg fills what is missing with one grey, and only complains.
    if any(b"premature end" in line.lower() for line in said):
        raise ValueError("the codestream ends before the film does")
    return np.asarray(frame)


def _halved(dataset: Dataset) -> NDArray[Any] | None:
    """Decode a film at half its size, if it is as large and as plain as that takes."""
    plain = int(dataset.get("NumberOfFrames") or 1) == 1 == dataset.SamplesPerPixel and not dataset.PixelRepresentation
    # Padding is told by its very value, which must not be mixed with what lies beside it.
    if not plain or dataset.BitsAllocated != 16 or "PixelPaddingValue" in dataset:
        return None
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return None
    return halved(get_frame(dataset.PixelData, 0, number_of_frames=1), int(dataset.Rows), int(dataset.Columns))


def describes_itself(syntax: UID) -> bool:
    """Whether the decoder gives values of the codestream's own precision, with nothing to remove above BitsStored."""
    return syntax == JPEGExtended12Bit or syntax in JPEG2000TransferSyntaxes or syntax in JPEGLSTransferSyntaxes


def _decoded_as(syntax: UID, bits: int) -> UID:
    """Return the syntax that pydicom is told: for JPEG Extended it offers its GPL plug-in only."""
    if syntax != JPEGExtended12Bit:
        return syntax
    # GDCM goes by what the stream holds, if it is not told the syntax.
    return JPEGBaseline8Bit if bits == 8 else JPEGLosslessSV1


def _first_fragment(dataset: Dataset) -> bytes:
    """Return the start of the first frame's codestream (the item before it is the offset table)."""
    return next((part for part in islice(generate_fragments(dataset.PixelData), 1, None) if part), b"")


def _check_size(dataset: Dataset, stream: bytes) -> None:
    """Refuse codestreams unlike the file: decoders allocate by them, and GDCM crashes on a bad precision."""
    size = (int(dataset.Rows), int(dataset.Columns))
    if stream.startswith(_JPEG2000_STARTS[0]):
        width, height, left, top = struct.unpack_from(">4L", stream, 8)
        found = (height - top, width - left)
    elif frame := _jpeg_frame(stream):
        found = frame[2:4]
        if not 2 <= frame[1] <= 16 or frame[1] > int(dataset.BitsAllocated) or frame[4] != dataset.SamplesPerPixel:
            raise ValueError(f"the codestream holds {frame[4]} samples of {frame[1]} bits, unlike the file's header")
    else:
        return
    if found != size:
        raise ValueError(f"the codestream holds {found[0]} x {found[1]} pixels, not {size[0]} x {size[1]}")


def _jpeg_frame(stream: bytes) -> tuple[int, int, int, int, int] | None:
    """Return marker, precision, height, width and components of a JPEG or JPEG-LS frame header, if found."""
    position = 2
    while stream[:2] == b"\xff\xd8" and position + 10 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return (marker, *struct.unpack_from(">BHHB", stream, position + 4))
        position += 2 + int(struct.unpack_from(">H", stream, position + 2)[0])
    return None


_STANDARD_ERROR = threading.Lock()


@contextlib.contextmanager
def _captured() -> Iterator[list[bytes]]:
    """Give a list that holds, once the block has ended, what GDCM and its libjpeg wrote to standard error from C++."""
    import gdcm

    said: list[bytes] = []
    # A second thread would save the first one's file as the standard error that it restores.
    with _STANDARD_ERROR, os.fdopen(os.memfd_create("gdcm"), "w+b") as file:
        gdcm.Trace.WarningOff()
        gdcm.Trace.ErrorOff()
        try:
            saved = os.dup(2)
        except OSError:  # a daemon without standard error
            yield said
            return
        try:
            os.dup2(file.fileno(), 2)
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            said += file.readlines(1 << 16)
