"""Copies of the audit trail for a repository, by syslog.

They are those of RFC 5424, over TLS (RFC 5425), as DICOM PS3.15 A.6 has them.

Syslog has no answers, so that nothing tells whether a message was read. A line counts as sent once the other machine
has acknowledged its bytes and the connection still stands a second later; what was sent shortly before a connection
broke is sent again. A repository may therefore get a line twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import ssl
import struct
import termios
import time
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from edgecxr.errors import EdgeCxrError, brief
from edgecxr.node.audit.audit_repository import Repository
from edgecxr.node.audit.audit_trail import FOLDER, HEAD, End, entry_of, file_names, first_line
from edgecxr.node.audit.audit_xml import to_xml
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.node_process import Stop
from edgecxr.node.tls.client_tls import ClientTls
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.reading import BadFile, open_file, read_bytes
from edgecxr.terminal import say

POSITION = "sent"
"""File with the number of the last line that counts as sent."""

LATE = 600.0
"""Seconds without a line that was sent, after which people are told."""

CONNECT = 10.0
"""Seconds for a connection and for each message."""

_PRIORITY = 10 * 8 + 5
"""Facility 10 (security), severity 5 (notice), as PS3.15 A.6 has it."""

_MESSAGE_ID = "DICOM+RFC3881"
_BOM = b"\xef\xbb\xbf"
_LOOK = 1.0  # seconds between two looks for lines
_SETTLED = 1.0  # seconds for which a connection must stand after a line
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
_AT_ONCE = 256 << 10  # bytes of the trail


def syslog_message(entry: dict[str, Any], host: str) -> bytes:
    """Return an entry as a syslog message (RFC 5424) without its frame.

    Args:
        entry: of the audit trail.
        host: name of this machine.
    """
    event = entry.get("EventIdentification")
    moment = event.get("EventDateTime") if isinstance(event, dict) else None
    named = re.sub(r"[^!-~]", "_", host)[:255] or "-"
    head = f"<{_PRIORITY}>1 {moment or '-'} {named} edgecxr {os.getpid()} {_MESSAGE_ID} - "
    return head.encode("ascii", "replace") + _BOM + to_xml(entry).encode()


def framed(message: bytes) -> bytes:
    """Return a message with its length before it (RFC 5425, 4.3)."""
    return str(len(message)).encode() + b" " + message


class AuditSyslog:
    """Sender of the audit trail to a repository.

    Args:
        repository: the repository.
        config: the node's.
    """

    def __init__(self, repository: Repository, config: NodeConfig) -> None:
        self._repository, self._tls = repository, ClientTls(repository, config.tls)
        self._folder = config.folder / FOLDER
        self._socket: ssl.SSLSocket | None = None
        self._sent = self._counted = self._position()
        self._file, self._offset = "", 0  # of the line after those that are sent
        self._last: tuple[int, float] | None = None  # a line that may soon count as sent, and when it was
        self._pause, self._failed = _FIRST_PAUSE, False

    def run(self, stop: Stop) -> None:
        """Send until `stop`."""
        wait = 0.0
        while not stop.wait(wait):
            counted = self._counted
            try:
                wait = 0.0 if self.step() else _LOOK
                if self._counted > counted:
                    if self._failed:
                        say(f"send: the audit trail is sent to {self._repository.place} again")
                    self._pause, self._failed = _FIRST_PAUSE, False
            except Exception as error:  # of the network, the disk, a certificate: this thread must not end
                if not self._failed:
                    say(f"send: the audit trail cannot be sent to {self._repository.place}: {brief(error)}")
                self._forget()
                wait, self._pause, self._failed = self._pause, min(_LONGEST_PAUSE, 2 * self._pause), True
        with contextlib.suppress(OSError, EdgeCxrError):
            self._count()
        self._forget()

    def step(self) -> bool:
        """Send some lines.

        Returns:
            Whether there may be more.

        Raises:
            OSError: the repository cannot be reached, or a file cannot be read or written.
            EdgeCxrError: a certificate or a file cannot be used.
        """
        self._count()
        contents = self._following()
        for content in contents:
            entry = entry_of(content)
            if entry is not None:  # a torn line says nothing
                self._connected().sendall(framed(syslog_message(entry, socket.gethostname())))
            self._offset += len(content) + 1
            self._sent += 1
        return bool(contents)

    def _count(self) -> None:
        """Note what was sent some time ago, if the connection still stands.

        Raises:
            OSError: it does not.
        """
        if self._socket is None:
            return
        self._socket.settimeout(0)
        with contextlib.suppress(ssl.SSLWantReadError):
            if not self._socket.recv(4096):
                raise ConnectionError("it has closed the connection")
        self._socket.settimeout(CONNECT)
        if self._sent == self._counted:
            return
        now = time.monotonic()
        self._last = self._last or (self._sent, now)
        if now - self._last[1] < _SETTLED or _unacknowledged(self._socket):
            return
        atomic_write(self._folder / POSITION, f"{self._last[0]}\n")
        self._counted, self._last = self._last[0], None

    def _position(self) -> int:
        """Return the number of the last line that counts as sent."""
        with contextlib.suppress(OSError, BadFile, ValueError):
            text = read_bytes(self._folder / POSITION, 100).decode("ascii", "replace").strip()
            end = End.of(read_bytes(self._folder / HEAD, 200).decode("ascii", "replace"))
            if end is not None and re.fullmatch("[0-9]{1,18}", text) and int(text) <= end.line:
                return int(text)
        if (self._folder / POSITION).exists():
            say(f"send: {self._folder / POSITION} does not say what was sent: the whole audit trail is sent again")
        return 0

    def _following(self) -> list[bytes]:
        """Return the next lines of the trail; none if there are none."""
        names = file_names(self._folder)
        if not names:
            return []
        if self._file not in names:
            gone = first_line(names[0]) - 1 - self._sent
            if gone > 0:
                say(f"send: {gone} lines of the audit trail were not sent and are gone: send them by hand")
                self._sent += gone
            self._file = max(name for name in names if first_line(name) <= self._sent + 1)
            before = self._sent + 1 - first_line(self._file)
            with open_file(self._folder / self._file) as file:
                self._offset = sum(len(line) for line in islice(file, before))
        with open_file(self._folder / self._file) as file:
            file.seek(self._offset)
            *contents, _ = file.read(_AT_ONCE).split(b"\n")
        if contents or self._file == names[-1]:
            return contents
        self._file, self._offset = names[names.index(self._file) + 1], 0
        return self._following()

    def _connected(self) -> ssl.SSLSocket:
        if self._socket is None:
            to, context = self._repository, self._tls.context()
            plain = socket.create_connection((to.host, to.port), timeout=CONNECT)
            try:
                self._socket = context.wrap_socket(plain, server_hostname=to.tls_name or to.host)
            except BaseException:
                plain.close()
                raise
        return self._socket

    def _forget(self) -> None:
        """End the connection; what does not count as sent is sent again."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
        self._socket, self._last, self._sent, self._file = None, None, self._counted, ""


def is_behind(state: Path) -> bool:
    """Return whether lines wait for long, or nobody can tell.

    Args:
        state: folder of the node's state.
    """
    folder = state / FOLDER
    try:
        position = folder / POSITION
        sent, changed = (read_bytes(position, 100), position.stat().st_mtime) if position.exists() else (b"0", 0.0)
        end = End.of(read_bytes(folder / HEAD, 200).decode("ascii", "replace"))
        if end is None or int(sent) >= end.line or time.time() - changed <= LATE:
            return False
        return time.time() - _written(folder, int(sent) + 1) > LATE
    except FileNotFoundError:
        return False  # there is no trail yet
    except (OSError, BadFile, ValueError):
        return True


def _written(folder: Path, number: int) -> float:
    """Return when a line was written, seconds since the epoch.

    It is 0 if nothing says so.
    """
    name = max((name for name in file_names(folder) if first_line(name) <= number), default=None)
    if name is None:
        return 0.0
    with open_file(folder / name) as file:
        entry = entry_of(next(islice(file, number - first_line(name), None), b"").rstrip(b"\n"))
    event = entry.get("EventIdentification") if entry else None
    try:
        return datetime.fromisoformat(str(event.get("EventDateTime"))).timestamp() if isinstance(event, dict) else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0


def _unacknowledged(connection: socket.socket) -> int:
    """Return how many bytes the other machine has not acknowledged (tcp(7), SIOCOUTQ)."""
    return int(struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0])
