"""Deployable models: folders with card.json, model files and SHA256SUMS."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from edgecxr.bundle.card import PLAIN_NAME, ModelCard, read_card, read_text
from edgecxr.bundle.model_file import LARGEST, ModelFile
from edgecxr.bundle.signature import SIGNATURE, require_trusted
from edgecxr.errors import ModelError, brief
from edgecxr.storage.folders import CARD, atomic_folder, read_whole
from edgecxr.storage.reading import BadFile, open_file, read_bytes
from edgecxr.storage.walk import names_below

SUMS = "SHA256SUMS"

# A bundle may be untrusted, so no file of it is read before its size is checked.
LARGEST_SUM = 3 * LARGEST  # a model of each precision; the largest export takes less than half of it
MOST_FILES = 64
_LARGEST_SUMS = 64 << 10
_DEEPEST = 4
_MOST_UNLISTED = 1000

_SUM_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_BLOCK = 1 << 18
_REMEDY = "export it again or copy it again"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose checksums held when it was opened.

    Attributes:
        path: the folder.
        card: the content of its card.json.
        sums: name -> SHA-256 of its files. What is used later must still be the same.
    """

    path: Path
    card: ModelCard
    sums: Mapping[str, str] = field(compare=False, repr=False)

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Open a bundle and verify every file that its SHA256SUMS lists.

        Files that the list does not name, such as engines built on a device, are ignored.

        Raises:
            ModelError: there is no bundle at `path`, one of its files is missing, changed or too large, or the card or
                the list of checksums is not what edgecxr writes.
        """
        path = Path(path)
        return read_whole(path, lambda: cls._read(path))

    @classmethod
    def _read(cls, path: Path) -> Bundle:
        if not os.path.isdir(path):
            exists = os.path.exists(path)
            problem = "is a file, not a bundle: give the folder it lies in" if exists else "does not exist"
            raise ModelError(f"{path} {problem}" + ("" if exists else ": make a bundle with `edgecxr export`"))
        sums = checked_sums(path)
        require_trusted(path, sums)
        return cls(path, read_card(path, _REMEDY, sums[CARD]), sums)

    def verify(self) -> list[tuple[str, bool]]:
        """Return each listed file's name and whether its checksum still holds.

        Raises:
            ModelError: the list itself is missing or damaged.
        """
        return verify(self.path)

    def content(self, name: str, largest: int, sha256: str | None = None) -> bytes:
        """Return the content of a file, which is still what was verified.

        Args:
            name: name of the file.
            largest: limit of its size in bytes.
            sha256: its checksum in the card; None if the card has none.

        Raises:
            ModelError: it cannot be read, is larger, or has changed; or as in `listed`.
        """
        path = self.listed(name, sha256)
        try:
            content = read_bytes(path, largest)
        except (OSError, BadFile) as error:
            raise ModelError(f"{path} cannot be read ({brief(error)}): {_REMEDY}") from error
        if hashlib.sha256(content).hexdigest() != self.sums[name]:
            raise ModelError(f"{path} has changed since its bundle was opened: {_REMEDY}")
        return content

    def listed(self, name: str, sha256: str | None = None) -> Path:
        """Return the path of a file that the list of checksums names.

        Its checksum was verified when the bundle was opened.

        Args:
            name: name of the file.
            sha256: its checksum in the card; None if the card has none.

        Raises:
            ModelError: the list does not name the file, or has another checksum than the card.
        """
        self._checksum(name, sha256)
        return self.path / name

    def _checksum(self, name: str, sha256: str | None) -> str:
        if name not in self.sums:
            raise ModelError(f"{self.path / SUMS} does not list {name}: {_REMEDY}")
        if sha256 not in (None, self.sums[name]):
            raise ModelError(f"{self.path / name} is not the file that {CARD} describes: {_REMEDY}")
        return self.sums[name]

    def artefact(self, precision: str = "fp32") -> Path:
        """Return the path of a precision's model file, which has been checked.

        Arguments and errors are those of `model`.
        """
        return self.model(precision).path

    def model(self, precision: str = "fp32") -> ModelFile:
        """Read the model file of a precision.

        Args:
            precision: "fp32", "fp16" or "int8".

        Raises:
            ModelError: the bundle has no such file, it has changed, or edgecxr cannot have exported it.
        """
        names = {str(entry.get("precision")): name for name, entry in self.card.artefacts.items()}
        if precision not in names:
            raise ModelError(
                f"{self.path} has no {precision} model (it has: {', '.join(names) or 'none'}): export it with that too"
            )
        name = names[precision]
        return ModelFile.read(self.path / name, self._checksum(name, self.card.artefacts[name].get("sha256")))


def write_bundle(dest: Path, card: ModelCard, files: dict[str, Path]) -> Bundle:
    """Write a bundle, or leave `dest` as it was if anything fails.

    A bundle that was at `dest` is replaced as a whole.

    Args:
        dest: the folder to make.
        card: its `artefacts` name the model files and their precisions.
        files: name in the bundle -> the file to copy there.

    Raises:
        ModelError: a name is not usable, a file cannot be read, or the card names a file that is not in `files`.
    """
    for name in files:
        if not PLAIN_NAME.fullmatch(name) or name in (CARD, SUMS, SIGNATURE):
            raise ModelError(f"{name!r} cannot be the name of a file in a bundle: use letters, digits, '.', '-', '_'")
    absent = sorted(set(card.artefacts) - set(files))
    if absent:
        raise ModelError(f"the card of {card.name} names {', '.join(absent)}, which the bundle at {dest} is not given")
    with atomic_folder(dest) as folder:
        for name, source in files.items():
            try:
                file = open_file(source)
            except (OSError, BadFile) as error:
                raise ModelError(
                    f"{source} cannot be copied into the bundle {dest} ({brief(error)}): export the model again"
                ) from error
            with file, (folder / name).open("wb") as copy:
                shutil.copyfileobj(file, copy)
        seal(folder, card)
    return Bundle(dest, card, read_sums(dest))


def seal(folder: Path, card: ModelCard) -> None:
    """Add card.json and SHA256SUMS to a bundle that is being made.

    SHA256SUMS lists the card and the files that are already in the folder.

    Raises:
        OSError: they cannot be written.
    """
    names = sorted(path.name for path in folder.iterdir())
    (folder / CARD).write_text(card.to_json(), encoding="utf-8")
    sums = [f"{sha256_of(folder / name)}  {name}\n" for name in (CARD, *names)]
    (folder / SUMS).write_text("".join(sums), encoding="utf-8")


def checked_sums(folder: Path) -> dict[str, str]:
    """Return the checksums in SHA256SUMS, all of which hold.

    Raises:
        ModelError: a file is missing or has changed; or as in `verify`.
    """
    sums = read_sums(folder)
    for name, whole in _compared(folder, sums):
        if not whole:
            state = "has changed since it was written" if os.path.exists(folder / name) else "is missing"
            raise ModelError(f"{folder / name} {state} ({SUMS} disagrees): {_REMEDY}")
    return sums


def verify(folder: Path) -> list[tuple[str, bool]]:
    """Return each file in SHA256SUMS, and whether its checksum still holds.

    Raises:
        ModelError: the list itself is missing or damaged, or a file is too large or outside the bundle.
    """
    return _compared(folder, read_sums(folder))


def _compared(folder: Path, sums: Mapping[str, str]) -> list[tuple[str, bool]]:
    root = os.path.realpath(folder)
    states = {name: state for name in sums if (state := _state(folder / name, root))}
    # One name of each file: sixty links to a large one would be read for as long as sixty files.
    files = {_identity(state): name for name, state in states.items()}
    total = sum(states[name].st_size for name in files.values())
    if total > LARGEST_SUM:
        raise ModelError(f"{folder} has {total / 1e9:.1f} GB, more than any bundle: {_REMEDY}")
    digests = {identity: sha256_of(folder / name) for identity, name in files.items()}
    return [(name, name in states and digests[_identity(states[name])] == expected) for name, expected in sums.items()]


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino


def unlisted(folder: Path) -> list[str]:
    """Return the files of a bundle that SHA256SUMS does not list.

    Engines built on a device, for example, are not listed.

    Returns:
        At most 1000 names, sorted; signatures are no such file.

    Raises:
        ModelError: the list is missing or damaged.
    """
    listed = {*read_sums(folder), SUMS, SIGNATURE}
    names = (name for name in names_below(folder) if name not in listed)
    return sorted(name for name, _ in zip(names, range(_MOST_UNLISTED), strict=False))


def _state(path: Path, root: str) -> os.stat_result | None:
    """Return the state of a regular file, or None.

    Reading a FIFO or a device could block or never end.

    Raises:
        ModelError: it is a link out of the bundle, or too large.
    """
    real = os.path.realpath(path)
    if os.path.commonpath([real, root]) != root:
        raise ModelError(f"{path} is a link to {real}, outside the bundle: {_REMEDY}")
    try:
        state = Path(real).stat()
    except OSError:
        return None
    if state.st_size > LARGEST:
        raise ModelError(f"{path} has {state.st_size / 1e9:.1f} GB, more than any model file: {_REMEDY}")
    return state if stat.S_ISREG(state.st_mode) else None


def read_sums(folder: Path) -> dict[str, str]:
    """Return name -> checksum, in the order of the file.

    Raises:
        ModelError: the list is missing or damaged.
    """
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
        if str(name) in sums or str(name) in (SUMS, SIGNATURE):
            raise ModelError(f"{where} names {shown} a second time, or itself: {_REMEDY}")
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
        # Reuse one buffer: the system would have to allocate and clear new pages for each block.
        buffer = memoryview(bytearray(_BLOCK))
        with open_file(path) as file:
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
    except (OSError, BadFile) as error:
        raise ModelError(f"{path} cannot be read ({brief(error)}): {_REMEDY}") from error
    return digest.hexdigest()
