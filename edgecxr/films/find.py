"""The films among the paths that a user gives."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

SUFFIXES = frozenset({".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
"""Endings that a folder's files are taken by; other files are taken if their first bytes are those of such a format."""

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*")


def find_inputs(paths: Iterable[Path], recursive: bool = True) -> list[Path]:
    """Return the files to look at, each once.

    Files are taken as they are. Folders are searched with their subfolders, in sorted order, for `SUFFIXES` and for
    files whose first bytes are those of DICOM, PNG, JPEG or TIFF; hidden ones and DICOMDIR are left out. A path that
    does not exist and a folder without films are kept, so that they show up among the results as rejected.

    Args:
        paths: files and folders.
        recursive: look into the subfolders of folders, too.
    """
    found: dict[Path, None] = {}
    for path in paths:
        films = _films_below(path, recursive) if os.path.isdir(path) else [path]
        found.update(dict.fromkeys(films or [path]))
    return list(found)


def _films_below(folder: Path, recursive: bool) -> list[Path]:
    films: list[Path] = []
    # A subfolder that cannot be listed is kept, to be reported.
    for parent, folders, names in os.walk(folder, onerror=lambda error: films.append(Path(error.filename))):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        films.extend(path for name in sorted(names) if _is_film(path := Path(parent, name)))
    return films


def _is_film(path: Path) -> bool:
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return False
    try:
        # Anything but a regular file may block when it is opened.
        if not path.is_file():
            return False
        if path.suffix.lower() in SUFFIXES:
            return True
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return True  # reported when it is read
    return head[128:] == b"DICM" or head.startswith(_SIGNATURES)
