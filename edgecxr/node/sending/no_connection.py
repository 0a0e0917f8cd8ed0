"""Words for why a destination cannot be reached, with what to do."""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import Any

from pynetdicom import evt
from pynetdicom.pdu import A_ABORT_RQ

from edgecxr.errors import brief
from edgecxr.node.sending.destination import Destination

_CALLING_UNKNOWN, _CALLED_UNKNOWN = (1, 3), (1, 7)
"""Source and reason of a rejection (PS3.8, 9.3.4)."""


def no_connection(host: str, port: int, error: Exception, seconds: float) -> str:
    """Return why there is no connection.

    Args:
        host: a name or an IP address.
        port: its number.
        error: what the attempt has raised.
        seconds: after which it was given up.
    """
    if isinstance(error, socket.gaierror):
        return f"the name {host} is not found ({brief(error.strerror)}): correct it in the configuration"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens on {host} port {port}: start it there, or correct host and port in the configuration"
    if isinstance(error, TimeoutError):
        return (
            f"{host} port {port} does not answer within {seconds:g} s: switch it on, let its firewall pass the port, "
            "or correct host and port in the configuration"
        )
    if isinstance(error, ssl.SSLError):
        return f"{host} port {port} and this machine do not agree on TLS ({brief(error)}): correct the certificates"
    return f"{host} port {port} cannot be reached ({brief(error)}): correct host and port, or the network"


def http_remedy(status: int) -> str:
    """Return what to do about the status of a DICOMweb service."""
    if status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN, http.client.PROXY_AUTHENTICATION_REQUIRED):
        return "correct its token, or user and password, in the configuration"
    if status < 500 and status != http.client.TOO_MANY_REQUESTS:
        return "correct its url in the configuration"
    return "try again later; its log says why"


class AssociationAttempt:
    """What happened while an association was asked for.

    Args:
        to: the destination.
        calling: AE title under which it is called.
    """

    def __init__(self, to: Destination, calling: str) -> None:
        self._to, self._calling = to, calling
        self._connected = self._accepted = self._aborted = False
        self.handlers = [
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_ACCEPTED, self._taken),
            (evt.EVT_PDU_RECV, self._received),
        ]
        """For pynetdicom."""

    def _opened(self, event: Any) -> None:
        self._connected = True

    def _taken(self, event: Any) -> None:
        self._accepted = True

    def _received(self, event: Any) -> None:
        self._aborted |= isinstance(event.pdu, A_ABORT_RQ)

    def failure(self, association: Any, tls: tuple[ssl.SSLContext, str] | None, seconds: float) -> str:
        """Return why there is no association.

        Args:
            association: of pynetdicom.
            tls: context and name of the peer, if it is spoken to by TLS.
            seconds: after which a connection is given up.
        """
        to, place = self._to, f"{self._to.ae_title} at {self._to.host} port {self._to.port}"
        if association.is_rejected:
            return f"{place} rejects the association: {self._rejection(association.acceptor.primitive)}"
        if not self._connected:
            return self._no_connection(tls, seconds)
        if self._accepted:
            return f"{place} takes none of what is sent, reports and pictures: allow these SOP classes there"
        if self._aborted:
            return f"{place} aborts the association: its log says why"
        return (
            f"{to.host} port {to.port} takes the connection, but gives no answer in DICOM: correct the port, or `tls` "
            "and the certificates"
        )

    def _rejection(self, answer: Any) -> str:
        if answer is None:
            return "no reason given; its log says why"
        remedy = {
            _CALLING_UNKNOWN: f"let it know {self._calling}, or give the destination a `calling` that it knows",
            _CALLED_UNKNOWN: "correct the destination's `ae_title`",
        }.get((answer.result_source, answer.diagnostic), "its log says why")
        return f"{answer.reason_str}: {remedy}"

    def _no_connection(self, tls: tuple[ssl.SSLContext, str] | None, seconds: float) -> str:
        # pynetdicom keeps the reason to itself, so that the connection is tried once more.
        host, port = self._to.host, self._to.port
        try:
            with socket.create_connection((host, port), seconds) as connection:
                if tls is not None:
                    context, name = tls
                    context.wrap_socket(connection, server_hostname=name).close()
        except OSError as error:
            return no_connection(host, port, error, seconds)
        return f"{host} port {port} took no connection, and takes one now: try again"
