"""TLS of the connections to a destination."""

from __future__ import annotations

import ssl

from edgecxr.node.node_config import NodeConfig
from edgecxr.node.sending.destination import Destination
from edgecxr.node.tls.certificates import Renewed, client_context


class ClientTls:
    """Certificates for a destination: the own, and those that are trusted.

    What the destination does not say is taken from [tls].

    Args:
        destination: the destination.
        config: the node's.
    """

    def __init__(self, destination: Destination, config: NodeConfig) -> None:
        tls = config.tls
        self._ca = destination.ca or (tls.ca if tls else None)
        self._own = (destination.certificate, destination.key)
        if destination.certificate is None and tls is not None:
            self._own = (tls.certificate, tls.key)
        self._renewed: Renewed | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection.

        Raises:
            UsageError: a file cannot be used.
        """
        if self._renewed is None:
            files = [path for path in (self._ca, *self._own) if path is not None]
            self._renewed = Renewed(lambda: client_context(self._ca, *self._own), files, "send")
        self._renewed.remind()
        return self._renewed.context()
