"""Elements of a DICOM file, read within limits.

pydicom keeps the last of two equal elements, skips what lies beyond the file's end, and has no limit for what a file
unpacks to or for the number of its parts. Here these are found while it reads.
"""

from __future__ import annotations

import io
import os
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag, keyword_for_tag, repeater_has_tag
from pydicom.filereader import data_element_generator, read_partial, read_preamble
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import VR

from edgecxr.errors import AGAIN, InputError
from edgecxr.films.read import MAX_BYTES

MAX_INFLATED = 512 << 20
"""Bytes that a deflated file may unpack to; the largest film in colour has 300 MB."""

MAX_READS = 150_000
"""Number of reads for elements, items and fragments; a film needs a few hundred."""

MAX_ITEMS = 10_000
"""Number of items in a sequence that is used; a film has a few."""

_MANY = 1 << 16
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_TRANSFER_SYNTAX = 0x00020010
_DEFLATED, _EXPLICIT = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"
_FIRST_GROUP, _FIRST_PRIVATE = 8, 0x10  # group of a data set, and element of a private group
_KINDS = frozenset(str(kind) for kind in VR)
_HEAD, _LENGTH = 8, 4  # bytes of an element's tag with what follows, and of a length that stands apart
_ITEM = b"\xfe\xff\x00\xe0"


def read_elements(path: Path, keywords: Sequence[str]) -> tuple[Dataset, list[str]]:
    """Read some elements of a DICOM file, PixelData still encoded.

    Args:
        path: the file.
        keywords: of the elements to keep.

    Returns:
        The elements, and warnings about the file.

    Raises:
        InputError: the file is too large, breaks off, or has an element twice.
        Exception: nearly any, for a malformed file.
    """
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES >> 20} MiB: extract the single film", "unsupported")
    early = InputError(f"{path} ends too early: {AGAIN}", "malformed")
    tags: list[BaseTag | int] = [Tag(keyword) for keyword in keywords]
    with warnings.catch_warnings(record=True) as caught, _opened(path) as file:
        warnings.simplefilter("always")
        order = _Order(path, file, tags)
        try:
            dataset = read_partial(file, stop_when=order, force=True, specific_tags=tags)
        except Exception as error:
            if file.overrun:  # pydicom hides what is raised within a sequence
                raise _too_many(path) from error
            raise
        after = file.rest() if order.pixels else b""
        whole = not (order.cut or order.disturbed or file.short) and file.tell() == file.size
    # For a truncated file pydicom returns no elements at all.
    ends = any("End of file" in str(warning.message) for warning in caught)
    if ends or order.lost or not (order.pixels or (whole and order.tags)):
        raise early
    if file.inflated and not whole:
        raise InputError(f"{path} does not unpack to elements in order: {AGAIN}", "malformed")
    for tag in tags:
        value = dataset.get_item(tag).value if tag in dataset and tag not in _PIXEL_DATA else b""
        if isinstance(value, bytes) and value.count(_ITEM) > MAX_ITEMS:
            raise _too_many(path)
    notes = ["the elements are not in order; the file may be damaged"] if order.disturbed else []
    if after.strip(b"\0"):
        notes.append(f"the last {len(after)} bytes of the file are no element; they were ignored")
    return dataset, notes


def _opened(path: Path) -> _Bounded:
    """Open a file whose meta information is in order, unpacked if deflated."""
    with _Bounded(io.FileIO(os.fspath(path)), path.stat().st_size) as file:
        meta = _Order(path, file, ())
        read_preamble(file, True)
        syntax = None
        try:
            for element in data_element_generator(file, False, True, lambda tag, vr, length: tag.group != 2):
                meta.add(element.tag)
                syntax = element.value if element.tag == _TRANSFER_SYNTAX else syntax
        except EOFError as error:
            raise InputError(f"{path} ends too early: {AGAIN}", "malformed") from error
        start = file.tell()
        file.seek(0)
        head = file.read(start)
        if not isinstance(syntax, bytes) or syntax.strip(b"\0 ") != _DEFLATED:
            return _Bounded(io.FileIO(os.fspath(path)), path.stat().st_size)
        whole = head.replace(_DEFLATED, _EXPLICIT.ljust(len(_DEFLATED), b"\0")) + _inflated(path, file.read())
    return _Bounded(_Memory(whole), len(whole), inflated=True)


def _inflated(path: Path, data: bytes) -> bytes:
    inflating, parts, length = zlib.decompressobj(-zlib.MAX_WBITS), [], 0
    while data and not inflating.eof:
        parts.append(inflating.decompress(data, 1 << 20))
        data, length = inflating.unconsumed_tail, length + len(parts[-1])
        if length > MAX_INFLATED:
            raise InputError(f"{path} unpacks to more than {MAX_INFLATED >> 20} MiB: extract the film", "unsupported")
    if not inflating.eof:
        raise InputError(f"{path} ends too early: {AGAIN}", "malformed")
    return b"".join(parts)


class _Order:
    """Callback that pydicom calls before the value of each element.

    Attributes:
        tags: those seen.
        disturbed: whether a tag was less than the one before.
        cut: whether an element claims more bytes than are left.
        lost: whether it is one that is wanted, after the pixels.
    """

    def __init__(self, path: Path, file: _Bounded, wanted: Sequence[int]) -> None:
        self.tags: set[int] = set()
        self.disturbed = self.cut = self.lost = self._explicit = False
        self._path, self._file, self._wanted = path, file, frozenset(wanted)
        self._last = 0
        self._looked_at: int | None = None

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        """Note an element; return whether to stop before it."""
        if tag == 0 and self.pixels:
            return True  # zeros after the pixels, to fill a block
        left = self._file.size - self._file.tell()
        self._explicit |= vr is not None
        if self.pixels and not self._is_element(tag, vr, length, left):
            return True
        self.cut |= length not in (0, _UNDEFINED) and length > left
        # Where a file's kind of VR is not what its syntax says, pydicom looks at the first element once more.
        if self._looked_at != tag:
            self.add(tag)
        self._looked_at = tag if length == 0 and self._looked_at is None else 0
        return False

    def _is_element(self, tag: BaseTag, vr: str | None, length: int, left: int) -> bool:
        """Return whether bytes after the pixels are an element.

        The pixels are whole. What else may stand there is filler, which looks like a tag of no dictionary and a length
        beyond the file, or an element that breaks off.
        """
        known = dictionary_has_tag(tag) or repeater_has_tag(tag)
        private = tag.is_private and tag.elem >= _FIRST_PRIVATE
        if tag.group < _FIRST_GROUP or not (known or (vr in _KINDS if self._explicit else private)):
            return False
        whole = length <= left if length != _UNDEFINED else _SEQUENCE_END in self._file.rest()
        self.lost |= not whole and tag in self._wanted
        return whole

    @property
    def pixels(self) -> bool:
        """Whether there was an element of pixels."""
        return not self.tags.isdisjoint(_PIXEL_DATA)

    def add(self, tag: BaseTag) -> None:
        """Note a tag.

        Raises:
            InputError: it was there before.
        """
        if tag in self.tags:
            name = keyword_for_tag(tag) or str(tag)
            raise InputError(f"{self._path} has the element {name} twice: {AGAIN}", "malformed")
        if len(self.tags) > MAX_ITEMS:
            raise _too_many(self._path)
        self.disturbed |= tag < self._last
        self.tags.add(tag)
        self._last = tag


class _Memory(io.BytesIO):
    name = ""  # pydicom asks for it


class _Bounded(io.BufferedReader):
    """File whose elements cannot claim more bytes than it has.

    Attributes:
        size: in bytes.
        short: whether it ended within an element.
        overrun: whether it has too many elements.
        inflated: whether it is an unpacked file.
    """

    def __init__(self, raw: Any, size: int, inflated: bool = False) -> None:
        super().__init__(raw)
        self.size, self.inflated = size, inflated
        self.short = self.overrun = False
        self._head, self._before = 0, 0
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes, after a check that many are there.

        Raises:
            EOFError: far fewer are left; no memory is reserved for them.
            ValueError: too much was read.
        """
        self._reads += 1
        self.overrun = self._reads > MAX_READS
        if self.overrun:
            raise ValueError("too many elements")
        if size is not None and size > _MANY and size > self.size - self.tell():
            raise EOFError(f"End of file: an element claims {size} bytes")
        if size == _HEAD:
            self._head = self.tell()
        data = super().read(size)
        in_head, self._before = (self._before, size) == (_HEAD, _LENGTH), size or 0
        self.short |= size is not None and 0 < len(data) < size and size > 1
        # The length of an element whose head breaks off: pydicom would raise for it.
        return data.ljust(_LENGTH, b"\xff") if in_head else data

    def rest(self) -> bytes:
        """Return the bytes from the last head that was read."""
        place = self.tell()
        self.seek(self._head)
        data = super().read()
        self.seek(place)
        return data


def _too_many(path: Path) -> InputError:
    return InputError(f"{path} has more elements, items or fragments than a film: extract the film", "unsupported")
