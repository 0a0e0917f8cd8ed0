"""Checks that pixel data are as large as their header says.

Decoders take as many bytes as Rows and Columns ask for. If these are too small, the film is cut off or sheared, and a
decoder is silent about it.
"""

from __future__ import annotations

import struct
from itertools import islice

from pydicom import Dataset
from pydicom.encaps import generate_fragments
from pydicom.uid import UID, RLELossless

from edgecxr.films.signatures import JPEG_2000

_JPEG_START = b"\xff\xd8\xff"
_ITEM = b"\xfe\xff\x00\xe0"
_BOXES = 4096
"""Bytes within which the codestream of a JP2 file starts."""


def surplus(dataset: Dataset, syntax: UID) -> str | None:
    """Return a warning about more pixel data than the header says.

    A few bytes are filler, of which DCMTK warns too, and so are zeros up to the end of a block. A whole row or column
    may be one that Rows or Columns lacks, and then all others could be at wrong places: if they are not zero, or as
    many as a column has, since films may end in black. Of a codestream, which states its own size, the first is the
    film.

    Raises:
        ValueError: the uncompressed pixels are at least a row or a column more than the header says and no filler, or
            begin with an item.
    """
    frames = int(dataset.get("NumberOfFrames") or 1)
    if syntax.is_encapsulated:
        fragments = islice(generate_fragments(dataset.PixelData), 1, None) if frames == 1 else ()
        more = islice(filter(None, fragments), 1, None)
        if any(fragment.startswith((_JPEG_START, JPEG_2000[0])) for fragment in more):
            return "the pixel data hold more frames than the file says; the first was taken"
        return None
    rows, columns, byte_count = int(dataset.Rows), int(dataset.Columns), len(dataset.PixelData)
    in_items = dataset["PixelData"].is_undefined_length
    if in_items:
        byte_count = sum(len(fragment) for fragment in islice(generate_fragments(dataset.PixelData), 1, None))
    samples = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else int(dataset.SamplesPerPixel)
    pixel = samples * (int(dataset.BitsAllocated) // 8)
    if pixel == 0 or int(dataset.BitsAllocated) % 8:
        return None  # the decoder names it
    stated = frames * rows * columns * pixel
    extra = byte_count - stated - stated % 2
    lacking = extra >= pixel * min(rows, columns) and (extra % (pixel * rows) == 0 or _ends_in_values(dataset, extra))
    if lacking or (extra > 0 and dataset.PixelData.startswith(_ITEM) and not in_items):
        raise ValueError(f"{byte_count} bytes of pixels, {extra} more than {rows} rows and {columns} columns have")
    return f"the pixel data have {extra} bytes more than the film; they were ignored" if extra > 0 else None


def _ends_in_values(dataset: Dataset, count: int) -> bool:
    """Return whether the last bytes of uncompressed pixels are not all zero."""
    pixels = dataset.PixelData
    if dataset["PixelData"].is_undefined_length:
        pixels = _joined(dataset)
    return pixels[-count:].strip(b"\0") != b""


def check_size(dataset: Dataset, syntax: UID) -> None:
    """Refuse codestreams whose size or precision differs from the file's.

    Decoders allocate memory by them, and GDCM crashes on a bad precision.

    Raises:
        ValueError: they differ, or the codestream does not state them.
    """
    if syntax == RLELossless:
        return  # it does not state them; the length of its runs is checked
    size = (int(dataset.Rows), int(dataset.Columns))
    stream = first_fragment(dataset)
    if stream.startswith(JPEG_2000):
        start = stream.find(JPEG_2000[0], 0, _BOXES)
        if start < 0:
            raise ValueError("the codestream does not state its size")
        width, height, left, top = struct.unpack_from(">4L", stream, start + 8)
        actual = (height - top, width - left)
        samples, bits = struct.unpack_from(">HB", stream, start + 40)
        bits = (bits & 127) + 1
    else:
        frame = jpeg_frame(stream) or jpeg_frame(_joined(dataset))
        if frame is None:
            raise ValueError("the codestream does not state its size")
        _, bits, *actual_size, samples = frame
        actual = (actual_size[0], actual_size[1])
        if not 2 <= bits <= 16:
            raise ValueError(f"the codestream holds samples of {bits} bits")
    if bits > int(dataset.BitsAllocated) or samples != dataset.SamplesPerPixel:
        raise ValueError(f"the codestream holds {samples} samples of {bits} bits, unlike the file's header")
    if actual != size:
        raise ValueError(f"the codestream holds {actual[0]} x {actual[1]} pixels, not {size[0]} x {size[1]}")


def first_fragment(dataset: Dataset) -> bytes:
    """Return the start of the first frame's codestream.

    The item before it is the offset table.
    """
    return next((fragment for fragment in islice(generate_fragments(dataset.PixelData), 1, None) if fragment), b"")


def _joined(dataset: Dataset) -> bytes:
    """Return all fragments, for a header longer than the first."""
    return b"".join(islice(generate_fragments(dataset.PixelData), 1, None))


def jpeg_frame(stream: bytes) -> tuple[int, int, int, int, int] | None:
    """Return the fields of a JPEG or JPEG-LS frame header, or None.

    They are marker, precision, height, width and components.
    """
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
