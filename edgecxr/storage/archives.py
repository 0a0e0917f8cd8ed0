"""Archives of arrays (.npz), looked through before anything is unpacked."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from edgecxr.storage.arrays import Header, read_header, read_values
from edgecxr.storage.reading import BadFile, open_file, size_of

_ENDING = ".npy"
_AT_ONCE = 2 << 20  # bytes read in one go, so that no claim of the archive allocates more
_LOCAL_HEADER = 30
# Deflate makes at most 1032 bytes of one; films and tables shrink to a fifth, hardly ever to a twentieth.
_MOST_SHRUNK = 50
_SMALL = 1 << 20
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, MemoryError, ValueError,
    OverflowError, KeyError,
)  # fmt: skip


class Archive:
    """The arrays of an open archive.

    Attributes:
        names: of the arrays.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names = {name.removesuffix(_ENDING) for name in archive.namelist() if name.endswith(_ENDING)}

    def header(self, name: str) -> Header:
        """Return the header of an array.

        Raises:
            BadFile: there is no such array, or it has no header.
        """
        header, member = self.open(name)
        member.close()
        return header

    def open(self, name: str) -> tuple[Header, IO[bytes]]:
        """Return an array's header, and a stream of its values.

        Raises:
            BadFile: there is no such array, or it has no header.
        """
        if name not in self.names:
            raise BadFile(f"it has no array {name}")
        member = self._archive.open(name + _ENDING)
        try:
            return read_header(member.read, self._archive.getinfo(name + _ENDING).file_size), member
        except BadFile as error:
            member.close()
            raise BadFile(f"{name}: {error}") from error

    def array(self, name: str) -> NDArray[Any]:
        """Return an array, whose checksum has been compared.

        Raises:
            BadFile: there is no such array, it is damaged, or there is not enough memory for it.
        """
        header, member = self.open(name)
        with member:
            values = read_values(member.read, header)
            # Reading to the end compares the checksum.
            if member.read(1):
                raise BadFile(f"{name}: it is longer than it says")
        return values


@contextmanager
def open_archive(path: Path, most: int, largest: int) -> Iterator[Archive]:
    """Open an .npz archive.

    Args:
        path: the file.
        most: greatest number of entries.
        largest: greatest number of bytes of all arrays together.

    Raises:
        BadFile: it is no such archive, has more or doubtful entries, or is damaged, which may be noticed in the block.
        OSError: it cannot be read.
    """
    with open_file(path) as file, unpacking(), open_zip(file, most, largest) as archive:
        yield Archive(archive)


def open_zip(file: BufferedReader, most: int, largest: int) -> zipfile.ZipFile:
    """Open an archive that unpacks to no more than a limit.

    Args:
        file: the archive; left open.
        most: greatest number of entries.
        largest: greatest number of bytes of all entries together.

    Raises:
        BadFile: it is no such archive, or its entries are more, or doubtful.
    """
    with unpacking():
        archive = zipfile.ZipFile(_Sparing(file))
        _check_entries(archive.infolist(), size_of(file), most, largest)
        return archive


def _check_entries(entries: list[zipfile.ZipInfo], size: int, most: int, largest: int) -> None:
    if len(entries) > most:
        raise BadFile(f"it has {len(entries)} entries, more than {most}")
    if len({entry.filename for entry in entries}) != len(entries):
        raise BadFile("it has two entries of one name")
    for entry in entries:
        _check_entry(entry)
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > min(largest, _MOST_SHRUNK * size + _SMALL):
        raise BadFile(f"its {size} bytes would unpack to {unpacked}")
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise BadFile("its entries overlap")
        end = entry.header_offset + _LOCAL_HEADER + entry.compress_size
    if end > size:
        raise BadFile("its entries are longer than the file")


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    if name.startswith("/") or "\\" in name or ".." in name.split("/") or not name.isprintable():
        raise BadFile("an entry's name leads out of it")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.is_dir() or kind not in (0, stat.S_IFREG):
        raise BadFile(f"its entry {name[:80]} is no file")
    if entry.flag_bits & 0x1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadFile(f"its entry {name[:80]} is encrypted, or packed in an unusual way")
    if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
        raise BadFile(f"its entry {name[:80]} has two sizes")


@contextmanager
def unpacking() -> Iterator[None]:
    """Turn the errors of a damaged archive into `BadFile`."""
    try:
        yield
    except BadFile:
        raise
    except _DAMAGE as error:
        raise BadFile(f"it is no whole archive ({str(error) or type(error).__name__})") from error


class _Sparing:
    """File of an archive that gives few bytes at once.

    The list of entries is read as a whole, whatever length the archive claims for it.
    """

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        content = self._file.read(_AT_ONCE + 1 if count < 0 else min(count, _AT_ONCE + 1))
        if len(content) > _AT_ONCE:
            raise BadFile("its list of entries is too long")
        return content

    def close(self) -> None:
        self._file.close()
