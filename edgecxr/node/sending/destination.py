"""A destination of results, as the configuration names it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgecxr.errors import UsageError
from edgecxr.storage.settings import shown

_AE_TITLE = re.compile(r"[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?")  # PS3.5, VR AE: no backslash, no outer blanks
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_LARGEST_PORT = 65535

FILES = ("ca", "certificate", "key")
"""Fields of a `Destination` that name files."""


@dataclass(frozen=True)
class Destination:
    """A system that gets the results, by C-STORE.

    Attributes:
        name: for commands and messages.
        ae_title: how it is called.
        host: its name or IP address.
        port: where it listens.
        calling: how the node calls itself there; None is its own AE title.
        tls: whether it is spoken to by TLS.
        ca: file of the authorities that its certificate must come from; None is that of [tls].
        certificate: what the node proves itself with there; None is that of [tls].
        key: of the certificate.
        tls_name: name in its certificate; None is `host`.
    """

    name: str
    ae_title: str
    host: str
    port: int
    calling: str | None = None
    tls: bool = False
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    tls_name: str | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value cannot be used.
        """
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"the destination's name {shown(self.name)} is none: give letters, digits, _ . or -")
        for title in (self.ae_title, self.calling):
            if title is not None:
                check_ae_title(title)
        check_port(self.port)
        if not self.host or any(character.isspace() for character in self.host):
            raise UsageError(f"destination {self.name} has the host {shown(self.host)}: give a name or an IP address")
        if (self.certificate is None) != (self.key is None):
            raise UsageError(f"destination {self.name} needs both `certificate` and `key`, or neither")
        if not self.tls and any((self.ca, self.certificate, self.tls_name)):
            raise UsageError(f"destination {self.name} has files for TLS and does not use it: add `tls = true`")

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return f"{self.ae_title} at {self.host} port {self.port}{' by TLS' if self.tls else ''}"


def check_ae_title(title: str) -> None:
    """Check an AE title.

    Raises:
        UsageError: it is none.
    """
    if not _AE_TITLE.fullmatch(title):
        raise UsageError(f"the AE title {shown(title)} is none: give 1 to 16 printable ASCII characters, no backslash")


def check_port(port: int) -> None:
    """Check the number of a port.

    Raises:
        UsageError: it is none.
    """
    if not 0 < port <= _LARGEST_PORT:
        raise UsageError(f"port = {port}: give a number from 1 to {_LARGEST_PORT}")
