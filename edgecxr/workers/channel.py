"""Messages between processes: JSON and bytes, never pickles from workers.

Their size is limited, and receiving has a deadline.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any

from edgecxr.storage.json_values import parse_json

LARGEST_TEXT = 1 << 20
"""Greatest number of bytes of a message's JSON."""

_HEAD = struct.Struct(">IQ")  # number of bytes of the JSON, and of the data after it


def packed(message: Any, data: bytes = b"") -> bytes:
    """Return a message as bytes.

    Args:
        message: a value that JSON can represent.
        data: any bytes.

    Raises:
        TypeError: JSON cannot represent `message`.
        ValueError: `message` is too long.
    """
    text = json.dumps(message).encode()
    if len(text) > LARGEST_TEXT:
        raise ValueError(f"a message of {len(text)} bytes")
    return _HEAD.pack(len(text), len(data)) + text + data


class Channel:
    """One end of a connection between two processes.

    Args:
        connection: one socket of a pair.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def fileno(self) -> int:
        """Return the file descriptor, for `select`."""
        return self._socket.fileno()

    def send(self, message: bytes, seconds: float | None = None) -> None:
        """Send what `packed` returned.

        Raises:
            OSError: the other side has closed, or did not read the message within `seconds`.
        """
        self._socket.settimeout(seconds)
        self._socket.sendall(message)

    def receive(self, deadline: float = float("inf"), largest: int = 1 << 62) -> tuple[Any, bytes]:
        """Return the next message's JSON value and bytes.

        Args:
            deadline: a time of `time.monotonic`.
            largest: greatest number of bytes besides the JSON.

        Raises:
            EOFError: the other side has closed.
            OSError: the connection is lost, or the deadline has passed.
            ValueError: the message is malformed or too large.
        """
        text, data = _HEAD.unpack(self._exactly(_HEAD.size, deadline))
        if text > LARGEST_TEXT or data > largest:
            raise ValueError(f"a message of {text} and {data} bytes")
        return parse_json(bytes(self._exactly(text, deadline)), finite=False), bytes(self._exactly(data, deadline))

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _exactly(self, count: int, deadline: float) -> bytearray:
        received = bytearray()
        while len(received) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(None if left == float("inf") else left)
            chunk = self._socket.recv(min(count - len(received), 1 << 20))
            if not chunk:
                raise EOFError
            received += chunk
        return received
