"""Films in a multipart body, taken one by one.

Nothing of a film is kept in memory but the block that is being written.
"""

from __future__ import annotations

import contextlib
import email.message
import logging
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from edgecxr.errors import brief
from edgecxr.node import intake
from edgecxr.node.audit.audit_events import Audit, Source
from edgecxr.node.film_queue import FilmQueue, Identity
from edgecxr.node.intake import NotTaken
from edgecxr.node.limits import Limits
from edgecxr.node.receiving.answers import FAILED, STATUSES, BadRequest
from edgecxr.node.spool import Spool
from edgecxr.terminal import say

MOST_FILMS = 1000
"""Greatest number of films in a request."""

DICOM = "application/dicom"

_PREAMBLE = 128
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046, 5.1.1

logging.getLogger("python_multipart").setLevel(logging.CRITICAL + 1)  # it quotes what strangers send


@dataclass
class Outcome:
    """What became of a film.

    Attributes:
        sop_class: UID; "" if it is not known.
        uid: SOP instance UID; "" if it is not known.
        status: 0, or a failure of `edgecxr.node.receiving.answers`.
    """

    sop_class: str = ""
    uid: str = ""
    status: int = 0


def boundary_of(content_type: str) -> str:
    """Return the boundary of a request's body.

    Args:
        content_type: the header.

    Raises:
        BadRequest: it is no multipart body of DICOM files.
    """
    stated = _parsed(content_type)
    if stated.get_content_type() != "multipart/related":
        raise BadRequest("the content is not multipart/related", 415)
    kind = stated.get_param("type", DICOM)
    if not isinstance(kind, str) or kind.lower() != DICOM:
        raise BadRequest(f"the parts are not of the type {DICOM}", 415)
    boundary = stated.get_boundary("")
    if not _BOUNDARY.fullmatch(boundary):
        raise BadRequest("the content has no usable boundary")
    return boundary


class FilmParts:
    """The films of a request.

    Args:
        boundary: between the parts of its body.
        spool: takes them.
        limits: the bounds.
        source: where they come from.
        audit: gets to know of them.
        study: study that they must belong to; None is any.

    Attributes:
        outcomes: of the films so far.
        begun: number of films of which something has come.
    """

    def __init__(
        self,
        boundary: str,
        spool: Spool,
        limits: Limits,
        source: Source,
        audit: Audit,
        study: str | None,
    ) -> None:
        self._audit = audit
        self._spool, self._queue, self._limits, self._source = spool, FilmQueue(spool), limits, source
        self._study = study
        self._headers: dict[str, str] = {}
        self._name, self._value = bytearray(), bytearray()
        self._path: Path | None = None
        self._file: IO[bytes] | None = None
        self._size = 0
        self._ended = False
        self.outcomes: list[Outcome] = []
        self.begun = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._has_data,
                "on_part_end": self._part_ends,
                "on_end": self._body_ends,
            },
        )

    def feed(self, block: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            BadRequest: it is no such body, a film is too large, or there is no room for one.
        """
        try:
            self._parser.write(block)
        except FormParserError as error:
            raise BadRequest("the body is no such multipart content") from error

    def check_end(self) -> None:
        """Raise if what has come is no whole body.

        Raises:
            BadRequest: it is none.
        """
        if not self._ended or not self.outcomes:
            raise BadRequest("the body has no films, or ends within one")

    def discard(self) -> None:
        """Remove the file of a film that has not come whole."""
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.close()
        with contextlib.suppress(OSError):
            if self._path is not None:
                self._path.unlink(missing_ok=True)
        self._path = self._file = None

    def _part_begins(self) -> None:
        self._headers.clear()
        self.begun += 1
        if len(self.outcomes) >= MOST_FILMS:
            raise BadRequest(f"more than {MOST_FILMS} films", 413)

    def _header_ends(self) -> None:
        self._headers[self._name.decode("latin-1").strip().lower()] = self._value.decode("latin-1").strip()
        self._name.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        kind = _parsed(self._headers.get("content-type", DICOM)).get_content_type()
        coding = self._headers.get("content-transfer-encoding", "binary").lower()
        if kind != DICOM or coding not in ("binary", "8bit", "7bit"):
            raise BadRequest(f"a part is not of the type {DICOM}", 415)
        try:
            intake.check_room(self._spool, self._queue, self._limits)
            self._path, self._file = self._spool.new_file()
        except NotTaken as error:
            raise BadRequest(str(error), 503) from error
        except (OSError, sqlite3.Error) as error:
            raise self._no_room(error) from error
        self._size = 0

    def _has_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > self._limits.film_mib << 20:
            raise BadRequest(intake.REASONS["too-large"], 413)
        assert self._file is not None
        try:
            self._file.write(data[start:end])
        except OSError as error:
            raise self._no_room(error) from error

    def _part_ends(self) -> None:
        outcome = Outcome()
        self.outcomes.append(outcome)

        def look(identity: Identity) -> None:
            if intake.UID.fullmatch(identity.sop_class) and intake.UID.fullmatch(identity.uid):
                outcome.sop_class, outcome.uid = identity.sop_class, identity.uid
            if self._study not in (None, identity.study):
                raise NotTaken("disagrees")

        try:
            assert self._path is not None and self._file is not None
            if self._size > _PREAMBLE:  # it may hold anything, a program for instance
                self._file.seek(0)
                self._file.write(bytes(_PREAMBLE))
            self._file.flush()
            number, new = intake.take(self._spool, self._path, self._file, self._source, self._audit, look=look)
            say(f"stow: film {number} from {self._source}{'' if new else ', which was there already'}")
        except NotTaken as error:
            outcome.status = STATUSES[error.reason]
            say(f"stow: no film from {self._source}: {error}")
        except OSError as error:
            if intake.is_full(error):
                raise self._no_room(error) from error
            outcome.status = FAILED
            say(f"stow: no film from {self._source}: {brief(error)}")
        except Exception as error:  # of the database
            outcome.status = FAILED
            say(f"stow: no film from {self._source}: {type(error).__name__}, {brief(error)}")
        finally:
            self.discard()

    def _body_ends(self) -> None:
        self._ended = True

    def _no_room(self, error: OSError | sqlite3.Error) -> BadRequest:
        say(f"stow: no film from {self._source}: {brief(error)}")
        full = isinstance(error, OSError) and intake.is_full(error)
        return BadRequest(intake.REASONS["no-space"] if full else "the disk fails", 503)


def _parsed(content_type: str) -> email.message.Message:
    message = email.message.Message()
    message["Content-Type"] = "".join(character if character.isprintable() else "?" for character in content_type)
    return message
