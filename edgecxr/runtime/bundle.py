"""A deployable model: a folder with card.json, the model files and SHA256SUMS."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgecxr.artefact import atomic_folder, read_whole
from edgecxr.errors import ModelError
from edgecxr.runtime.types import ModelCard

CARD = "card.json"
SUMS = "SHA256SUMS"

_SUM_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_PLAIN_NAME = re.compile(r"\w[\w.+-]*")
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
            ModelError: there is no bundle at `path`, or one of its files is missing or changed.
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
                state = "has changed since it was written" if (path / name).exists() else "is missing"
                raise ModelError(f"{path / name} {state} ({SUMS} disagrees): {_REMEDY}")
        return cls(path, ModelCard.from_json(_read_text(path / CARD), str(path / CARD)))

    def verify(self) -> list[tuple[str, bool]]:
        """Return each listed file's name and whether its checksum still holds.

        Raises:
            ModelError: the list itself is missing or damaged.
        """
        return verify(self.path)

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
        sums = _read_sums(self.path)
        if names[precision] not in sums:
            raise ModelError(f"{self.path / SUMS} does not list {names[precision]}: {_REMEDY}")
        stated = self.card.artefacts[names[precision]].get("sha256")
        if stated is not None and stated != sums[names[precision]]:
            raise ModelError(f"{self.path / names[precision]} is not the model that {CARD} describes: {_REMEDY}")
        return self.path / names[precision]


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
        if not _PLAIN_NAME.fullmatch(name) or name in (CARD, SUMS):
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
        ModelError: the list itself is missing or damaged.
    """
    return [(name, _holds(folder / name, expected)) for name, expected in _read_sums(folder).items()]


def _holds(path: Path, expected: str) -> bool:
    # A FIFO or a device would block or never end.
    return path.is_file() and sha256_of(path) == expected


def _read_sums(folder: Path) -> dict[str, str]:
    """Return name -> checksum, in the order of the file."""
    path = folder / SUMS
    sums: dict[str, str] = {}
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        match = _SUM_LINE.fullmatch(line)
        if not match:
            raise ModelError(f"line {number} of {path} is not a checksum and a name: {_REMEDY}")
        name = PurePosixPath(match[2])
        if name.is_absolute() or ".." in name.parts:
            raise ModelError(f"line {number} of {path} names a file outside the bundle ({match[2]}): {_REMEDY}")
        sums[str(name)] = match[1].lower()
    if CARD not in sums:
        raise ModelError(f"{path} does not list {CARD}: {_REMEDY}")
    return sums


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing, so this is not a whole bundle: {_REMEDY}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read ({error}): {_REMEDY}") from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        ModelError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): {_REMEDY}") from error
    return digest.hexdigest()
