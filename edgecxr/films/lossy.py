"""Whether pixels were compressed with loss, as their codestream says.

Not every film whose transfer syntax loses something says so in LossyImageCompression, and results must (PS3.3
C.7.6.1.1.5): once lost, always lost.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from pydicom.uid import HTJ2K, JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from edgecxr.storage.reading import open_file

_PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
_J2K_START, _J2K_COD, _IRREVERSIBLE = b"\xff\x4f\xff\x51", b"\xff\x52", 0
_JPEG_START, _SCAN = b"\xff\xd8\xff", b"\xff\xda"
_HEADER = 1 << 16  # bytes of a codestream in which its header ends

_METHODS = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
    HTJ2K: "ISO_15444_15",
}


def lossy_method(path: Path) -> str | None:
    """Return by which method a DICOM file's pixels were compressed with loss.

    JPEG 2000 is lossy by its irreversible wavelet, JPEG-LS if values may be off. Layers that were cut away from a
    reversible codestream cannot be told.

    Returns:
        One of the defined terms of LossyImageCompressionMethod; None if nothing was lost, or it cannot be told.

    Raises:
        Exception: nearly any, for a malformed file.
    """
    syntax = read_file_meta_info(path).TransferSyntaxUID
    method = _METHODS.get(syntax)
    if method is None or syntax in (JPEGBaseline8Bit, JPEGExtended12Bit):
        return method
    with open_file(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        pixels = max(content.rfind(tag) for tag in _PIXEL_DATA)
        start = content.find(_JPEG_START if syntax == JPEGLSNearLossless else _J2K_START, max(pixels, 0))
        header = content[start : start + _HEADER] if start >= 0 else b""
    is_lossy = _near(header) if syntax == JPEGLSNearLossless else _irreversible(header)
    return method if is_lossy else None


def _near(header: bytes) -> bool:
    """Return whether a JPEG-LS stream is near-lossless (ISO 14495-1, C.2.3)."""
    scan = header.find(_SCAN)
    place = scan + 5 + 2 * header[scan + 4] if 0 <= scan < len(header) - 4 else len(header)
    return place < len(header) and header[place] > 0


def _irreversible(header: bytes) -> bool:
    """Return whether JPEG 2000 is by the 9-7 wavelet (ISO 15444-1, A.6.1)."""
    place = 2
    while place + 14 <= len(header):
        marker, length = header[place : place + 2], struct.unpack_from(">H", header, place + 2)[0]
        if marker == _J2K_COD:
            return header[place + 13] == _IRREVERSIBLE
        place += 2 + length
    return False
