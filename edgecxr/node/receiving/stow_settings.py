"""Settings of the DICOMweb listener."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from edgecxr.errors import UsageError
from edgecxr.node.sending.destination import check_port
from edgecxr.storage.settings import shown

SHORTEST_TOKEN = 32
"""Least number of characters of a token."""


@dataclass(frozen=True)
class Stow:
    """Where films are received by DICOMweb (STOW-RS), and from whom.

    Attributes:
        address: IP address that it listens on.
        port: 0 takes a free one.
        token_file: file of the token that senders show; None lets every program of this machine send.
    """

    address: str = "127.0.0.1"
    port: int = 11180
    token_file: str | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value cannot be used.
        """
        if self.port:
            check_port(self.port)
        try:
            ipaddress.ip_address(self.address)
        except ValueError as error:
            raise UsageError(f"[stow] address = {shown(self.address)}: give an IP address of this machine") from error
        if not self.is_local and self.token_file is None:
            raise UsageError(
                f"[stow] address = {shown(self.address)} is open to the network: name a `token_file`, or listen on "
                "127.0.0.1"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.address).is_loopback
