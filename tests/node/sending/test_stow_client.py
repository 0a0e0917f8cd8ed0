"""Sending by STOW-RS: what is tried again, what is given up, and Orthanc."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from email.message import Message
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra node)")
pytest.importorskip("highdicom", reason="highdicom is not installed (extra node)")

from edgecxr.infer.dicom.objects import DicomObject
from edgecxr.node.deliveries import LONGEST_PAUSE
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.sending import stow_client
from edgecxr.node.sending.destination import Destination
from edgecxr.node.sending.failures import Refused, Unreachable
from edgecxr.node.sending.stow_client import StowClient
from edgecxr.node.tls.certificates import Tls, server_context
from edgecxr.workers.new_python import command
from tests.cli_workspace import edgecxr
from tests.node.certified import certified
from tests.node.running import PATIENCE, alone, eventually, run, started
from tests.node.sending.sent_results import Node, made_results

SR_3D, SR = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.33"


@pytest.fixture(scope="module")
def dicom_results(tmp_path_factory: pytest.TempPathFactory) -> tuple[DicomObject, ...]:
    return made_results(tmp_path_factory.mktemp("made"))


class Archive:
    """A DICOMweb service on loopback that answers as a test wants.

    Attributes:
        kept: what it took.
        requests: paths and headers so far.
        connections: addresses from which they came.
    """

    def __init__(self, tls: Tls | None = None) -> None:
        self.kept, self.requests, self.connections = list[Dataset](), list[tuple[str, Message]](), set[Any]()
        self.status, self.reason, self.headers = 200, 0, dict[str, str]()
        self.closes = False
        self.page: bytes | None = None
        archive = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                archive.answer(self, b"")

            def do_POST(self) -> None:
                archive.answer(self, self.rfile.read(int(self.headers["Content-Length"])))

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls is not None:
            self.server.socket = server_context(tls).wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/dicomweb"

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        self.requests.append((f"{handler.command} {handler.path}", handler.headers))
        self.connections.add(handler.client_address)
        content = b"[]"
        if body:
            dataset = dcmread(BytesIO(part_of(handler.headers["Content-Type"], body)))
            status, reason = self.decide(dataset)
            if status == 0:
                handler.close_connection = True
                return
            item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [dataset.SOPInstanceUID]}}
            if reason:
                item["00081197"] = {"vr": "US", "Value": [reason]}
            elif 200 <= status < 300:
                self.kept.append(dataset)
            content = json.dumps({"00081198" if reason else "00081199": {"vr": "SQ", "Value": [item]}}).encode()
        else:
            status = self.status
        content = content if self.page is None else self.page
        handler.send_response(status)
        length = {} if status == 204 else {"Content-Length": str(len(content))}
        for name, value in {**length, **self.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if status != 204:
            handler.wfile.write(content)
        handler.close_connection = handler.close_connection or self.closes

    def decide(self, dataset: Dataset) -> tuple[int, int]:
        return self.status, self.reason


def part_of(content_type: str, body: bytes) -> bytes:
    """Return the only part of a body, by the standard library's own parser."""
    from email import message_from_bytes

    message = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    boundary = str(message.get_boundary()).encode()
    (_, part, end) = body.split(b"--" + boundary)
    assert end == b"--\r\n" and message.get_param("type") == "application/dicom"
    header, _, content = part.partition(b"\r\n\r\n")
    assert header == b"\r\nContent-Type: application/dicom"
    return content[:-2]


@contextmanager
def archive(tls: Tls | None = None) -> Iterator[Archive]:
    stow_archive = Archive(tls)
    thread = threading.Thread(target=stow_archive.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield stow_archive
    finally:
        stow_archive.server.shutdown()
        stow_archive.server.server_close()


@pytest.fixture
def peer() -> Iterator[Archive]:
    with archive() as stow_archive:
        yield stow_archive


@pytest.fixture
def node(tmp_path: Path, dicom_results: tuple[DicomObject, ...], peer: Archive) -> Iterator[Node]:
    node = Node(tmp_path, Destination("pacs", url=peer.url), dicom_results)
    yield node
    node.close()


def test_both_results_go_over_one_connection_as_they_are(node: Node, peer: Archive, dicom_results: Any) -> None:
    assert node.step() and (node.state, node.counts) == ("filed", {"sent": 2})
    assert [path for path, _ in peer.requests] == ["POST /dicomweb/studies"] * 2 and len(peer.connections) == 1
    sent = {dataset.SOPInstanceUID: dataset for dataset in peer.kept}
    for number, result in enumerate(dicom_results):
        assert sent[result.uid] == dcmread(node.spool.result_path(number + 1))


@pytest.mark.parametrize(
    ("status", "reason", "counts"),
    [
        (200, 0x0111, {"sent": 2}), (409, 0x0111, {"sent": 2}), (202, 0, {"sent": 2}), (204, 0, {"sent": 2}),
        (409, 0xA700, {"waiting": 2}), (202, 0xA700, {"waiting": 2}), (500, 0, {"waiting": 2}),
        (502, 0, {"waiting": 2}), (504, 0xA900, {"waiting": 2}), (408, 0, {"waiting": 2}),
        (200, 0xA900, {"dead": 2}), (409, 0xC000, {"dead": 2}), (409, 0, {"dead": 2}), (400, 0, {"dead": 2}),
        (404, 0, {"dead": 2}), (413, 0, {"dead": 2}), (415, 0, {"dead": 2}), (301, 0, {"dead": 2}),
    ],
)  # fmt: skip
def test_an_answer_decides_what_becomes_of_a_result(
    node: Node, peer: Archive, status: int, reason: int, counts: dict[str, int]
) -> None:
    peer.status, peer.reason = status, reason
    node.step()
    assert node.counts == counts
    assert node.state == ("filed" if "sent" in counts else "made")
    if "sent" not in counts:
        assert str(status) in node.deliveries.errors(1)[0][3]
        peer.status, peer.reason = 200, 0
        assert node.deliveries.retry("pacs") == counts.get("dead", 0)
        node.again()
        assert node.state == "filed"


@pytest.mark.parametrize(
    ("status", "header", "least", "most"),
    [
        (503, None, 5, 6.3), (503, "120", 110, 120.1), (429, "120", 110, 120.1), (503, "90000", 890, LONGEST_PAUSE),
        (503, "soon", 5, 6.3), (503, "-5", 5, 6.3), (429, "date", 50, 61), (401, None, 5, 6.3), (403, None, 5, 6.3),
    ],
)  # fmt: skip
def test_who_takes_nothing_now_is_asked_once_and_again_when_it_says(
    node: Node, peer: Archive, status: int, header: str | None, least: float, most: float
) -> None:
    peer.status = status
    if header is not None:
        when = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=60), usegmt=True)
        peer.headers = {"Retry-After": when if header == "date" else header}
    before = time.monotonic()
    node.step()
    assert node.counts == {"waiting": 2} and len(peer.requests) == 1
    assert least <= node.sender._not_before - before <= most + (time.monotonic() - before)
    peer.status = 200
    node.again()
    assert node.state == "filed"


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>Log in</html>", b'{"error": "log in"}', b"[]", b"", b"7"])
def test_a_page_that_is_no_dicom_is_not_taken_for_filed(node: Node, peer: Archive, page: bytes) -> None:
    peer.page, peer.headers = page, {"Content-Type": "text/html"}
    node.step()
    assert node.counts == {"waiting": 2} and len(peer.requests) == 1, "the results are not the cause"
    assert "HTTP 200" in node.deliveries.errors(1)[0][3]
    peer.page = None
    node.again()
    assert node.state == "filed"


XML = '<NativeDicomModel><DicomAttribute tag="{}" vr="SQ"><Item>{}</Item></DicomAttribute></NativeDicomModel>'
WHY = '<DicomAttribute tag="00081197" vr="US"><Value number="1">{}</Value></DicomAttribute>'


@pytest.mark.parametrize(
    ("status", "content", "counts"),
    [
        (200, XML.format("00081199", ""), {"sent": 2}),
        (202, XML.format("00081198", WHY.format(0xA700)), {"waiting": 2}),
        (200, XML.format("00081199", "") + '<DicomAttribute tag="00081198" vr="SQ"></DicomAttribute>', {"sent": 2}),
        (409, XML.format("00081198", WHY.format(0x0111)), {"sent": 2}),
        (202, XML.format("0008119A", WHY.format(0xC000)), {"dead": 2}), (202, XML.format("00081198", ""), {"dead": 2}),
    ],
)  # fmt: skip
def test_an_answer_in_xml_is_understood(
    node: Node, peer: Archive, status: int, content: str, counts: dict[str, int]
) -> None:
    peer.status, peer.page = status, content.encode()
    node.step()
    assert node.counts == counts


def test_one_result_that_breaks_connections_holds_up_no_other(node: Node, peer: Archive) -> None:
    peer.decide = lambda dataset: (0, 0) if dataset.Modality == "SR" else (200, 0)  # type: ignore[method-assign]
    node.step()
    assert node.counts == {"sent": 1, "waiting": 1}


def test_a_connection_that_was_closed_meanwhile_is_made_anew(node: Node, peer: Archive) -> None:
    peer.closes = True
    node.step()
    assert node.state == "filed" and len(peer.connections) == 2


def test_a_service_without_3d_reports_gets_a_comprehensive_report(
    node: Node, peer: Archive, dicom_results: Any
) -> None:
    peer.decide = lambda dataset: (409, 0x0122) if dataset.SOPClassUID == SR_3D else (200, 0)  # type: ignore[method-assign]
    node.step()
    (report,) = [each for each in peer.kept if each.Modality == "SR"]
    assert node.state == "filed" and report.SOPClassUID == report.file_meta.MediaStorageSOPClassUID == SR
    assert report.SOPInstanceUID not in {each.uid for each in dicom_results}
    assert report.ContentSequence == dcmread(node.spool.result_path(1)).ContentSequence


@pytest.mark.parametrize(
    "speaks",
    [b"", b"\x15\x03\x01", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000, b"HTTP/1.1 200 OK\r\n", b"HTTP/9 x\r\n\r\n"],
)
def test_a_peer_that_speaks_no_http_is_tried_again(
    tmp_path: Path, dicom_results: Any, monkeypatch: pytest.MonkeyPatch, speaks: bytes
) -> None:
    monkeypatch.setattr(stow_client, "ANSWER", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []
        ended = threading.Event()

        def accept() -> None:
            server.settimeout(0.2)
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    accepted.append(connection)
                    connection.sendall(speaks)
                    if speaks.endswith(b" OK\r\n"):
                        connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        node = Node(
            tmp_path, Destination("pacs", url=f"http://127.0.0.1:{server.getsockname()[1]}/dicomweb"), dicom_results
        )
        node.step()
        assert node.counts == {"waiting": 2}
        node.close()
        ended.set()
        thread.join(timeout=PATIENCE)
        for connection in accepted:
            connection.close()


def test_an_answer_that_drips_is_not_waited_for(
    tmp_path: Path, dicom_results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow_client, "ANSWER", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not ended.wait(0.2):
                    connection.sendall(b"a")
            connection.close()

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        client = StowClient(Destination("pacs", url=f"http://127.0.0.1:{server.getsockname()[1]}/"), NodeConfig())
        began = time.monotonic()
        with pytest.raises(Unreachable):
            client.store(dicom_results[0].content)
        assert time.monotonic() - began < 60 and client.was_established
        ended.set()
        thread.join(timeout=PATIENCE)


def test_tokens_and_passwords_are_shown_and_read_again(tmp_path: Path, dicom_results: Any, peer: Archive) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    secret.chmod(0o600)
    for more, shown in (
        ({"token_file": str(secret)}, "Bearer {}"),
        ({"user": "node", "password_file": str(secret)}, "Basic {}"),
    ):
        client = StowClient(Destination("pacs", url=peer.url, **more), NodeConfig())  # type: ignore[arg-type]
        for word in ("first", "second"):
            secret.write_text(word)
            assert client.store(dicom_results[0].content) is None
            credential = word if "token_file" in more else base64.b64encode(f"node:{word}".encode()).decode()
            assert peer.requests[-1][1]["Authorization"] == shown.format(credential)
        client.release()
    secret.chmod(0o644)
    client = StowClient(Destination("pacs", url=peer.url, token_file=str(secret)), NodeConfig())
    with pytest.raises(Unreachable, match="chmod 600"):
        client.store(dicom_results[0].content)


def test_https_is_checked_and_what_is_no_dicom_is_final(tmp_path: Path, dicom_results: Any) -> None:
    folder, other = certified(tmp_path / "c", "pacs"), certified(tmp_path / "o", "pacs")
    tls = Tls(str(folder / "pacs.pem"), str(folder / "pacs.key"))
    with archive(tls) as peer:
        client = StowClient(Destination("pacs", url=peer.url, ca=str(folder / "ca.pem")), NodeConfig())
        assert client.store(dicom_results[0].content) is None
        with pytest.raises(Refused) as raised:
            client.store(b"<html>")
        assert not raised.value.transient
        client.release()
        for ca in (str(other / "ca.pem"), str(tmp_path / "gone.pem"), None):
            stranger = StowClient(Destination("pacs", url=peer.url, ca=ca), NodeConfig())
            with pytest.raises(Unreachable):
                stranger.store(dicom_results[0].content)
            assert not stranger.was_established
    assert len(peer.kept) == 1


def test_send_and_echo_take_a_url(tmp_path: Path, dicom_results: Any, peer: Archive) -> None:
    (tmp_path / "result.dcm").write_bytes(dicom_results[0].content)
    config = tmp_path / "node.toml"
    config.write_text(f'[[destination]]\nname = "pacs"\nurl = "{peer.url}"\n')
    assert edgecxr("send", tmp_path / "result.dcm", "--to", "pacs", "--config", config, runs=tmp_path).code == 0
    assert [each.SOPInstanceUID for each in peer.kept] == [dicom_results[0].uid]
    for status, code in ((200, 0), (405, 0), (404, 6), (401, 6), (500, 6)):
        peer.status = status
        assert edgecxr("node", "echo", "pacs", "--config", config, runs=tmp_path).code == code
    peer.status, peer.headers = 200, {"Content-Type": "text/html"}
    assert edgecxr("node", "echo", "pacs", "--config", config, runs=tmp_path).code == 6


ORTHANC, PLUGIN = Path("/usr/sbin/Orthanc"), Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

FETCH = """import json, sys, urllib.request
print(urllib.request.urlopen(sys.argv[1]).read().decode())"""


def test_orthanc_gets_the_results_and_gives_them_back(tmp_path: Path, dicom_results: Any) -> None:
    if not (ORTHANC.exists() and PLUGIN.exists()):
        pytest.skip("Orthanc and its DICOMweb plug-in are not installed (Debian: orthanc orthanc-dicomweb)")
    settings = {
        "Name": "PACS", "StorageDirectory": str(tmp_path / "db"), "IndexDirectory": str(tmp_path / "db"),
        "HttpPort": 8042,
        "DicomPort": 4242, "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    files = []
    for result in dicom_results:
        files.append(tmp_path / f"{result.kind}.dcm")
        files[-1].write_bytes(result.content)
    url = "http://127.0.0.1:8042/dicom-web"
    (tmp_path / "node.toml").write_text(f'[[destination]]\nname = "pacs"\nurl = "{url}"\n')
    typed = [*command("edgecxr.cli:main", "send", *map(str, files)), "--to", "pacs", "--config", tmp_path / "node.toml"]
    with alone() as prefix, started(*prefix, ORTHANC, tmp_path / "orthanc.json") as orthanc:
        orthanc.says("Orthanc has started")
        for _ in range(2):  # the second time it has them
            ended = run(*prefix, *typed)
            assert ended.returncode == 0, (ended, orthanc.lines[-5:])
        fetched = run(*prefix, sys.executable, "-c", FETCH, f"{url}/instances")
        assert fetched.returncode == 0, fetched
        uids = {instance["00080018"]["Value"][0] for instance in json.loads(fetched.stdout)}
        assert uids == {each.uid for each in dicom_results}
        eventually(lambda: orthanc.popen.poll() is None)
