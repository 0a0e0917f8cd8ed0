"""Bounds of a node, as the configuration sets them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edgecxr.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """Bounds of what strangers and broken systems can use up.

    Attributes:
        associations: at one time.
        associations_per_address: at one time, from one address.
        connections: TCP connections at one time, with and without an association.
        handshake_seconds: for the handshake of TLS.
        first_seconds: for the request of an association, after its connection, and for the header of an HTTP request.
        idle_seconds: without anything from the peer.
        object_seconds: for one film, from its first byte to its last.
        http_connections: of DICOMweb, at one time.
        http_per_address: the same, from one address.
        pdu_kib: greatest PDU, KiB.
        film_mib: greatest film, MiB.
        queue: films that wait; further ones are refused.
        free_mib: space that stays free on the disk, MiB.
        free_percent: the same, as a part of the disk; the greater one counts.
        keep_films_days: days for which a film stays in the spool after its results were filed.
        keep_results_days: days for which its results stay.
        give_up_hours: hours for which sending a result is tried.
        commit_hours: hours within which a destination must commit itself to keep a result.
    """

    associations: int = 16
    associations_per_address: int = 8
    connections: int = 64
    handshake_seconds: float = 5.0
    first_seconds: float = 10.0
    idle_seconds: float = 60.0
    object_seconds: float = 120.0
    http_connections: int = 32
    http_per_address: int = 8
    pdu_kib: int = 1024
    film_mib: int = 256
    queue: int = 10_000
    free_mib: int = 2048
    free_percent: float = 5.0
    keep_films_days: float = 7.0
    keep_results_days: float = 30.0
    give_up_hours: float = 72.0
    commit_hours: float = 24.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value cannot be used.
        """
        for name, value in dataclasses.asdict(self).items():
            if not value >= 0 or (value == 0 and not name.startswith("free_")):
                raise UsageError(f"[limits] {name} = {value}: give a number above 0")
