"""TLS of the connections that the node makes."""

from __future__ import annotations

import ssl
from typing import Protocol

from edgecxr.node.tls.certificates import Renewed, Tls, client_context


class TlsSettings(Protocol):
    """What a part of the configuration says of TLS.

    None is not said.

    Attributes:
        ca: file of the authorities that the other end's certificate must come from.
        certificate: file of the node's certificate.
        key: file of its key.
    """

    @property
    def ca(self) -> str | None: ...  # noqa: D102
    @property
    def certificate(self) -> str | None: ...  # noqa: D102
    @property
    def key(self) -> str | None: ...  # noqa: D102


class ClientTls:
    """Certificates for connections to one system.

    What is not said of the system is taken from [tls].

    Args:
        ends: what is said of the system.
        tls: the node's [tls]; None if there is none.

    Attributes:
        ca: file of authorities; None takes those of the operating system.
        certificate: file of the certificate that is shown; None if none is.
        key: file of its key.
    """

    def __init__(self, ends: TlsSettings, tls: Tls | None) -> None:
        self.ca = ends.ca or (tls.ca if tls else None)
        self.certificate, self.key = ends.certificate, ends.key
        if ends.certificate is None and tls is not None:
            self.certificate, self.key = tls.certificate, tls.key
        self._renewed: Renewed | None = None

    def new_context(self) -> ssl.SSLContext:
        """Return a context of the files as they are now.

        Raises:
            UsageError: a file cannot be used.
        """
        return client_context(self.ca, self.certificate, self.key)

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection.

        Certificates that end soon are warned of.

        Raises:
            UsageError: a file cannot be used.
        """
        if self._renewed is None:
            files = [path for path in (self.ca, self.certificate, self.key) if path is not None]
            self._renewed = Renewed(self.new_context, files, "send")
        self._renewed.remind()
        return self._renewed.context()
