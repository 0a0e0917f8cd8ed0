"""What a system's part of the configuration does not say of TLS is taken from [tls]."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from edgecxr.errors import UsageError
from edgecxr.node.tls.certificates import Tls
from edgecxr.node.tls.client_tls import ClientTls


@dataclass(frozen=True)
class System:
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


@pytest.mark.parametrize(
    ("system", "tls", "expected"),
    [
        (System(), None, (None, None, None)),
        (System(), Tls("n.pem", "n.key", "ca.pem"), ("ca.pem", "n.pem", "n.key")),
        (System(), Tls("n.pem", "n.key"), (None, "n.pem", "n.key")),
        (System(ca="other.pem"), Tls("n.pem", "n.key", "ca.pem"), ("other.pem", "n.pem", "n.key")),
        (System(None, "o.pem", "o.key"), Tls("n.pem", "n.key", "ca.pem"), ("ca.pem", "o.pem", "o.key")),
    ],
)
def test_what_a_system_does_not_say_is_that_of_the_node(
    system: System, tls: Tls | None, expected: tuple[str | None, ...]
) -> None:
    client = ClientTls(system, tls)
    assert (client.ca, client.certificate, client.key) == expected


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"nowhere\.pem"):
        ClientTls(System(ca="nowhere.pem"), None).context()
