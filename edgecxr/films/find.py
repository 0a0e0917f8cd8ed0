"""Find the films among the paths that a user gives."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgecxr.films.read import is_dicom
from edgecxr.films.signatures import SUFFIXES, is_picture
from edgecxr.storage.reading import BadFile, open_file

WITHOUT_IMAGE = "DICOM objects without an image"
OWN_RESULTS = "results of edgecxr"

PICTURE_MARK = "edgecxr film"
"""Name of the text in the head of each picture that `infer` draws."""

_OWN_DICOM = re.compile(r"s[rc]-[0-9.]+\.dcm")
_HEAD = 4096  # bytes that hold the mark of a picture, and who made a DICOM object

# What systems and network disks leave in folders, in lower case.
_OF_SYSTEMS = frozenset({
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin"),
    "system volume information",
})  # fmt: skip


@dataclass(frozen=True)
class Search:
    """A search of folders for films.

    Attributes:
        folder_of: a file that was found, not given -> the folder that was given.
        passed_over: kind of what is no film -> how many.
        leave_out: folders of results. Those below the folders given are not searched; in a folder that is given
            itself, results are passed over.
    """

    folder_of: dict[Path, Path] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)
    leave_out: tuple[Path, ...] = ()

    def summary(self) -> str:
        """Return a line about what was passed over, "" if nothing was."""
        listed = ", ".join(f"{kind} ({count})" for kind, count in sorted(self.passed_over.items()))
        return f"passed over in folders: {listed}" if listed else ""


def find_inputs(paths: Iterable[Path], recursive: bool = True, search: Search | None = None) -> list[Path]:
    """Return the files to look at, each once.

    Files are returned unchecked, folders are searched by `films_below`. A path that does not exist and a folder without
    films are kept, so that they appear in the results as rejected.

    Args:
        paths: files and folders.
        recursive: search the subfolders of folders, too.
        search: says what to leave out, and is told what was found where, and what was passed over.
    """
    search = Search() if search is None else search
    inputs: dict[Path, None] = {}
    files = [path for path in paths if not os.path.isdir(path)]
    for path in paths:
        films = films_below(path, recursive, search) if os.path.isdir(path) else []
        search.folder_of.update(dict.fromkeys(films, path))
        inputs.update(dict.fromkeys(films or [path]))
    for path in files:  # what was given is looked at as such, even if it was found, too
        search.folder_of.pop(path, None)
    return list(inputs)


def films_below(folder: Path, recursive: bool, search: Search) -> list[Path]:
    """Return the films in a folder, in sorted order.

    These are files with one of `SUFFIXES`, others whose first bytes are those of DICOM or of an image, and films that
    are lost, since a link leads nowhere. DICOMDIR and what `is_hidden` are none.

    Args:
        folder: the folder.
        recursive: search its subfolders, too.
        search: says what to leave out, and is told what was passed over.
    """
    films: list[Path] = []
    for entry in entries_below(folder, recursive, search):
        if kind := entry.no_film():
            search.passed_over[kind] += 1
        else:
            films.append(entry.path)
    return films


def is_own_result(path: Path) -> bool:
    """Return whether `infer` wrote a file, as a picture or DICOM result."""
    if path.suffix.lower() != ".png" and _OWN_DICOM.fullmatch(path.name) is None:
        return False
    try:
        with open_file(path) as file:
            head = file.read(_HEAD)
    except (OSError, BadFile):
        return False
    return (PICTURE_MARK if path.suffix.lower() == ".png" else "edgecxr").encode() in head


def is_hidden(name: str) -> bool:
    """Return whether a name is that of a hidden file or folder.

    What systems leave in folders, such as `__MACOSX`, counts as hidden.
    """
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def leads_nowhere(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a link to what is not there."""
    return os.path.islink(path) and not os.path.exists(path)


@dataclass(frozen=True)
class Entry:
    """File in a folder, or a folder that cannot be listed.

    Attributes:
        path: of it.
        scanned: the same as the system lists it; None of a folder.
        beside_results: whether results are written into the folder that is searched.
    """

    path: Path
    scanned: os.DirEntry[str] | None = None
    beside_results: bool = False

    def no_film(self) -> str | None:
        """Return why it is passed over.

        None of a film, and of what its reader will report.
        """
        if self.scanned is None:
            return None
        return _no_film(self.path) or (OWN_RESULTS if self.beside_results and is_own_result(self.path) else None)


def entries_below(folder: Path, recursive: bool, search: Search) -> Iterator[Entry]:
    """Yield the files below a folder in sorted order.

    Those of a folder come before those of its subfolders.

    Args:
        folder: the folder.
        recursive: go into its subfolders, too, but not into hidden ones, nor twice into the same.
        search: says what to leave out, and is told what was passed over.
    """
    of_results = set(map(_identity, search.leave_out))
    waiting, identities, beside_results = [folder], of_results - {_identity(folder)}, _identity(folder) in of_results
    while waiting:  # not os.walk: some Pythons recurse for each level
        parent = waiting.pop()
        identity = _identity(parent)
        if identity is not None and identity in identities:  # a link may lead back to a folder above it
            continue
        identities.add(identity)
        try:
            with os.scandir(parent) as scan:  # knows what is a folder without a look at each file
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError:
            yield Entry(parent)  # the reader reports that it cannot be listed
            continue
        folders = {entry.name for entry in entries if _is_folder(entry)}
        for entry in entries:
            if entry.name not in folders:
                yield Entry(Path(parent, entry.name), entry, beside_results)
            elif is_hidden(entry.name):
                search.passed_over["hidden"] += 1
        if recursive:
            below = [Path(parent, name) for name in sorted(folders) if not is_hidden(name)]
            waiting.extend(reversed(below))


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return a folder's device and inode; None without access."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself
        return False


def _no_film(path: Path) -> str | None:
    """Return why a file is passed over; None of a film."""
    if is_hidden(path.name):
        return "hidden"
    if path.name.upper() == "DICOMDIR":
        return "DICOMDIR"
    try:
        if leads_nowhere(path):  # its name alone may tell what is lost; films of an archive often have no ending
            return "dead links" if path.suffix[1:].isalpha() and path.suffix.lower() not in SUFFIXES else None
        # Anything but a regular file may block when it is opened.
        if not path.is_file():
            return "no regular files"
        if path.suffix.lower() in SUFFIXES:
            return None
        with open_file(path) as file:
            head = file.read(512)
    except (OSError, BadFile):
        return None  # the reader reports the error
    return None if is_dicom(head) or is_picture(head) else "other files"


def holds_no_image(path: Path) -> bool:
    """Return whether a DICOM file is of a kind without pixels.

    Such as a report, a presentation state or an encapsulated document: a study's folder holds these beside its films. A
    film whose pixels are lost is none of them.

    Args:
        path: of a file without pixel data.
    """
    from pydicom.uid import UID_dictionary

    from edgecxr.films.elements import read_elements

    about_pixels = ["Rows", "Columns", "BitsAllocated", "PhotometricInterpretation"]
    try:
        dataset, _ = read_elements(path, ["SOPClassUID", *about_pixels])
        sop_class = str(dataset.get("SOPClassUID") or "")
        described = any(keyword in dataset for keyword in about_pixels)
    except Exception:  # a malformed file makes pydicom raise nearly anything
        return False
    name = UID_dictionary.get(sop_class, ("",))[0]
    return bool(sop_class) and not described and "Image Storage" not in name
