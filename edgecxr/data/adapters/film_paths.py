"""Paths of films as tables spell them."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from pathlib import Path, PureWindowsPath

from edgecxr.data.adapters.checks import outside
from edgecxr.data.tables.table import visible


class FilmPaths:
    r"""Finds the film that a table means below a folder.

    A path may be relative to the folder or to the table, have \ for /, or differ in case, in characters that nobody
    sees or in how accents are written, as long as one file fits.

    Attributes:
        respelt: number of films found under a name of another spelling.
        example: the first of them, as the table writes it.
    """

    def __init__(self, root: Path, table: Path) -> None:
        self.respelt, self.example = 0, ""
        self._root, self._places = root, (root, table.parent)
        self._names: dict[Path, dict[str, list[str]]] = {}

    def path(self, cell: str) -> tuple[str, str]:
        """Return the path of a film, and a problem with it.

        The problem is "", or why the film does not belong to the folder.
        """
        spellings = dict.fromkeys((cell, cell.replace("\\", "/")))
        tried = [os.path.normpath(place / spelling) for spelling in spellings for place in self._places]
        problems = [outside(self._root, path) for path in tried]
        inside = [path for path, problem in zip(tried, problems, strict=True) if not problem]
        if not inside:
            return tried[0], problems[0]
        for path in inside:
            if os.path.lexists(path):
                return path, ""
        for path in inside:
            other = self._on_disk(path)
            if other and not outside(self._root, other):
                self.respelt += 1
                self.example = self.example or cell
                return other, ""
        if _leads_out_on_windows(cell):
            return inside[0], f"is a path of Windows that leads out of {self._root} (write it relative to that)"
        return inside[0], ""

    def _on_disk(self, path: str) -> str | None:
        """Return the existing path that differs only in spelling, if any."""
        result = Path(os.path.normpath(self._root))
        for name in Path(path).relative_to(result).parts:
            names = [name] if os.path.lexists(result / name) else self._alike(result, name)
            if len(names) != 1:
                return None
            result /= names[0]
        return str(result)

    def _alike(self, folder: Path, name: str) -> list[str]:
        if folder not in self._names:
            self._names[folder] = {}
            with contextlib.suppress(OSError):  # no folder, or one that cannot be listed
                for entry in sorted(folder.iterdir()):
                    self._names[folder].setdefault(_plain(entry.name), []).append(entry.name)
        return self._names[folder].get(_plain(name), [])


def _leads_out_on_windows(cell: str) -> bool:
    path = PureWindowsPath(cell)
    return bool(path.drive) or ("\\" in cell and (bool(path.root) or os.pardir in path.parts))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", visible(name)).casefold()
