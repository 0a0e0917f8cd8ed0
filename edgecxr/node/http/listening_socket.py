"""The socket that an HTTP listener begins with. No uvicorn."""

from __future__ import annotations

import errno
import socket

from edgecxr.errors import UsageError


def listening_socket(section: str, address: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        section: of the configuration that names the address and port, such as "web".
        address: IP address.
        port: 0 takes a free one.

    Raises:
        UsageError: the address or port cannot be used.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        low = error.errno == errno.EACCES and port < 1024
        remedy = "give a `port` above 1023, or the right to use it" if low else "end what listens there"
        raise UsageError(
            f"[{section}] {address} port {port} cannot be listened on ({error.strerror}): {remedy}, or give another "
            f"one under [{section}]"
        ) from error
    return sock
