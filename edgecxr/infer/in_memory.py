"""Read films that are bytes, open files or pydicom data sets.

They are read as a file with these bytes would be, by the same readers and within the same limits. The file exists in
memory only, since films must not be left in a folder of temporary files.
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias, TypeGuard, cast

from edgecxr.errors import AGAIN, InputError, UsageError, brief
from edgecxr.films.radiograph import FilmRead
from edgecxr.films.read import MAX_BYTES, read_film

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

    InMemory: TypeAlias = bytes | bytearray | memoryview | IO[bytes] | Dataset

_PART = 1 << 20


def in_memory(source: object) -> TypeGuard[InMemory]:
    """Return whether this is something that `read_in_memory` reads."""
    return isinstance(source, (bytes, bytearray, memoryview)) or hasattr(source, "read") or _is_dataset(source)


def read_in_memory(source: InMemory, size: int) -> FilmRead:
    """Read a film as `edgecxr.films.read.read_film` reads a file.

    Args:
        source: the content of a file; or a file that is open for reading bytes, from where it stands to its end; or a
            data set, which is not changed. The syntax of a data set's pixels is that of its `file_meta`; without one,
            they are uncompressed.
        size: side of the image, 224 or 448.

    Raises:
        InputError: as `read_film` does, and if the file cannot be read or the data set cannot be written.
        MissingPackage: as `read_film` does.
        UsageError: the file gives no bytes.
    """
    name, parts = _parts(source)
    with _file_of(parts) as path:
        try:
            film = read_film(path, size)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name), error.reason) from error
    return replace(film, source=name, warnings=tuple(text.replace(str(path), name) for text in film.warnings))


def _is_dataset(source: object) -> TypeGuard[Dataset]:
    pydicom = sys.modules.get("pydicom")  # who has a data set has loaded it
    return pydicom is not None and isinstance(source, pydicom.Dataset)


def _parts(source: InMemory) -> tuple[str, Iterable[bytes]]:
    """Return what messages call a source, and its content."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "the bytes", [bytes(source)]
    if not hasattr(source, "read"):
        return "the data set", [_content(cast("Dataset", source))]
    file = cast("IO[bytes]", source)
    name = file.name if isinstance(getattr(file, "name", None), str) else "the open file"
    return name, _read(file, name)


def _read(file: IO[bytes], name: str) -> Iterator[bytes]:
    total = 0
    while True:
        try:
            part = None if isinstance(file, io.TextIOBase) else file.read(_PART)
        except (OSError, ValueError) as error:
            raise InputError(f"{name} cannot be read ({error}): give it open for reading", "not-found") from error
        if not isinstance(part, (bytes, bytearray, memoryview)):
            raise UsageError(f"{name} gives no bytes: open it with mode 'rb'")
        if not part:
            return
        total += len(part)
        if total > MAX_BYTES:
            raise InputError(f"{name} is larger than {MAX_BYTES >> 20} MiB: extract the single film", "unsupported")
        yield bytes(part)


@contextmanager
def _file_of(parts: Iterable[bytes]) -> Iterator[Path]:
    """Write a file without a name, and yield its path."""
    with contextlib.ExitStack() as stack:
        if hasattr(os, "memfd_create"):
            file: IO[bytes] = stack.enter_context(os.fdopen(os.memfd_create("film"), "wb"))
            path = Path(f"/proc/self/fd/{file.fileno()}")
        else:
            file = stack.enter_context(tempfile.NamedTemporaryFile())
            path = Path(file.name)
        file.writelines(parts)
        file.flush()
        yield path


def _content(dataset: Dataset) -> bytes:
    """Return as a DICOM file what a film is read from.

    Raises:
        InputError: pydicom cannot write them; reason "malformed".
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset, write_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

    stream = DicomBytesIO()
    try:
        part = _copied(dataset)
        stated = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
        syntax = ExplicitVRLittleEndian if stated == DeflatedExplicitVRLittleEndian else stated
        implicit, little = _encoding(dataset, syntax)
        stream.write(b"\0" * 128 + b"DICM")
        if syntax:
            meta = FileMetaDataset()
            meta.TransferSyntaxUID = syntax
            write_file_meta_info(stream, meta, enforce_standard=False)
        stream.is_implicit_VR, stream.is_little_endian = implicit, little
        write_dataset(stream, part)
    except Exception as error:  # a data set may hold anything
        raise InputError(
            f"the data set cannot be written as a file ({type(error).__name__}: {brief(error)}): {AGAIN}", "malformed"
        ) from error
    return stream.getvalue()


def _encoding(dataset: Dataset, syntax: UID | None) -> tuple[bool, bool]:
    """Return whether VRs are implicit, and whether numbers are little-endian.

    What pydicom has read and nobody has looked at yet is still encoded as in its file.
    """
    from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

    implicit, little = dataset.original_encoding
    if implicit is None or little is None:
        return syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    return implicit, little


def _copied(dataset: Dataset) -> Dataset:
    """Return a copy of the elements that a film is read from."""
    from pydicom import Dataset as New
    from pydicom.datadict import tag_for_keyword

    from edgecxr.films.dicom import KEYWORDS

    part = New()
    for keyword in ("SpecificCharacterSet", *KEYWORDS):
        tag = tag_for_keyword(keyword)
        if tag is not None and tag in dataset:
            part[tag] = copy.deepcopy(dataset.get_item(tag))
    implicit, little = dataset.original_encoding
    part.set_original_encoding(implicit, little, dataset.original_character_set)
    return part
