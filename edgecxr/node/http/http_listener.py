"""HTTP on a socket; connections are counted from their first byte.

uvicorn's own server counts a connection only after its TLS handshake, so the socket is served here; a connection is
uvicorn's.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from edgecxr.node.http.bounded_connection import BoundedConnection, Bounds
from edgecxr.node.node_process import Stop
from edgecxr.node.tls.certificates import Renewed

_LOOK, _SECOND = 0.2, 1.0  # seconds after which it is looked whether to stop, and at what is due
_GRACE = 5.0  # seconds in which answers that have begun may end
_PASSING = (errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EPROTO, errno.EPERM)


class HttpListener:
    """The connections of an application (ASGI 3).

    Args:
        application: answers requests.
        bounds: for the clients.
        certificates: for TLS; None for plain HTTP.
        each_second: called about once a second, in another thread than the connections.

    Attributes:
        refused: cause -> number of connections that were closed before they asked for anything: "connections" and
            "address" are bounds, "tls" is a handshake that failed.
    """

    def __init__(
        self,
        application: Any,
        bounds: Bounds,
        certificates: Renewed | None,
        each_second: Callable[[], None],
    ) -> None:
        for name in ("uvicorn.error", "uvicorn.access", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # they would print text of strangers
        self._bounds, self._certificates, self._each_second = bounds, certificates, each_second
        self._open: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._state = ServerState()
        self._config = uvicorn.Config(
            application,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=bounds.request_seconds,  # type: ignore[arg-type]  # asyncio takes parts of seconds
            h11_max_incomplete_event_size=bounds.header_bytes,
        )
        self._config.load()

    def run(self, sock: socket.socket, stop: Stop) -> None:
        """Answer until the process is to stop, and end what has begun.

        Args:
            sock: listens already.
            stop: of the process.

        Raises:
            OSError: the socket fails.
        """
        asyncio.run(self._serve(sock, stop))

    async def _serve(self, sock: socket.socket, stop: Stop) -> None:
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        accepting, due = loop.create_task(self._accept(sock)), loop.time()
        try:
            while not stop.requested:
                if loop.time() >= due:
                    due = loop.time() + _SECOND
                    self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
                    await loop.run_in_executor(None, self._look)
                await asyncio.wait([accepting], timeout=_LOOK)
                if accepting.done():
                    accepting.result()
        finally:
            accepting.cancel()
            await self._end()

    def _look(self) -> None:
        self._each_second()
        if self._certificates is not None:
            self._certificates.context()
            self._certificates.remind()

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, place = await loop.sock_accept(sock)
            except OSError as error:
                if error.errno not in _PASSING:
                    raise
                await asyncio.sleep(_LOOK)
                continue
            address = str(place[0])
            cause = self._too_many(address)
            if cause is not None:
                self.refused[cause] += 1
                connection.close()
                continue
            self._open[address] += 1
            task = loop.create_task(self._connect(connection, address))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    def _too_many(self, address: str) -> str | None:
        """Return why a further connection has no room; None if it has."""
        if self._open[address] >= self._bounds.per_address:
            return "address"
        return "connections" if self._open.total() >= self._bounds.connections else None

    async def _connect(self, connection: socket.socket, address: str) -> None:
        """Agree on TLS, and let uvicorn answer."""
        loop = asyncio.get_running_loop()
        closed = _once(lambda: self._forget(address))
        protocol = BoundedConnection(
            self._bounds, closed, config=self._config, server_state=self._state, app_state={}, _loop=loop
        )
        context: ssl.SSLContext | None = None
        try:
            context = None if self._certificates is None else self._certificates.context()
            await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=context,
                ssl_handshake_timeout=None if context is None else self._bounds.handshake_seconds,
            )
        except Exception:  # whatever it was, the place is free again
            self.refused["tls"] += context is not None
            connection.close()
            closed()

    def _forget(self, address: str) -> None:
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]

    async def _end(self) -> None:
        """Close what is idle, and the rest after a moment."""
        for task in self._handshakes:
            task.cancel()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=_GRACE)
        for connection in list(self._state.connections):
            connection.transport.abort()


def _once(call: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls another the first time."""
    calls = [call]
    return lambda: calls.pop()() if calls else None
