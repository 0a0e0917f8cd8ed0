"""The file format of the audit trail.

It is a folder of files of lines, in JSON. A line has its number and the SHA-256 of the line before, also across files,
whose names are the numbers of their first lines. The file `head` has number and SHA-256 of the last line; it is the
lock of all writers, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecxr.storage.atomic import sync_folder
from edgecxr.storage.json_values import parse_json
from edgecxr.storage.locks import open_locked
from edgecxr.storage.private import own_folder
from edgecxr.storage.reading import BadFile, open_file, read_bytes, size_of

FOLDER, HEAD = "audit", "head"

LARGEST_FILE = 16 << 20
"""Bytes after which another file begins."""

LONGEST_LINE = 16 << 10
"""Bytes of a line, at most."""

NOTHING = "0" * 64
"""What stands in the first line for the one before."""

_NAME = re.compile(r"audit-(\d{10})\.jsonl")
_REMEDY = "name another folder with `state`"


Entry = Mapping[str, Any]
Notice = Callable[[str, bool], Entry]
"""Makes an entry of the trail about itself: what is amiss with its end, and whether lines are missing or exchanged."""


@dataclass(frozen=True)
class End:
    """The end of a chain.

    Attributes:
        line: number of its last line; 0 if there is none.
        sha256: of that line without its line break, in hexadecimal digits.
    """

    line: int = 0
    sha256: str = NOTHING

    def after(self, content: bytes) -> End:
        """Return the end once a line follows.

        A torn line does not say what was before it, so its hash covers that as well.
        """
        before = b"" if entry_of(content) else self.sha256.encode()
        return End(self.line + 1, hashlib.sha256(before + content).hexdigest())

    def __str__(self) -> str:
        return f"{self.line}:{self.sha256}"

    @classmethod
    def of(cls, text: str) -> End | None:
        """Return the end that a text names; None if it names none."""
        match = re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", text.strip())
        return cls(int(match[1]), match[2]) if match else None


class AuditTrail:
    """The audit trail of a node; any process and thread may append.

    Args:
        folder: of the node's state.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER

    def append(self, entry: Entry, notice: Notice) -> str:
        """Append a line, on the disk, whole or not at all.

        Args:
            entry: what it says; `line` and `previous` are put before.
            notice: makes the line about what is amiss with the end of the trail.

        Returns:
            What was amiss, in words; "" if nothing was.

        Raises:
            OSError: it cannot be written.
            UsageError: the folder may be another user's.
        """
        own_folder(self.folder, _REMEDY)
        with open_locked(self.folder / HEAD) as head:
            text = head.read(200).decode("ascii", "replace")
            place = _place(self.folder, End.of(text))
            content, end, amiss = b"", place.end, place.broken
            if place.torn:  # what a kill or a power cut has left of a line is closed, and counts as one
                content, end = b"\n", end.after(place.torn)
                amiss = amiss or f"line {end.line} is torn"
            if amiss:
                content, end = _added(content, end, notice(amiss, bool(place.broken)))
            content, end = _added(content, end, entry)
            _append(self.folder / place.name, content)
            os.pwrite(head.fileno(), f"{end}\n".encode().ljust(len(text)), 0)
            if not text:
                os.fchmod(head.fileno(), 0o600)
                os.fsync(head.fileno())
        return amiss


def file_names(folder: Path) -> list[str]:
    """Return the names of a trail's files, in order."""
    try:
        return sorted(name for name in os.listdir(folder) if _NAME.fullmatch(name))  # noqa: PTH208
    except FileNotFoundError:
        return []


def first_line(name: str) -> int:
    """Return the number of the first line of a file."""
    match = _NAME.fullmatch(name)
    assert match is not None
    return int(match[1])


def entry_of(content: bytes) -> dict[str, Any] | None:
    """Return what a line says; None if it is no whole line."""
    try:
        entry = parse_json(content)
    except BadFile:
        return None
    return entry if isinstance(entry, dict) and entry else None


@dataclass(frozen=True)
class _Place:
    """Where a trail goes on: file, end, torn line, break."""

    name: str
    end: End
    torn: bytes = b""
    broken: str = ""


def _place(folder: Path, head: End | None) -> _Place:
    files = file_names(folder)
    if not files:
        end = head or End()
        return _Place(_name(end.line + 1), end, broken="its files are gone" if end.line else "")
    path = folder / files[-1]
    with open_file(path) as file:
        size = size_of(file)
        file.seek(max(0, size - 2 * LONGEST_LINE))
        *_, last, rest = (b"\n" + file.read()).rsplit(b"\n", 2)
    if head is None or rest or head.sha256 != hashlib.sha256(last).hexdigest():
        return _recovered(path, head)
    return _Place(_name(head.line + 1) if size >= LARGEST_FILE else files[-1], head)


def _recovered(path: Path, head: End | None) -> _Place:
    """Return where a trail goes on whose head is wrong.

    That is so after a kill between the two, and after a power cut: what continues the chain after the line that the
    head names is part of it.
    """
    *whole, rest = read_bytes(path, 4 * LARGEST_FILE).split(b"\n")
    begin = entry_of(whole[0]) if whole else None
    before = str(begin.get("previous")) if begin else head.sha256 if head else NOTHING
    ends = [End(first_line(path.name) - 1, before)]
    chained = True
    for content in whole:
        entry = entry_of(content)
        chained = chained and (entry is None or entry.get("previous") == ends[-1].sha256)
        ends.append(ends[-1].after(content))
    if chained and (head in ends or (head is None and ends[-1].line <= 1)):
        return _Place(path.name, ends[-1], rest)
    if head is None:
        return _Place(path.name, ends[-1], rest, "its head is gone: lines may be missing before this one")
    return _Place(path.name, head, rest, f"it does not end with line {head.line} as it was")


def _name(line: int) -> str:
    return f"audit-{line:010d}.jsonl"


def _added(content: bytes, end: End, entry: Entry) -> tuple[bytes, End]:
    line = json.dumps({"line": end.line + 1, "previous": end.sha256, **entry}, separators=(",", ":")).encode()
    if len(line) > LONGEST_LINE:
        raise ValueError(f"a line of {len(line)} bytes")
    return content + line + b"\n", end.after(line)


def _append(path: Path, content: bytes) -> None:
    """Append to a file, on the disk, whole or not at all."""
    is_new = not os.path.exists(path)
    with open_locked(path) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            written = 0
            while written < len(content):
                written += os.pwrite(file.fileno(), content[written:], end + written)
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                os.ftruncate(file.fileno(), end)
            raise
        if is_new:
            os.fchmod(file.fileno(), 0o600)
            sync_folder(path.parent)
