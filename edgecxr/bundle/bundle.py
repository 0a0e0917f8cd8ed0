"""A deployable model: a folder with card.json, the model files and SHA256SUMS."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgecxr.bundle.card import PLAIN_NAME, ModelCard, read_card, read_text
from edgecxr.errors import ModelError, brief
from edgecxr.storage.folders import CARD, atomic_folder, read_whole

SUMS = "SHA256SUMS"

# A bundle may come from a stranger: nothing of it is read before its size is known to be bearable.
LARGEST_FILE = 2 << 30
"""Bytes of a model file; more than protobuf, and so ONNX, can hold."""
MOST_FILES = 64
_LARGEST_SUMS = 64 << 10
_DEEPEST = 4
_MOST_UNLISTED = 1000

_SUM_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_LOCATION = b"location"
_ITS_KEY = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)\Z")
_LONGEST_KEY = 20
_BLOCK = 1 << 18
_REMEDY = "export it again or copy it again"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were whole when it was opened.

    Attributes:
        path: the folder.
        card: what its card.json says.
    """

    path: Path
    card: ModelCard

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Open a bundle and verify every file that its SHA256SUMS lists.

        Files that the list does not name, such as the engines a device has built, are let be.

        Raises:
            ModelError: there is no bundle at `path`, one of its files is missing, changed or too large, or the card or
                the list of checksums is not what edgecxr writes.
        """
        path = Path(path)
        if not os.path.isdir(path):
            there = os.path.exists(path)
            problem = "is a file, not a bundle: give the folder it lies in" if there else "does not exist"
            raise ModelError(f"{path} {problem}" + ("" if there else ": make a bundle with `edgecxr export`"))
        return read_whole(path, lambda: cls._read(path))

    @classmethod
    def _read(cls, path: Path) -> Bundle:
        for name, whole in verify(path):
            if not whole:
                state = "has changed since it was written" if os.path.exists(path / name) else "is missing"
                raise ModelError(f"{path / name} {state} ({SUMS} disagrees): {_REMEDY}")
        return cls(path, read_card(path, _REMEDY))

    def verify(self) -> list[tuple[str, bool]]:
        """Return each listed file's name and whether its checksum still holds.

        Raises:
            ModelError: the list itself is missing or damaged.
        """
        return verify(self.path)

    def listed(self, name: str, sha256: str | None = None) -> Path:
        """Return a file of the bundle, whose checksum was verified when it was opened.

        Args:
            name: of the file.
            sha256: what the card says of it; None where it does not.

        Raises:
            ModelError: the list of checksums does not name it, or has another checksum than the card.
        """
        sums = _read_sums(self.path)
        if name not in sums:
            raise ModelError(f"{self.path / SUMS} does not list {name}: {_REMEDY}")
        if sha256 not in (None, sums[name]):
            raise ModelError(f"{self.path / name} is not the file that {CARD} describes: {_REMEDY}")
        return self.path / name

    def artefact(self, precision: str = "fp32") -> Path:
        """Return the model file of a precision.

        Args:
            precision: "fp32", "fp16" or "int8".

        Raises:
            ModelError: the bundle has no such file.
        """
        names = {str(entry.get("precision")): name for name, entry in self.card.artefacts.items()}
        if precision not in names:
            raise ModelError(
                f"{self.path} has no {precision} model (it has: {', '.join(names) or 'none'}): export it with that too"
            )
        path = self.listed(names[precision], self.card.artefacts[names[precision]].get("sha256"))
        if _points_elsewhere(path):
            raise ModelError(f"{path} takes weights from other files, which no checksum covers: export the model again")
        return path


def write_bundle(dest: Path, card: ModelCard, files: dict[str, Path]) -> Bundle:
    """Write a bundle; one that was at `dest` is replaced as a whole, or stays as it was if anything fails.

    Args:
        dest: the folder to make.
        card: its `artefacts` name the model files and their precisions.
        files: name in the bundle -> the file to copy there.

    Raises:
        ModelError: a name is not usable, a file cannot be read, or the card names a file that is not given.
    """
    for name in files:
        if not PLAIN_NAME.fullmatch(name) or name in (CARD, SUMS):
            raise ModelError(f"{name!r} cannot be the name of a file in a bundle: use letters, digits, '.', '-', '_'")
    absent = sorted(set(card.artefacts) - set(files))
    if absent:
        raise ModelError(f"the card of {card.name} names {', '.join(absent)}, which the bundle at {dest} is not given")
    with atomic_folder(dest) as folder:
        for name, source in files.items():
            try:
                file = source.open("rb")
            except OSError as error:
                raise ModelError(
                    f"{source} cannot be copied into the bundle {dest} ({error.strerror}): export the model again"
                ) from error
            with file, (folder / name).open("wb") as copy:
                shutil.copyfileobj(file, copy)
        seal(folder, card)
    return Bundle(dest, card)


def seal(folder: Path, card: ModelCard) -> None:
    """Add card.json and SHA256SUMS, which lists it and the files that are there, to a bundle that is being made.

    Raises:
        OSError: they cannot be written.
    """
    names = sorted(path.name for path in folder.iterdir())
    (folder / CARD).write_text(card.to_json(), encoding="utf-8")
    sums = [f"{sha256_of(folder / name)}  {name}\n" for name in (CARD, *names)]
    (folder / SUMS).write_text("".join(sums), encoding="utf-8")


def verify(folder: Path) -> list[tuple[str, bool]]:
    """Return each file that a bundle's SHA256SUMS lists, and whether its checksum still holds.

    Raises:
        ModelError: the list itself is missing or damaged, or a file is too large or lies outside the bundle.
    """
    sums = _read_sums(folder)
    root = os.path.realpath(folder)
    for name in sums:
        _check_place(folder / name, root)
    return [(name, _holds(folder / name, expected)) for name, expected in sums.items()]


def unlisted(folder: Path) -> list[str]:
    """Return the files of a bundle that its SHA256SUMS does not list, such as engines; at most 1000, sorted.

    Raises:
        ModelError: the list is missing or damaged.
    """
    listed = {*_read_sums(folder), SUMS}
    found = (name for name in _names_below(folder) if name not in listed)
    return sorted(name for name, _ in zip(found, range(_MOST_UNLISTED), strict=False))


def _names_below(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name).relative_to(folder).as_posix() for name in sorted(names))


def _check_place(path: Path, root: str) -> None:
    """Refuse a file that a link takes out of the bundle, or that is too large to be a model."""
    real = os.path.realpath(path)
    if os.path.commonpath([real, root]) != root:
        raise ModelError(f"{path} is a link to {real}, outside the bundle: {_REMEDY}")
    try:
        size = Path(real).stat().st_size
    except OSError:
        return  # reported as missing
    if size > LARGEST_FILE:
        raise ModelError(f"{path} has {size / 1e9:.1f} GB, more than any model file: {_REMEDY}")


def _holds(path: Path, expected: str) -> bool:
    # A FIFO or a device would block or never end.
    return os.path.isfile(path) and sha256_of(path) == expected


def _points_elsewhere(path: Path) -> bool:
    """Return whether an ONNX file names another one that has its weights; not every engine minds where that lies.

    Such a name is the value of a protobuf field whose key is "location": a tag and a length, either of which may be
    written with more bytes than it needs, and the text. Weights hold these by chance once in 10^20 files.
    """
    buffer = bytearray(_BLOCK)
    kept = 0  # of the end of the last block, where a name may have begun
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(memoryview(buffer)[kept:]):
                end = kept + count
                at = buffer.find(_LOCATION, 0, end)
                while at >= 0:
                    if _ITS_KEY.search(buffer, max(0, at - _LONGEST_KEY), at):
                        return True
                    at = buffer.find(_LOCATION, at + 1, end)
                kept = min(end, _LONGEST_KEY + len(_LOCATION))
                buffer[:kept] = buffer[end - kept : end]
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): {_REMEDY}") from error
    return False


def _read_sums(folder: Path) -> dict[str, str]:
    """Return name -> checksum, in the order of the file."""
    path = folder / SUMS
    lines = read_text(path, _LARGEST_SUMS, _REMEDY).splitlines()
    if len(lines) > MOST_FILES:
        raise ModelError(f"{path} lists {len(lines)} files, more than a bundle has ({MOST_FILES}): {_REMEDY}")
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        where = f"line {number} of {path}"
        match = _SUM_LINE.fullmatch(line)
        if not match:
            raise ModelError(f"{where} is not a checksum and a name: {_REMEDY}")
        name, shown = PurePosixPath(match[2]), brief(match[2], 80)
        if name.is_absolute() or ".." in name.parts:
            raise ModelError(f"{where} names a file outside the bundle ({shown}): {_REMEDY}")
        if not 1 <= len(name.parts) <= _DEEPEST or not all(map(PLAIN_NAME.fullmatch, name.parts)):
            raise ModelError(f"{where} has a name that no file of a bundle has ({shown}): {_REMEDY}")
        if str(name) in sums:
            raise ModelError(f"{where} names {shown} a second time: {_REMEDY}")
        sums[str(name)] = match[1].lower()
    if CARD not in sums:
        raise ModelError(f"{path} does not list {CARD}: {_REMEDY}")
    return sums


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        ModelError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        # Into one buffer: of a new one for each block the system would hand out and clear all pages.
        buffer = memoryview(bytearray(_BLOCK))
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): {_REMEDY}") from error
    return digest.hexdigest()
