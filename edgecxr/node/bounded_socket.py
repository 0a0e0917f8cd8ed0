"""The socket of a pynetdicom association, bounded in bytes and time.

It touches private names of pynetdicom's; the extra `node` bounds its minor version.
"""

from __future__ import annotations

import contextlib
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

from pynetdicom import evt
from pynetdicom.transport import AssociationSocket

from edgecxr.node.limits import Limits

_ABORT = struct.pack(">BBLBBBB", 7, 0, 4, 0, 0, 2, 0)
"""A-ABORT by the service provider, reason not specified (PS3.8, 9.3.8)."""

_LONGEST_READ = 5.0  # seconds after which a deadline is looked at again


class _Bounded(AssociationSocket):
    """The class of a socket that `BoundedSocket` bounds."""

    has_more: Callable[[], bool]

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        return bool(super().ready) and self.has_more()


class BoundedSocket:
    """The reading side of an association's socket, bounded in bytes and time.

    Args:
        association: of pynetdicom; its socket is bounded from now on.
        limits: the bounds.
    """

    def __init__(self, association: Any, limits: Limits) -> None:
        self._association, self._limits = association, limits
        self._object_bytes, self._object_began = 0, 0.0
        self._ahead = b""
        association.dul.socket.__class__ = _Bounded
        association.dul.socket.has_more = self._has_more
        association.dul.socket.recv = self._recv
        association.dul.socket.socket.settimeout(limits.idle_seconds)  # for sending
        association.bind(evt.EVT_DIMSE_RECV, self._message_ends)
        self._decode = association.dimse.receive_primitive
        association.dimse.receive_primitive = self._received

    def _received(self, part: Any) -> None:
        """Hand on a part of a message.

        One that cannot be decoded ends the association. Else the exception would end pynetdicom's thread alone, with a
        traceback, and the peer would wait.
        """
        try:
            self._decode(part)
        except Exception:  # it raises nearly anything, such as for a command without its UID
            self._abort("a message cannot be decoded")
            self._association.dul.socket.close()

    def _message_ends(self, event: Any) -> None:
        self._object_bytes, self._object_began = 0, 0.0

    def _has_more(self) -> bool:
        """Return whether there is something of the peer's to read.

        TLS has records of its own, such as tickets, which wake up a reader. It would then wait for data, and send
        nothing meanwhile.
        """
        connection = self._association.dul.socket.socket
        if not isinstance(connection, ssl.SSLSocket) or self._ahead:
            return True
        timeout = connection.gettimeout()
        try:
            connection.settimeout(0)
            self._ahead = connection.recv(1)
        except ssl.SSLWantReadError:
            return False
        except (OSError, ValueError):
            return True  # the next read says why
        finally:
            with contextlib.suppress(OSError):
                connection.settimeout(timeout)
        return True

    def _recv(self, count: int) -> bytearray:
        """Read `count` bytes; fewer if the peer has closed the connection.

        Raises:
            OSError: it claims or takes more than the limits allow. The association is aborted.
        """
        limits = self._limits
        now = time.monotonic()
        if self._association.is_established:
            self._object_began = self._object_began or now
            self._object_bytes += count
            until = min(now + limits.idle_seconds, self._object_began + limits.object_seconds)
        else:
            until = now + limits.first_seconds
        if count > limits.pdu_kib << 10 or self._object_bytes > (limits.film_mib << 20) + (1 << 16):
            raise self._abort("it is larger than the limits allow")
        content, byte_count = bytearray(count), len(self._ahead[:count])
        content[:byte_count], self._ahead = self._ahead[:byte_count], self._ahead[byte_count:]
        connection = self._association.dul.socket.socket
        with memoryview(content) as view:
            while byte_count < count:
                left = until - time.monotonic()
                if left <= 0:
                    raise self._abort("it takes longer than the limits allow")
                connection.settimeout(min(left, _LONGEST_READ))
                try:
                    part = connection.recv_into(view[byte_count:])
                except TimeoutError:
                    continue
                if not part:
                    break
                byte_count += part
        connection.settimeout(limits.idle_seconds)  # for sending
        return content[:byte_count]

    def _abort(self, why: str) -> OSError:
        with contextlib.suppress(OSError):
            self._association.dul.socket.socket.sendall(_ABORT)
        return OSError(why)
