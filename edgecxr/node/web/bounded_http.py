"""HTTP of uvicorn with bounds for silent, slow and many clients.

uvicorn waits for ever for a request that does not end. `connection_made`, `data_received` and `connection_lost` are
asyncio's; `client`, `conn` and `connections` are uvicorn's own names.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS, MOST_PER_ADDRESS = 32, 16
"""Connections at one time: of all clients, and from one address."""

REQUEST_SECONDS = 10.0
"""From the beginning of a connection or a request to the request's end."""

LARGEST_HEADER = 16 << 10

HANDSHAKE_SECONDS = 5.0
"""For a TLS handshake."""


class BoundedHttp(H11Protocol):
    """A connection of HTTP/1.1."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS or self._of_the_address() > MOST_PER_ADDRESS:
            transport.abort()
            return
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request; stop the clock once it is whole."""
        super().data_received(data)
        self._expect()

    def on_response_complete(self) -> None:
        """Go on to the connection's next request, which may have begun."""
        super().on_response_complete()
        self._expect(idle=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop()
        super().connection_lost(exc)

    def _of_the_address(self) -> int:
        """Return the number of connections from this one's address, with it."""
        clients = [getattr(each, "client", None) for each in self.connections]
        return sum(client is not None and self.client is not None and client[0] == self.client[0] for client in clients)

    def _expect(self, idle: bool = False) -> None:
        """Start or stop the clock.

        Args:
            idle: whether nothing of a request is expected so far; uvicorn ends idle connections itself.
        """
        whole = self.conn.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
        if whole or self.transport.is_closing() or (idle and not self.conn.trailing_data[0]):
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
