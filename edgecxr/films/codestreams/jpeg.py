"""Checks that a JPEG stream is whole, and in which colours.

libjpeg fills what a stream lacks with grey and goes on after damage with garbage, and Pillow hides its warnings. But
Huffman codes have different lengths: after damage the decoder needs more bytes for the picture than there are, or
fewer. So the stream is given to it without its end marker and with a few bytes more, and where it stops reading shows
whether it is whole. Streams with several scans or restart markers are left to GDCM, whose libjpeg speaks.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
from collections.abc import Iterator

from edgecxr.errors import MissingPackage
from edgecxr.films.codestreams.standard_error import captured

START = b"\xff\xd8\xff"

_MARKER = re.compile(rb"\xff+[^\x00\xff]")
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN, _END, _INTERVAL = 0xDA, 0xD9, 0xDD
_RESTARTS = range(0xD0, 0xD8)

_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(5)
"""Adobe's marker (APP14) for components that are not transformed."""

_AHEAD = b"\x55" * 8
"""libjpeg fills 64 bits before it decodes, so it reads at most this far beyond a whole stream."""

_PADDING = 2
"""Bytes after the last code that are no damage."""


class Watched(io.BytesIO):
    """JPEG file that shows where its decoder stops reading.

    A decoder that needs more than there is meets the end of the file, and Pillow raises OSError.

    Args:
        stream: the file.
    """

    def __init__(self, stream: bytes) -> None:
        self._stream = stream
        self._frame, scan, interval = _headers(stream)
        self._scan = scan
        marker = _MARKER.search(stream, scan)
        self._end = marker.start() if marker else len(stream)
        after = stream[marker.end() - 1] if marker else _END
        self._simple = bool(scan) and self._frame[0] in (_BASELINE, _EXTENDED) and not interval and after == _END
        super().__init__(stream[: self._end] + _AHEAD if self._simple else stream)

    def __repr__(self) -> str:
        return "the codestream"  # Pillow's messages quote it

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes, but never across the end of the picture."""
        if self._simple:
            position = self.tell()
            for edge in (self._end - _PADDING - 1, self._end):
                if max(position + 1, self._scan) <= edge:
                    left = edge - position
                    size = left if size is None or size < 0 else min(size, left)
                    break
        return super().read(size)

    def fault(self) -> str | None:
        """Return what is wrong with the decoded stream, or None."""
        if self._simple:
            early = self.tell() < self._end - _PADDING
            return "the picture ends before its stream" if early else _missing(self._stream)
        marker, precision, height, width, components = self._frame
        if marker not in (_BASELINE, _EXTENDED, _PROGRESSIVE) or precision != 8 or components not in (1, 3):
            return None
        return _missing(self._stream) or _libjpeg_message(self._stream, height, width, components)


def fault(stream: bytes) -> str | None:
    """Decode a JPEG stream to see whether it is whole.

    Returns:
        What is wrong with it, or None.

    Raises:
        Exception: nearly any, if Pillow cannot decode it.
    """
    from PIL import Image

    watched = Watched(stream)
    with Image.open(watched, formats=["JPEG"]) as image:
        image.load()
    return watched.fault()


def stated_rgb(stream: bytes) -> bytes | None:
    """Return a stream of components R, G, B, with a marker.

    libjpeg takes these names for RGB if no marker of JFIF or Adobe says what the components are. pydicom asks it for
    YCbCr where Adobe's is missing, and libjpeg cannot make that of RGB. So Adobe's marker is added.

    Returns:
        None if the stream has such a marker, or its components have other names.
    """
    for marker, position, length in _segments(stream):
        body = stream[position + 4 : position + 2 + length]
        if (marker, body[:5]) in ((0xE0, b"JFIF\0"), (0xEE, b"Adobe")) or marker == _SCAN:
            return None
        if marker in _FRAMES:
            return stream[:2] + _ADOBE_RGB + stream[2:] if body[6:15:3] == b"RGB" and body[5] == 3 else None
    return None


def _segments(stream: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, place and length of each segment of a stream's header.

    The place is that of the marker, and the length is without it. The last is the first scan's.
    """
    position = 2
    while position + 10 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        (length,) = struct.unpack_from(">H", stream, position + 2)
        yield marker, position, length
        if marker == _SCAN:
            return
        position += 2 + length


@contextlib.contextmanager
def gdcm_messages() -> Iterator[list[str]]:
    """Capture what GDCM's libraries write to standard error.

    The list holds the lines once the block has ended; GDCM's own are left out.
    """
    import gdcm

    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    with captured() as lines:
        yield lines


def _headers(stream: bytes) -> tuple[tuple[int, int, int, int, int], int, int]:
    """Return frame header, place of the first scan, restart interval.

    The place is 0 if there is none.
    """
    frame, interval = (0, 0, 0, 0, 0), 0
    for marker, position, length in _segments(stream):
        if marker in _FRAMES:
            frame = (marker, *struct.unpack_from(">BHHB", stream, position + 4))
        elif marker == _INTERVAL:
            (interval,) = struct.unpack_from(">H", stream, position + 4)
        elif marker == _SCAN:
            return frame, position + 2 + length, interval
    return frame, 0, interval


def _missing(stream: bytes) -> str | None:
    """Return whether a stream of several scans lacks some, or None.

    Decoders show what there is, and libjpeg says nothing. Each scan of a progressive stream states which coefficients
    it refines up to which bit (ITU-T T.81, G.1.1.1); a whole one gives each coefficient of each component its last bit.
    """
    lacking: dict[int, set[int]] = {}
    progressive, position = False, 2
    while position + 10 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == _END:
            break
        (length,) = struct.unpack_from(">H", stream, position + 2)
        body = stream[position + 4 : position + 2 + length]
        position += 2 + length
        if marker in _FRAMES:
            progressive = marker == _PROGRESSIVE
            lacking = {body[6 + 3 * i]: set(range(64)) for i in range(body[5])}
        elif marker == _SCAN:
            first, last, bits = body[1 + 2 * body[0] :][:3] if progressive else (0, 63, 0)
            for component in body[1 : 1 + 2 * body[0] : 2]:
                if bits & 15 == 0:
                    lacking.get(component, set()).difference_update(range(first, last + 1))
            later = next((each for each in _MARKER.finditer(stream, position) if each[0][-1] not in _RESTARTS), None)
            position = later.start() if later else len(stream)
    return "some of its scans are missing" if any(lacking.values()) else None


def _libjpeg_message(stream: bytes, height: int, width: int, components: int) -> str | None:
    """Return what GDCM's libjpeg says of a stream, or None.

    Raises:
        MissingPackage: GDCM is not installed.
    """
    try:
        import gdcm
    except ImportError as error:
        raise MissingPackage("python-gdcm", "", "checking a JPEG of several scans") from error
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((width, height, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.MONOCHROME2 if components == 1 else gdcm.PhotometricInterpretation.YBR_FULL
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    if components > 1:
        image.SetPlanarConfiguration(0)
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGBaselineProcess1))
    image.SetPixelFormat(gdcm.PixelFormat(components, 8, 8, 7, 0))
    with gdcm_messages() as lines:
        decoded = image.GetBuffer() is not None
    return lines[0] if lines else None if decoded else "GDCM finds the codestream damaged"
