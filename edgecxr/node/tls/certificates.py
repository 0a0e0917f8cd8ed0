"""Certificates of a node, read again when their files change.

TLS follows BCP 195 (RFC 9325), as PS3.15, B.12 asks: 1.2 or later, keys that are agreed anew for each connection, and
AES-GCM.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edgecxr.errors import UsageError, brief
from edgecxr.storage.reading import read_bytes
from edgecxr.terminal import say

WARN_DAYS = 30.0
"""Days before its end from which a certificate is warned of."""

_CIPHERS = "ECDHE+AESGCM"  # of TLS 1.2 (RFC 9325, 4.2); those of 1.3 are all in the profile
_LARGEST = 1 << 20
_LOOK, _REMIND = 1.0, 86_400.0
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0


@dataclass(frozen=True)
class Tls:
    """Files that a node proves itself with, in PEM.

    Attributes:
        certificate: its certificate, followed by those between it and the authority's.
        key: its key, without a password.
        ca: certificates of the authorities that peers' certificates must come from; None asks peers for none.
        dicom: whether DICOM is received by TLS alone.
    """

    certificate: str
    key: str
    ca: str | None = None
    dicom: bool = True


def server_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of a listener.

    Raises:
        UsageError: a file cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    _load_chain(context, tls.certificate, tls.key)
    if tls.ca is not None:
        _load_authorities(context, tls.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(ca: str | None, certificate: str | None = None, key: str | None = None) -> ssl.SSLContext:
    """Return the context of a connection that the node makes.

    The peer's name is checked.

    Args:
        ca: certificates of authorities; None takes those of the system.
        certificate: of the node; None if it shows none.
        key: of the certificate.

    Raises:
        UsageError: a file cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        context.load_default_certs()
    else:
        _load_authorities(context, ca)
    if certificate is not None and key is not None:
        _load_chain(context, certificate, key)
    return context


def end_of(path: str) -> datetime:
    """Return when the first certificate of a file ends.

    Raises:
        UsageError: the file cannot be used.
    """
    try:
        match = _CERTIFICATE.search(read_bytes(Path(path), _LARGEST))
        if match is None:
            raise ValueError("it has no certificate in PEM")
        return _not_after(base64.b64decode(match[1]))
    except (OSError, ValueError, IndexError, binascii.Error) as error:
        raise UsageError(f"{path} is no certificate ({brief(error)}): name a file in PEM") from error


def days_left(path: str) -> float | None:
    """Return the days until a certificate ends, below 0 if it has.

    Args:
        path: its file.

    Returns:
        None if it cannot be read.
    """
    try:
        return (end_of(path) - datetime.now(timezone.utc)).total_seconds() / 86_400
    except UsageError:
        return None


def ending(path: str, now: datetime | None = None) -> str | None:
    """Return a sentence if a certificate has ended or soon will.

    Raises:
        UsageError: the file cannot be used.
    """
    end = end_of(path)
    days = (end - (now or datetime.now(timezone.utc))).total_seconds() / 86_400
    if days > WARN_DAYS:
        return None
    when = "has ended" if days < 0 else "ends"
    return f"the certificate {path} {when} on {end:%Y-%m-%d}: put a new one in its place"


class Renewed:
    """A context that follows its files.

    A pair that does not fit, as while it is being replaced, is not used: the last good one stays.

    Args:
        make: makes the context.
        files: those that it is made of.
        role: of the process, for its messages.

    Raises:
        UsageError: a file cannot be used.
    """

    def __init__(self, make: Callable[[], ssl.SSLContext], files: list[str], role: str) -> None:
        self._make, self._files, self._role = make, files, role
        self._lock = threading.Lock()
        self._stamp = self._stamped()
        self._context = make()
        self._looked, self._reminded = time.monotonic(), float("-inf")

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked >= _LOOK:
                self._looked = now
                stamp = self._stamped()
                if stamp != self._stamp:
                    self._renew(stamp)
            return self._context

    def remind(self) -> None:
        """Say once a day which certificates end soon."""
        now = time.monotonic()
        if now - self._reminded < _REMIND:
            return
        self._reminded = now
        for path in self._files:
            try:
                sentence = ending(path) if _is_certificate(path) else None
            except UsageError as error:
                sentence = str(error)
            if sentence:
                say(f"{self._role}: warning: {sentence}")

    def _renew(self, stamp: list[tuple[int, ...]]) -> None:
        self._stamp = stamp
        try:
            self._context = self._make()
        except UsageError as error:
            say(f"{self._role}: the certificates of before are used on: {error}")
        else:
            say(f"{self._role}: read certificates again")
            self._reminded = float("-inf")

    def _stamped(self) -> list[tuple[int, ...]]:
        return [_stamp(path) for path in self._files]


def _stamp(path: str) -> tuple[int, ...]:
    try:
        state = Path(path).stat()
    except OSError:
        return ()
    return state.st_mtime_ns, state.st_size, state.st_ino


def _is_certificate(path: str) -> bool:
    try:
        return b"BEGIN CERTIFICATE" in read_bytes(Path(path), _LARGEST)
    except (OSError, ValueError):
        return True  # which `ending` then says


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_ciphers(_CIPHERS)
    return context


def _load_chain(context: ssl.SSLContext, certificate: str, key: str) -> None:
    def no_password() -> bytes:  # else OpenSSL asks at the terminal
        raise ValueError("it has a password")

    for path in (certificate, key):
        _check_readable(path)
    try:
        context.load_cert_chain(certificate, key, password=no_password)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{certificate} and {key} are no certificate and its key ({brief(error)}): give them in PEM, the key "
            "without a password"
        ) from error


def _load_authorities(context: ssl.SSLContext, ca: str) -> None:
    _check_readable(ca)
    try:
        context.load_verify_locations(cafile=ca)
    except (OSError, ValueError) as error:
        raise UsageError(f"{ca} has no certificates ({brief(error)}): name a file of authorities in PEM") from error


def _check_readable(path: str) -> None:
    try:
        read_bytes(Path(path), _LARGEST)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({brief(error)}): name a file in PEM") from error


def _not_after(der: bytes) -> datetime:
    """Return the end of a certificate's validity (RFC 5280, 4.1.2.5).

    Raises:
        ValueError: it is no certificate.
        IndexError: it is cut off.
    """
    (_, whole), *_ = _items(der)
    (_, signed), *_ = _items(whole)
    parts = _items(signed)
    if parts[0][0] == _VERSION:
        parts = parts[1:]
    kind, validity = parts[3]  # after the serial number, the signature's algorithm and the issuer
    if kind != _SEQUENCE:
        raise ValueError("it has no validity")
    kind, text = _items(validity)[1]
    if kind == _UTC_TIME:  # two digits of the year
        text = (b"19" if text[:2] >= b"50" else b"20") + text
    elif kind != _GENERALIZED_TIME:
        raise ValueError("its validity has no end")
    return datetime.strptime(text.decode("ascii"), "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)


def _items(der: bytes) -> list[tuple[int, bytes]]:
    """Return the tags and contents of a sequence in DER (X.690)."""
    items, at = [], 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            count = length & 0x7F
            length, at = int.from_bytes(der[at : at + count], "big"), at + count
        if at + length > len(der):
            raise ValueError("it is cut off")
        items.append((tag, der[at : at + length]))
        at += length
    return items
