"""What a pynetdicom listener needs before it can face a network.

As it comes, pynetdicom 3.0 reads a PDU of any length into memory, waits for the rest of a PDU for ever, and lets idle
connections hold off others. This module touches names of it that are private or not documented: the extra `node` bounds
its minor version, and the attacks are tests.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pynetdicom import dimse_messages, evt
from pynetdicom.transport import ThreadedAssociationServer

from edgecxr.errors import brief
from edgecxr.node.bounded_socket import BoundedSocket
from edgecxr.node.limits import Limits
from edgecxr.node.receiving.throttle import Throttle
from edgecxr.node.tls.certificates import Renewed
from edgecxr.terminal import say

_ACCEPTING = 5.0


class Incoming:
    """A data set that is being received.

    It takes the place of pynetdicom's temporary file.
    An error of the disk is kept until the data set is whole, so that it can be answered.

    Attributes:
        path: of the file; None if there is no room for one.
        error: the first error of the disk, or None.
    """

    def __init__(self, path: Path | None, file: IO[bytes], error: OSError | None = None) -> None:
        self.path, self.raw, self.error = path, file, error
        self.name = str(path or "")
        self.file = self  # pynetdicom flushes `.file`

    def write(self, data: bytes) -> int:
        """Write bytes; an error is only kept."""
        if self.error is None:
            try:
                self.raw.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Do nothing; `finish` flushes."""

    def tell(self) -> int:
        """Return the number of bytes so far."""
        return self.raw.tell()

    def finish(self) -> None:
        """Flush the file.

        Raises:
            OSError: something could not be written.
        """
        if self.error is not None:
            raise self.error
        self.raw.flush()

    def close(self) -> None:
        """Close the file, and remove it unless it was moved."""
        with contextlib.suppress(OSError):
            self.raw.close()
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


class IncomingFiles:
    """Maker of the files of data sets that are being received.

    Args:
        new_file: makes a file and opens it.
    """

    def __init__(self, new_file: Callable[[], tuple[Path, IO[bytes]]]) -> None:
        self._new_file = new_file
        self._open: list[tuple[Incoming, threading.Thread]] = []
        self._lock = threading.Lock()
        setattr(dimse_messages, "NamedTemporaryFile", self._made)  # noqa: B010

    def _made(self, **_: Any) -> Incoming:
        try:
            incoming = Incoming(*self._new_file())
        except OSError as error:
            incoming = Incoming(None, io.BytesIO(), error)
        with self._lock:
            self._open.append((incoming, threading.current_thread()))
        return incoming

    def finished(self, incoming: Incoming) -> None:
        """Note that the caller closes a file."""
        with self._lock:
            self._open = [entry for entry in self._open if entry[0] is not incoming]

    def remove_abandoned(self) -> None:
        """Remove files of associations that have ended."""
        with self._lock:
            abandoned = [incoming for incoming, thread in self._open if not thread.is_alive()]
            self._open = [entry for entry in self._open if entry[1].is_alive()]
        for incoming in abandoned:
            incoming.close()


@dataclass
class _Connection:
    address: str
    accepting: float
    began: float = field(default_factory=time.monotonic)
    association: Any = None

    @property
    def waits(self) -> bool:
        """Whether it has not asked for an association yet."""
        return self.association is None or self.association.requestor.primitive is None

    @property
    def ended(self) -> bool:
        """Whether nothing reads it any more."""
        if self.association is None or self.association.dul.ident is None:
            return time.monotonic() - self.began > self.accepting
        return not self.association.dul.is_alive()


class GuardedServer(ThreadedAssociationServer):
    """A server whose connections are counted and bounded.

    Args:
        arguments: those of pynetdicom's server.
        limits: the bounds.
        each_second: called now and then, between connections.
        tls: for connections by TLS; None for plain ones.
        options: those of pynetdicom's server.

    Attributes:
        refused: cause -> number of connections that were closed at once.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        *arguments: Any,
        limits: Limits,
        each_second: Callable[[], None],
        tls: Renewed | None = None,
        **options: Any,
    ) -> None:
        self._limits, self._each_second, self._tls = limits, each_second, tls
        self._throttle = Throttle()
        self._connections: dict[socket.socket, _Connection] = {}
        self._counting = threading.Lock()
        self.refused: Counter[str] = Counter()
        super().__init__(*arguments, **options)
        self.bind(evt.EVT_CONN_OPEN, self._opened)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether there is room for a connection from this address.

        If there is none at all, the oldest one that has not asked for an association is closed.
        """
        address = str(client_address[0])
        with self._counting:
            self._prune()
            counts = Counter(connection.address for connection in self._connections.values())
            if counts[address] >= 2 * self._limits.associations_per_address:
                self.refused["address"] += 1
                return False
            if len(self._connections) >= self._limits.connections:
                idle = [(each.began, key) for key, each in self._connections.items() if each.waits]
                if not idle:
                    self.refused["connections"] += 1
                    return False
                self._close(min(idle, key=lambda entry: entry[0])[1])
                self.refused["idle"] += 1
            self._connections[request] = _Connection(address, _ACCEPTING + self._limits.handshake_seconds)
        return True

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Begin an association, in the connection's own thread."""
        if self._tls is not None:
            request = self._by_tls(request, str(client_address[0]))
        if request is not None:
            super().finish_request(request, client_address)

    def _by_tls(self, request: Any, address: str) -> ssl.SSLSocket | None:
        """Return a connection after its handshake; None if there is none."""
        assert self._tls is not None
        context = self._tls.context()
        request.settimeout(self._limits.handshake_seconds)  # of the whole handshake
        with self._counting:
            connection = self._connections.pop(request, None)
            if connection is None:
                return None
            secured = context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            self._connections[secured] = connection
        try:
            secured.do_handshake()
            return secured
        except (OSError, ValueError) as error:  # a ValueError if it was closed meanwhile
            with self._counting:
                self.refused["tls"] += 1
                if self._throttle.allows(address):
                    say(f"receive: no TLS with {address}: {brief(error)}")
                if secured in self._connections:
                    self._close(secured)
            secured.close()
            return None

    def is_one_too_many(self, address: str) -> bool:
        """Return whether an address's new association is beyond the limits."""
        with self._counting:
            self._prune()
            counts = Counter(each.address for each in self._connections.values() if not each.waits)
        return (
            sum(counts.values()) > self._limits.associations or counts[address] > self._limits.associations_per_address
        )

    def service_actions(self) -> None:
        """Remove what ended connections have left."""
        super().service_actions()
        with self._counting:
            self._prune()
        self._each_second()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: what a stranger's connection raises is no news."""

    def _opened(self, event: Any) -> None:
        BoundedSocket(event.assoc, self._limits)
        with self._counting:
            connection = self._connections.get(event.assoc.dul.socket.socket)
            if connection is not None:
                connection.association = event.assoc

    def _prune(self) -> None:
        for request in [request for request, each in self._connections.items() if each.ended]:
            self._close(request)

    def _close(self, request: socket.socket) -> None:
        connection = self._connections.pop(request)
        if connection.association is not None and connection.waits:
            # Else its other thread would wait for the request until its time is up; many of these add up.
            connection.association.dul.to_user_queue.put(None)
        with contextlib.suppress(OSError):
            # Not that of TLS, after which a thread that reads would go on without TLS.
            socket.socket.shutdown(request, socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            request.close()
