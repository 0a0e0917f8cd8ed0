"""A destination that cannot be reached: each reason is told apart, with what to do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra node)")

from pynetdicom import AE

from edgecxr.node.node_config import NodeConfig
from edgecxr.node.sending import association
from edgecxr.node.sending.association import Association
from edgecxr.node.sending.destination import Destination
from edgecxr.node.sending.failures import Unreachable
from edgecxr.node.sending.no_connection import http_remedy, no_connection
from edgecxr.node.sending.send import connection_to
from tests.cli_workspace import edgecxr
from tests.node.running import free_port

VERIFICATION, OTHER = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2"


def failure(port: int, host: str = "127.0.0.1") -> str:
    with pytest.raises(Unreachable) as raised:
        Association(Destination("pacs", "PACS", host, port), NodeConfig()).verify()
    return str(raised.value)


def answered(prepare: Callable[[Any], None]) -> str:
    """Return the failure with a PACS that has been prepared to fail."""
    entity = AE("PACS")
    entity.add_supported_context(VERIFICATION)
    prepare(entity)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    try:
        return failure(server.server_address[1])
    finally:
        server.shutdown()


def test_where_nothing_listens_it_says_so() -> None:
    assert "nothing listens" in failure(free_port())


def test_a_name_that_is_not_found_is_named() -> None:
    assert "the name pacs.invalid is not found" in failure(104, "pacs.invalid")


def test_a_machine_that_does_not_answer_is_told_from_one_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(association, "CONNECT", 0.2)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]  # they fill the queue of connections
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        assert "within 0.2 s" in failure(port)
        for client in waiting:
            client.close()


def test_a_rejection_names_the_title_to_correct() -> None:
    def called_otherwise(entity: Any) -> None:
        entity.ae_title, entity.require_called_aet = "OTHER", True

    def knows_another(entity: Any) -> None:
        entity.require_calling_aet = ["CT1"]

    assert "`ae_title`" in answered(called_otherwise)
    message = answered(knows_another)
    assert "rejects the association" in message and "EDGECXR" in message and "`calling`" in message


def test_a_pacs_that_takes_no_result_is_told() -> None:
    def others(entity: Any) -> None:
        entity.supported_contexts = []
        entity.add_supported_context(OTHER)

    assert "takes none of what" in answered(others)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (bytes.fromhex("07000000000400000000"), "aborts the association"),
        (b"", "no answer in DICOM"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no answer in DICOM"),
    ],
)
def test_an_abort_is_told_from_what_is_no_dicom(answer: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(association, "ANSWER", 1.0)

    def reply() -> None:
        connection = server.accept()[0]
        connection.recv(1 << 16)
        connection.sendall(answer)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=reply, daemon=True)
        thread.start()
        assert message in failure(server.getsockname()[1])
        thread.join(timeout=10)


def test_other_errors_are_repeated_and_dicomweb_is_spoken_of_alike() -> None:
    assert "No route" in no_connection("10.1.2.3", 104, OSError(113, "No route to host"), 5)
    port = free_port()
    with pytest.raises(Unreachable, match="nothing listens"):
        connection_to(Destination("pacs", url=f"http://127.0.0.1:{port}/dicomweb"), NodeConfig()).verify()
    assert "token" in http_remedy(401) and "url" in http_remedy(404) and "later" in http_remedy(503)


def test_echo_says_the_reason_and_ends_with_6(tmp_path: Path) -> None:
    table = f'[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {free_port()}\n'
    (tmp_path / "node.toml").write_text(table)
    ended = edgecxr("node", "echo", "pacs", "--config", tmp_path / "node.toml", runs=tmp_path)
    assert ended.code == 6 and "pacs: nothing listens" in ended.err
