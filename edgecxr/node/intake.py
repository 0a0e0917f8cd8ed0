"""Intake of films that have arrived.

All ways in meet here: C-STORE, STOW-RS and watched folders. Of the header no more is read than names the film.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from edgecxr.films.codestreams.pixel_data import SYNTAXES
from edgecxr.node.audit.audit_events import Audit, Source, Subject
from edgecxr.node.film_queue import FilmQueue, Identity
from edgecxr.node.limits import Limits
from edgecxr.node.receiving.answers import CLASSES
from edgecxr.node.spool import Spool
from edgecxr.node.surroundings import disk_space
from edgecxr.storage.reading import open_file
from edgecxr.terminal import printable

LONGEST_HEADER = 256 << 10
"""Bytes, unpacked if deflated, in which a header must name its film; comments and private elements may come before."""

UID = re.compile(r"[0-9.]{1,64}")

_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_PATIENT, _LONGEST_ID = 0x00100020, 64
_TRANSFER_SYNTAX = 0x00020010
_DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_PART = 1 << 20

_TELLS_OF_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NotTaken(Exception):
    """A film that is not taken into the spool.

    Attributes:
        reason: a key of `REASONS`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return REASONS[self.reason]


REASONS = {
    "no-space": "the disk is nearly full",
    "queue-full": "too many films wait for results",
    "too-large": "the film is too large",
    "disagrees": "the data set is not the film that was announced, or has no usable UIDs",
    "unreadable": "the header cannot be read",
    "class": "it is of no SOP class that is received",
    "syntax": "it has a transfer syntax that is not decoded",
}
"""Why a film is not taken: codes for programs, with the same in words."""


def check_room(spool: Spool, queue: FilmQueue, limits: Limits) -> None:
    """Check that there is room for another film.

    Raises:
        NotTaken: there is not.
        OSError: the disk cannot be asked.
    """
    if disk_space(spool.folder, limits).low:
        raise NotTaken("no-space")
    if queue.waiting() >= limits.queue:
        raise NotTaken("queue-full")


def take(
    spool: Spool,
    building: Path,
    file: IO[bytes],
    source: Source,
    audit: Audit,
    announced: tuple[str, str] | None = None,
    look: Callable[[Identity], None] | None = None,
) -> tuple[int, bool]:
    """Take a whole file of `Spool.incoming` into the spool, on the disk.

    Args:
        spool: the spool.
        building: the file; it is moved, removed if the film is in the spool already, or stays if there is an error.
        file: open for writing, and flushed.
        source: where it comes from.
        audit: gets to know of it.
        announced: SOP class and instance UID that the data set must have; None if nobody has announced any.
        look: called with what the data set says that it is; it may raise NotTaken.

    Returns:
        Its number, and whether it is new.

    Raises:
        NotTaken: it is no film of which results could be filed.
        OSError: it cannot be kept.
        sqlite3.Error: it cannot be kept.
    """
    identity = identify(building)
    if look is not None:
        look(identity)
    stated = (identity.sop_class, identity.uid)
    if announced not in (None, stated):
        raise NotTaken("disagrees")
    if identity.sop_class not in CLASSES:
        raise NotTaken("class")
    if identity.syntax not in SYNTAXES:
        raise NotTaken("syntax")
    if not UID.fullmatch(identity.uid):
        raise NotTaken("disagrees")
    os.fsync(file.fileno())
    number, is_new = FilmQueue(spool).add(building, identity, printable(str(source)), time.time())
    audit.received(Subject(identity.uid, identity.sop_class, identity.study, patient=identity.patient), source, is_new)
    return number, is_new


def identify(path: Path) -> Identity:
    """Return what a file's data set says that it is.

    UIDs that are missing are empty.

    Raises:
        NotTaken: it is no DICOM file, or its header cannot be read.
        OSError: the file cannot be read.
    """
    with open_file(path) as file:
        head = file.read(LONGEST_HEADER)
        try:
            syntax, start = _meta(head)
            uids, patient = _named(head[start:], syntax, cut=len(head) == LONGEST_HEADER)
        except Exception as error:  # pydicom raises nearly anything for a malformed file
            raise NotTaken("unreadable") from error
        digest = hashlib.sha256(syntax.encode() + b"/")
        file.seek(start)
        while part := file.read(_PART):
            digest.update(part)
    return Identity(
        *(uids[_SOP_INSTANCE], uids[_SOP_CLASS], uids[_STUDY], uids[_SERIES]), digest.hexdigest(), patient, syntax
    )


def is_full(error: OSError) -> bool:
    """Return whether an error says that a disk is full."""
    return error.errno in _TELLS_OF_FULL


def _meta(head: bytes) -> tuple[str, int]:
    """Return a file's transfer syntax, and where its data set begins."""
    from pydicom.filereader import data_element_generator

    if head[128:132] != b"DICM":
        raise ValueError("no DICOM file")
    file, syntax = io.BytesIO(head), ""
    file.seek(132)
    for element in data_element_generator(file, False, True, lambda tag, vr, length: tag.group != 2):
        if element.tag == _TRANSFER_SYNTAX and isinstance(element.value, bytes):
            syntax = _text(element.value)
    if not UID.fullmatch(syntax):
        raise ValueError("no transfer syntax")
    return syntax, file.tell()


def _named(data: bytes, syntax: str, cut: bool) -> tuple[dict[int, str], str]:
    """Return the UIDs and the PatientID with which a data set begins.

    Missing ones are empty. `cut` says whether there is more of it than `data`.
    """
    from pydicom.filereader import read_dataset

    if syntax == _DEFLATED:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, LONGEST_HEADER)
        cut = len(data) == LONGEST_HEADER
    beyond = False

    def is_beyond(tag: int, vr: str | None, length: int) -> bool:
        nonlocal beyond
        beyond = tag > _SERIES
        return beyond

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = read_dataset(io.BytesIO(data), syntax == _IMPLICIT, syntax != _BIG_ENDIAN, stop_when=is_beyond)
        if not beyond and cut:
            raise ValueError("a longer header")
        values = {}
        for tag in (_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES):
            value = dataset.get_item(tag).value if tag in dataset else b""
            values[tag] = _text(value) if isinstance(value, bytes) else str(value or "")
        patient = dataset.get_item(_PATIENT).value if _PATIENT in dataset else b""
    if not values[_SOP_INSTANCE]:
        raise ValueError("no SOP instance UID")
    patient_id = patient.decode("latin-1") if isinstance(patient, bytes) else str(patient or "")
    return values, patient_id.strip("\0 ")[:_LONGEST_ID]


def _text(value: bytes) -> str:
    return value.decode("ascii").rstrip("\0 ")
