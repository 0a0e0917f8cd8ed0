"""An audit record repository, as the configuration names it."""

from __future__ import annotations

from dataclasses import dataclass

from edgecxr.errors import UsageError
from edgecxr.node.sending.destination import check_port


@dataclass(frozen=True)
class Repository:
    """A system that gets a copy of the audit trail.

    It is sent by syslog over TLS.

    Attributes:
        host: its name or IP address.
        port: where it listens.
        ca: file of the authorities that its certificate must come from; None is that of [tls].
        certificate: what the node proves itself with there; None is that of [tls].
        key: of the certificate.
        tls_name: name in its certificate; None is `host`.
    """

    host: str
    port: int = 6514
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    tls_name: str | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value cannot be used.
        """
        if not self.host:
            raise UsageError("[audit] host is empty: give the name or address of the audit record repository")
        check_port(self.port)
        if (self.certificate is None) != (self.key is None):
            raise UsageError("[audit] needs both certificate and key, or neither")

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.host} port {self.port}"
