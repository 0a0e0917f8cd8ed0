"""Connections of an HTTP listener, bounded in number, time and bytes."""

from __future__ import annotations

import contextlib
import io
import socket
import socketserver
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from edgecxr.node.limits import Limits
from edgecxr.node.tls.certificates import Renewed

_LONGEST_READ = 5.0  # seconds after which a deadline is looked at again
_LINGER, _LINGER_BYTES = 2.0, 1 << 20
_LONGEST_LINE = 1024
_LARGEST_HEADER = 1 << 17


class BadRequest(Exception):
    """A request that breaks HTTP or its own content type.

    Attributes:
        status: of the answer.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class BoundedReader(io.RawIOBase):
    """What a client sends, until a deadline.

    Args:
        connection: of the client.
        limits: the bounds.

    Attributes:
        until: moment of `time.monotonic` at which reading fails.
        left: number of bytes after which reading fails; None if there is none.
    """

    def __init__(self, connection: socket.socket, limits: Limits) -> None:
        self._connection, self._limits = connection, limits
        self.until = time.monotonic() + limits.first_seconds
        self.left: int | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what there is, at least a byte; 0 at the end.

        Raises:
            TimeoutError: nothing came for too long, or the deadline is over.
            OSError: the connection is broken, or too much has come.
        """
        if self.left is not None:
            if self.left <= 0:
                raise OSError("it is larger than the limits allow")
            buffer = memoryview(buffer)[: self.left]
        until = min(self.until, time.monotonic() + self._limits.idle_seconds)
        while (left := until - time.monotonic()) > 0:
            self._connection.settimeout(min(left, _LONGEST_READ))
            try:
                count = self._connection.recv_into(buffer)
                if self.left is not None:
                    self.left -= count
                return count
            except TimeoutError:
                continue
            finally:
                self._connection.settimeout(self._limits.idle_seconds)  # for sending
        raise TimeoutError("it takes longer than the limits allow")


class BoundedHandler(BaseHTTPRequestHandler):
    """A handler of HTTP/1.1 requests whose reading is bounded.

    Subclasses have `limits` and methods such as `do_POST`.
    """

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "edgecxr", ""
    limits: Limits
    reader: BoundedReader

    def setup(self) -> None:
        """Bound the connection."""
        self.connection = self.request
        self.reader = BoundedReader(self.connection, self.limits)
        self.rfile = io.BufferedReader(self.reader, 1 << 16)
        self.wfile = self.connection.makefile("wb")

    def handle_one_request(self) -> None:
        """Answer a request, the header of which must come soon."""
        self.reader.until, self.reader.left = time.monotonic() + self.limits.first_seconds, _LARGEST_HEADER
        try:
            super().handle_one_request()
        except (OSError, ValueError):  # the client is gone
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Do nothing: what strangers send is no news."""

    def handle_expect_100(self) -> bool:
        """Leave the answer to `go_on`, once the header has been looked at."""
        return True

    def go_on(self) -> None:
        """Ask a client that waits to send the body."""
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
            self.wfile.flush()

    def body(self) -> Callable[[int], bytes]:
        """Return a function that reads the body.

        It takes the greatest number of bytes, and returns none at the end.

        Raises:
            BadRequest: its length is not stated well.
        """
        self.reader.left = None
        lengths, codings = self.headers.get_all("Content-Length", []), self.headers.get_all("Transfer-Encoding", [])
        if codings:
            if lengths or len(codings) > 1:
                raise BadRequest("the length is stated twice")
            if codings[0].strip().lower() != "chunked":
                raise BadRequest("no transfer coding but chunked is known", 501)
            return _Chunks(self.rfile).read
        if not lengths:
            raise BadRequest("neither Content-Length nor chunks", 411)
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()) or len(lengths[0]) > 15:
            raise BadRequest("Content-Length is no number")
        return _Counted(self.rfile, int(lengths[0])).read

    def answer(self, status: int, content: bytes, kind: str, headers: dict[str, str], close: bool) -> None:
        """Send an answer.

        Args:
            status: the status code.
            content: the body.
            kind: its media type.
            headers: further ones.
            close: whether the connection is closed, because not all of the request was read.
        """
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        if close:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
        if close:
            self._linger()

    def _linger(self) -> None:
        """Read on for a moment.

        Closing at once would take the answer from the client.
        """
        self.reader.until, self.reader.left = time.monotonic() + _LINGER, None
        with contextlib.suppress(OSError, ValueError):
            if not isinstance(self.connection, ssl.SSLSocket):
                self.connection.shutdown(socket.SHUT_WR)
            left = _LINGER_BYTES
            while left > 0 and (part := self.rfile.read1(1 << 16)):
                left -= len(part)


class _Counted:
    """A body of a stated length."""

    def __init__(self, file: Any, length: int) -> None:
        self._file, self._left = file, length

    def read(self, count: int) -> bytes:
        part: bytes = self._file.read1(min(count, self._left)) if self._left else b""
        if self._left and not part:
            raise BadRequest("the body ends before its length")
        self._left -= len(part)
        return part


class _Chunks:
    """A body in chunks (RFC 9112, 7.1)."""

    def __init__(self, file: Any) -> None:
        self._file, self._left, self._ended = file, 0, False

    def read(self, count: int) -> bytes:
        if self._ended:
            return b""
        if not self._left:
            size = self._line().partition(b";")[0].strip()
            if not size or len(size) > 12 or size.strip(b"0123456789abcdefABCDEF"):
                raise BadRequest("the size of a chunk is no number")
            self._left = int(size, 16)
            if not self._left:
                self._ended = True
                if self._line():
                    raise BadRequest("trailers are not taken")
                return b""
        part: bytes = self._file.read1(min(count, self._left))
        if not part:
            raise BadRequest("the body ends before its length")
        self._left -= len(part)
        if not self._left and self._line():
            raise BadRequest("a chunk is longer than its size")
        return part

    def _line(self) -> bytes:
        line: bytes = self._file.readline(_LONGEST_LINE)
        if not line.endswith(b"\r\n"):
            raise BadRequest("a line of a chunk does not end")
        return line[:-2]


class BoundedListener(socketserver.ThreadingTCPServer):
    """A TCP listener whose connections are counted.

    TLS is agreed in their own threads.

    Args:
        address: IP address and port.
        handler: of connections.
        limits: the bounds.
        tls: for connections by TLS; None for plain ones.
        each_second: called now and then, between connections.

    Attributes:
        refused: cause -> number of connections that were closed at once.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BoundedHandler],
        limits: Limits,
        tls: Renewed | None,
        each_second: Callable[[], None],
    ) -> None:
        self._limits, self._tls, self._each_second = limits, tls, each_second
        self._open: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._counting = threading.Lock()
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether there is room for a connection from this address."""
        address = str(client_address[0])
        with self._counting:
            if self._open[address] >= self._limits.http_per_address:
                self.refused["address"] += 1
                return False
            if self._open.total() >= self._limits.http_connections:
                self.refused["connections"] += 1
                return False
            self._open[address] += 1
            return True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer the requests of a connection, in its own thread."""
        try:
            with contextlib.suppress(OSError, ValueError), self._secured(request) as connection:
                self.finish_request(connection, client_address)
        finally:
            self.shutdown_request(request)
            address = str(client_address[0])
            with self._counting:
                self._open[address] -= 1
                if not self._open[address]:
                    del self._open[address]

    def service_actions(self) -> None:
        """Do what is due each second."""
        self._each_second()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: what a stranger's connection raises is no news."""

    def _secured(self, request: socket.socket) -> socket.socket:
        """Return a connection after its handshake.

        Raises:
            OSError: it fails, or takes too long.
        """
        if self._tls is None:
            return request
        request.settimeout(self._limits.handshake_seconds)  # of the whole handshake
        secured = self._tls.context().wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        try:
            secured.do_handshake()
        except BaseException:
            with self._counting:
                self.refused["tls"] += 1
            secured.close()
            raise
        return secured
