"""Tiny test frames of each compression, decoded as films are."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from edgecxr.doctor.listing import one_line
from edgecxr.films.codestreams.pixel_data import SYNTAXES, NoDecoderError, codec_of, first_frame

# Frames of 8 x 8 pixels. Most are a ramp: each pixel is 60 grey levels (3 at 8 bits) above the previous one.
_RAMP = np.arange(64, dtype=np.uint16) * 60
_BASELINE = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoK"
    "BggLDAsKDAkKCgr/wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAACP/EABoQAAAHAAAAAAAAAAAAAAAAAAAGCSYyo+H/2gAI"
    "AQEAAD8APJIRKg0aMH//2Q=="
)
_EXTENDED = (
    "/9j/2wBDAAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQH/wQALDAAI"
    "AAgBAREA/8QAJgABAAAAAAAAAAAAAAAAAAAADRABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQAAPwB3Af/Z"
)
_LOSSLESS = (
    "/9j/wwALEAAIAAgBAREA/8QAFgABAQEAAAAAAAAAAAAAAAAABgkQ/9oACAEBAAEAAM8ePHjx48vA8ePHjx48vA8ePHjx48vA8ePHjx48"
    "vA8ePHjx48vA8ePHjx48vA8ePHjx48vA8ePHjx48/9k="
)
_JPEG_LS = (
    "/9j/9wALEAAIAAgBAREA//gADQH//wASAEMBFABA/9oACAEBAAAAAKO8d47x1nOO8dfgR4jtOk5XC3R4+BbLVaLNZLFHb31g3tza2Nad"
    "PeamloZ2ZlTl7rIxsTCwL64e4vLq4trSyt3trKwrq6s2WwD/2QA="
)
_JPEG_2000 = (
    "/0//UQApAAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1IADAAAAAEAAgQEAAH/XAAKQICIiJCIiJD/ZAAqAAFD"
    "cmVhdGVkIGJ5IEdEQ00vT3BlbkpQRUcgdmVyc2lvbiAyLjMuMP+QAAoAAAAAAD4AAf+T3/iQUAeBV1pCMaAs0d/AD8ASA/kFAA0DQ40L"
    "PiPHb8AD6gSAPzBQIhiAdgN+aSd3/9kA"
)
# Syntax -> codestream in base64, BitsStored, pixels. HTJ2K is missing for want of an encoder.
_FRAMES = {
    JPEGBaseline8Bit: (_BASELINE, 8, _RAMP // 20),
    JPEGExtended12Bit: (_EXTENDED, 12, np.full(64, 3000)),
    JPEGLossless: (_LOSSLESS, 12, _RAMP),
    JPEGLosslessSV1: (_LOSSLESS, 12, _RAMP),
    JPEGLSLossless: (_JPEG_LS, 12, _RAMP),
    JPEGLSNearLossless: (_JPEG_LS, 12, _RAMP),
    JPEG2000Lossless: (_JPEG_2000, 12, _RAMP),
    JPEG2000: (_JPEG_2000, 12, _RAMP),
}
_TOLERANCE = 3  # in grey levels, because JPEG baseline is lossy


def try_decoders() -> list[dict[str, Any]]:
    """Return one entry per transfer syntax that edgecxr reads.

    Returns:
        "uid" and "name"; "package" that decodes, or is missing; "preferred" package; "problem", "" if there is none;
        "missing", whether the problem is a missing decoder; "tried", whether a frame was really decoded.
    """
    return [_try(syntax) for syntax in SYNTAXES]


def _try(syntax: UID) -> dict[str, Any]:
    entry = {"uid": str(syntax), "name": syntax.name, "missing": False, "tried": False, "problem": ""}
    try:
        codec = codec_of(syntax)
    except NoDecoderError as error:
        return entry | {"package": error.package, "preferred": error.package, "missing": True, "problem": str(error)}
    entry |= {"package": codec.package, "preferred": codec.preferred}
    if syntax.is_encapsulated and syntax not in _FRAMES:
        return entry
    try:
        deviation = _difference(syntax)
    except Exception as error:  # first_frame may raise nearly any exception
        return entry | {"tried": True, "problem": one_line(error)}
    return entry | {
        "tried": True,
        "problem": "" if deviation <= _TOLERANCE else "a test frame came out with wrong pixels",
    }


def _difference(syntax: UID) -> int:
    """Return the largest error of the decoded test frame in grey levels."""
    if syntax in _FRAMES:
        text, bits, pixels = _FRAMES[syntax]
        stream = b64decode(text)
    else:
        bits, pixels = 12, _RAMP
        stream = _RAMP.astype("<u2" if syntax.is_little_endian else ">u2").tobytes()
    frame = first_frame(_dataset(syntax, stream, bits), syntax)
    return int(np.abs(frame.astype(np.int64).ravel() - pixels).max())


def _dataset(syntax: UID, stream: bytes, bits: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.Rows = dataset.Columns = 8
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 8 if bits == 8 else 16
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = encapsulate([stream]) if syntax.is_encapsulated else stream
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    dataset["PixelData"].is_undefined_length = syntax.is_encapsulated
    return dataset
