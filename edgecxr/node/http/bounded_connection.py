"""A connection of uvicorn with bounds for silent and slow clients.

uvicorn waits for ever for a request that does not end. `connection_made`, `data_received` and `connection_lost` are
asyncio's; `conn`, `cycle` and `on_response_complete` are uvicorn's own names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


@dataclass(frozen=True)
class Bounds:
    """What the clients of a listener can use up.

    Attributes:
        connections: of all clients at one time, with those in their TLS handshake.
        per_address: the same, from one address.
        handshake_seconds: for a TLS handshake.
        request_seconds: from the beginning of a connection or request to the request's end, and between requests.
        bounds_bodies: whether the application bounds how long a body takes, so that `request_seconds` ends with the
            header.
        header_bytes: longest header.
    """

    connections: int = 32
    per_address: int = 16
    handshake_seconds: float = 5.0
    request_seconds: float = 10.0
    bounds_bodies: bool = False
    header_bytes: int = 16 << 10


class BoundedConnection(H11Protocol):
    """A connection of HTTP/1.1.

    Args:
        bounds: for its client.
        closed: called once when the connection has ended.
        others: further arguments of uvicorn's class.
    """

    def __init__(self, bounds: Bounds, closed: Callable[[], None], **others: Any) -> None:
        super().__init__(**others)
        self._bounds, self._closed = bounds, closed
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request."""
        super().connection_made(transport)
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
        self._closed()

    def _expect(self, idle: bool = False) -> None:
        """Start or stop the clock.

        Args:
            idle: whether nothing of a request is expected so far; uvicorn ends idle connections itself.
        """
        state = self.conn.their_state
        whole = state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
        in_body = state is h11.SEND_BODY and self.cycle is not None and not self.cycle.response_complete
        if (
            whole
            or (in_body and self._bounds.bounds_bodies)
            or self.transport.is_closing()
            or (idle and not self.conn.trailing_data[0])
        ):
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._bounds.request_seconds, self.transport.abort)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
