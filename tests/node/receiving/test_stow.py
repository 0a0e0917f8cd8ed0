"""Receiving by STOW-RS: what is stored, what is refused with which status, and what strangers cannot use up."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import socket
import sqlite3
import ssl
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("python_multipart", reason="python-multipart is not installed (extra node)")
pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra node)")

from pydicom import dcmread
from pydicom.dataset import Dataset

from edgecxr.node.intake import identify
from edgecxr.node.receiving import multipart_films
from edgecxr.node.receiving.answers import BadRequest
from edgecxr.node.spool import Spool
from edgecxr.node.tls.certificates import client_context
from tests.films.dicom_files import film, write
from tests.node.certified import certified, tls_table
from tests.node.running import PATIENCE, Process, configured, eventually, free_port, role

DX = "1.2.840.10008.5.1.4.1.1.1.1"
RELATED = 'multipart/related; type="application/dicom"; boundary=XX'
LIMITS = """[stow]
port = 0
[limits]
free_mib = 1
free_percent = 0.0
first_seconds = 3.0
idle_seconds = 3.0
object_seconds = 4.0
film_mib = 1
"""


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def data_set(self) -> Dataset:
        assert self.headers["Content-Type"] == "application/dicom+json"
        (found,) = json.loads(self.body)
        return Dataset.from_json(json.dumps(found))

    @property
    def stored(self) -> list[str]:
        return [str(item.ReferencedSOPInstanceUID) for item in self.data_set.get("ReferencedSOPSequence", [])]

    @property
    def failed(self) -> list[tuple[str, int]]:
        items = self.data_set.get("FailedSOPSequence", [])
        return [(str(item.ReferencedSOPInstanceUID), item.FailureReason) for item in items]


@pytest.fixture(scope="module")
def receiving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Path]]:
    """A running receiver with short limits, and its state folder."""
    folder = tmp_path_factory.mktemp("stow")
    with role("stow", configured(folder, LIMITS)) as process:
        process.says("stow: listens on http://127.0.0.1:")
        yield process, folder / "state"
        assert process.popen.poll() is None


@pytest.fixture
def port(receiving: tuple[Process, Path]) -> int:
    return int(receiving[0].says(r"127.0.0.1:(\d+)")[1])


@pytest.fixture
def state(receiving: tuple[Process, Path]) -> Path:
    return receiving[1]


def scan(folder: Path, uid: str, seed: int = 0, size: int = 64, **elements: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size), np.uint8)
    stated = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "SOPInstanceUID": uid}
    return write(film(pixels, **stated | elements), folder, "scan.dcm").read_bytes()


def multipart(*parts: bytes, kind: str = "application/dicom", end: bytes = b"\r\n--XX--\r\n") -> bytes:
    header = f"Content-Type: {kind}\r\n\r\n".encode()
    return b"--XX\r\n" + b"\r\n--XX\r\n".join(header + part for part in parts) + end


def post(
    port: int,
    body: bytes | Sequence[bytes],
    path: str = "/dicomweb/studies",
    kind: str | None = RELATED,
    **headers: str,
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        stated = {"Accept": "application/dicom+json", **({} if kind is None else {"Content-Type": kind}), **headers}
        connection.request("POST", path, body=body, headers=stated, encode_chunked=not isinstance(body, bytes))
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def rows(state: Path, uid: str) -> list[Any]:
    with Spool(state) as spool:
        return spool.read("SELECT * FROM film WHERE uid = ? ORDER BY id", uid)


def is_empty(state: Path) -> bool:
    return list((state / "incoming").iterdir()) == []


def test_films_are_stored_as_they_are_and_only_once(tmp_path: Path, port: int, state: Path) -> None:
    films = [scan(tmp_path, f"1.4.1.{number}", number) for number in range(3)]
    for _ in range(2):
        answer = post(port, multipart(*films))
        assert (answer.status, answer.stored, answer.failed) == (200, ["1.4.1.0", "1.4.1.1", "1.4.1.2"], [])
        assert {item.ReferencedSOPClassUID for item in answer.data_set.ReferencedSOPSequence} == {DX}
    for number, content in enumerate(films):
        (row,) = rows(state, f"1.4.1.{number}")
        kept = state / "films" / f"{row['id']}.dcm"
        assert kept.read_bytes()[128:] == content[128:] and identify(kept).digest == row["digest"]
        assert (row["state"], row["source"]) == ("received", "STOW at 127.0.0.1")
    assert is_empty(state)


def test_a_film_that_came_by_other_ways_is_the_same_film_and_its_preamble_is_zeroed(
    tmp_path: Path, port: int, state: Path
) -> None:
    content = scan(tmp_path, "1.4.2")
    program = b"#!/bin/sh\n".ljust(128, b"x") + content[128:]
    assert post(port, multipart(program)).status == post(port, multipart(content)).status == 200
    (row,) = rows(state, "1.4.2")
    assert (state / "films" / f"{row['id']}.dcm").read_bytes()[:132] == bytes(128) + b"DICM"


@pytest.mark.parametrize("size", [1, 7, 100, 70_000])
def test_chunks_of_any_size_are_put_together(tmp_path: Path, port: int, state: Path, size: int) -> None:
    content = scan(tmp_path, f"1.4.3.{size}", size=16 if size == 1 else 300)
    body = multipart(content)
    answer = post(port, [body[at : at + size] for at in range(0, len(body), size)])
    assert answer.status == 200 and len(rows(state, f"1.4.3.{size}")) == 1


def test_a_boundary_within_pixels_is_none(tmp_path: Path, port: int, state: Path) -> None:
    content = scan(tmp_path, "1.4.4", Manufacturer="\r\n--X") + b"\r\n--XY\r\n--X"
    assert post(port, multipart(content)).status == 200
    (row,) = rows(state, "1.4.4")
    assert (state / "films" / f"{row['id']}.dcm").read_bytes()[128:] == content[128:]


def test_some_stored_is_202_none_is_409_each_with_its_reason(tmp_path: Path, port: int, state: Path) -> None:
    good = scan(tmp_path, "1.4.5.0")
    ct = scan(tmp_path, "1.4.5.1", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    mpeg = scan(tmp_path, "1.4.5.2").replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0")
    page, empty, cut, archive = b"<html>" * 100, b"", good[:200], io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("film.dcm", good)
    answer = post(port, multipart(good, ct, mpeg, page, empty, cut, archive.getvalue(), bomb(good, 300)))
    assert answer.status == 202 and answer.stored == ["1.4.5.0"]
    assert answer.failed == [("1.4.5.1", 0x0122), ("1.4.5.2", 0xC122)]
    assert [item.FailureReason for item in answer.data_set[0x0008119A].value] == [0xC000] * 5
    assert post(port, multipart(bomb(scan(tmp_path, "1.4.5.3"), 0))).stored == ["1.4.5.3"], "one that is none"
    answer = post(port, multipart(ct, page))
    assert answer.status == 409 and answer.stored == [] and len(answer.failed) == 1
    assert rows(state, "1.4.5.1") == rows(state, "1.4.5.2") == [] and is_empty(state)


def bomb(content: bytes, mib: int) -> bytes:
    """Return a film, deflated, whose header has so much before it names the film."""
    explicit, deflated = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"
    meta, _, rest = content.partition(explicit)
    length = int.from_bytes(meta[140:144], "little") + len(deflated) - len(explicit)
    start = 144 + length - len(meta) - len(deflated)  # of the data set
    meta = meta[:140] + length.to_bytes(4, "little") + meta[144:-2] + len(deflated).to_bytes(2, "little") + deflated
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = packer.compress(b"\x08\x00\x05\x00UN\0\0" + (mib << 20).to_bytes(4, "little"))
    packed += b"".join(packer.compress(bytes(1 << 20)) for _ in range(mib)) + packer.compress(rest[start:])
    return meta + rest[:start] + packed + packer.flush()


def test_a_study_that_is_named_is_compared(tmp_path: Path, port: int, state: Path) -> None:
    mine, other = scan(tmp_path, "1.4.6.0"), scan(tmp_path, "1.4.6.1", StudyInstanceUID="1.2.99")
    answer = post(port, multipart(mine, other), "/dicomweb/studies/1.2.3")
    assert (answer.status, answer.stored, answer.failed) == (202, ["1.4.6.0"], [("1.4.6.1", 0xA900)])


@pytest.mark.parametrize("uid", ["../../x", "1.2.3 4", "", "1." + "2" * 63])
def test_odd_uids_are_refused(tmp_path: Path, port: int, state: Path, uid: str) -> None:
    content = scan(tmp_path, "1.4.7.77777777777777")
    padded = (uid.encode() + b"\0" * 70)[: len("1.4.7.77777777777777")]
    if len(uid) > 20:
        content = scan(tmp_path, uid)
        padded = b""
    answer = post(port, multipart(content.replace(b"1.4.7.77777777777777", padded) if padded else content))
    assert answer.status == 409 and answer.stored == answer.failed == []
    (item,) = answer.data_set[0x0008119A].value
    assert item.FailureReason in (0xA900, 0xC000) and is_empty(state)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (None, 415), ("application/dicom", 415), ("multipart/form-data; boundary=XX", 415),
        ('multipart/related; type="application/dicom+json"; boundary=XX', 415), ("text/html; boundary=XX", 415),
        ('multipart/related; type="application/dicom"', 400), ("multipart/related; boundary=", 400),
        (f"multipart/related; boundary={'X' * 71}", 400), ("multipart/related; boundary=\"X\tX\"", 400),
        ("multipart/related; boundary=YY", 400), ("multipart/related; boundary*=utf-8''XX", 200),
        ("Multipart/Related; Type=\"Application/DICOM\"; Boundary=\"XX\"", 200),
    ],
)  # fmt: skip
def test_the_type_of_the_content_decides(tmp_path: Path, port: int, state: Path, kind: str | None, status: int) -> None:
    answer = post(port, multipart(scan(tmp_path, "1.4.8")), kind=kind)
    assert answer.status == status, answer.body
    assert status == 200 or answer.body.count(b"\n") == 1


def test_bodies_that_are_no_films_are_refused(tmp_path: Path, port: int, state: Path) -> None:
    content = scan(tmp_path, "1.4.9")
    inner = multipart(content).replace(b"XX", b"YY")
    for body, status in (
        (b"", 400), (b"--XX--\r\n", 400), (b"--XX\r\n\r\n", 400), (multipart(content, end=b""), 400),
        (multipart(content, end=b"\r\n--XX\r\n"), 400), (multipart(content)[:3000], 400), (content, 400),
        (multipart(inner, kind='multipart/related; boundary="YY"'), 415), (multipart(content, kind="text/html"), 415),
        (b"--XX\r\nContent-Transfer-Encoding: base64\r\n\r\n" + content + b"\r\n--XX--", 415),
        (b"--XX\r\n" + b"A: b\r\n" * 20 + b"\r\n" + content + b"\r\n--XX--", 400),
        (b"--XX\r\nA: " + b"b" * 100_000 + b"\r\n\r\n" + content + b"\r\n--XX--", 400),
        (b"--XX\r\n\xff\xfe: b\r\n\r\n" + content + b"\r\n--XX--", 400),
    ):  # fmt: skip
        answer = post(port, body)
        assert answer.status == status, (body[:80], answer)
    # What came before the fault stays, and is named: the first film was whole.
    answer = post(port, multipart(content, end=b"\r\n--XX\r\n\r\n"))
    assert answer.status == 400 and answer.stored == ["1.4.9"] and is_empty(state)


def test_a_film_that_is_too_large_is_413_and_leaves_nothing(tmp_path: Path, port: int, state: Path) -> None:
    large = scan(tmp_path, "1.4.10.1", size=1200)
    answer = post(port, multipart(scan(tmp_path, "1.4.10.0"), large))
    assert answer.status == 413 and answer.stored == ["1.4.10.0"]
    assert rows(state, "1.4.10.1") == [] and is_empty(state)


def test_other_paths_and_methods(port: int) -> None:
    for path in ("/", "/dicomweb/studies/../x", "/dicomweb/studies/a", "/dicomweb/studies/" + "1" * 65, "/studies"):
        assert post(port, b"", path).status == 404
    for host in ("localhost/dicomweb/studies?", "localhost/a/..", "a@localhost#"):
        assert post(port, b"", "/other", Host=host).status == 404
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request(method, "/dicomweb/studies")
        response = connection.getresponse()
        assert (response.status, response.headers["Allow"]) == (405, "POST")
        connection.close()


def test_without_a_token_another_name_of_this_machine_is_refused(tmp_path: Path, port: int, state: Path) -> None:
    body = multipart(scan(tmp_path, "1.4.20"))
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost@evil.example"):
        assert post(port, body, Host=host).status == 403 and rows(state, "1.4.20") == []
    for host in ("localhost", f"LOCALHOST:{port}", f"127.0.0.1:{port}", "[::1]:80"):
        assert post(port, body, Host=host).status == 200


def said(port: int, request: bytes, more: bytes = b"") -> bytes:
    """Return what the node answers to bytes, until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        found = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(request + more)
            while part := connection.recv(65_536):
                found += part
        return found


HEAD = f"POST /dicomweb/studies HTTP/1.1\r\nHost: localhost\r\nContent-Type: {RELATED}\r\n".encode()


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"\r\n", b"411"), (b"Content-Length: x\r\n\r\n", b"400"), (b"Content-Length: -1\r\n\r\n", b"400"),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"Transfer-Encoding: gzip\r\n\r\n", b"400"), (b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", b"400"),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n", b"400"),
        (b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 20_000, b"400"),
        (b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabcdef\r\n", b"400"),
    ],
)  # fmt: skip
def test_lengths_that_are_none_end_the_connection(port: int, lines: bytes, status: bytes) -> None:
    assert said(port, HEAD + lines).startswith(b"HTTP/1.1 " + status)


def test_an_endless_header_and_an_endless_line_are_not_read(receiving: tuple[Process, Path], port: int) -> None:
    before = memory_peak(receiving[0])
    for endless in (b"X-%d: " + b"a" * 60_000 + b"\r\n", b"a" * 60_000):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection,
            contextlib.suppress(OSError),
        ):
            connection.sendall(HEAD)
            for _ in range(2000):
                connection.sendall(endless)
            pytest.fail("120 MB of header were taken")
    assert memory_peak(receiving[0]) - before < 20


def memory_peak(process: Process) -> int:
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def test_large_films_need_no_memory(tmp_path: Path) -> None:
    content = scan(tmp_path, "1.4.11", size=6000)
    before_path = tmp_path / "state"
    with role("stow", configured(tmp_path, "[stow]\nport = 0\n")) as process:
        port = int(process.says(r"127.0.0.1:(\d+)")[1])
        assert post(port, multipart(scan(tmp_path, "1.4.11.1"))).status == 200
        before = memory_peak(process)
        threads = [threading.Thread(target=post, args=(port, multipart(content))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(rows(before_path, "1.4.11")) == 1 and len(content) > 36_000_000
        assert memory_peak(process) - before < 30


@pytest.mark.parametrize("rest", [b"", b"Content-Le", b"Content-Length: 1000\r\n\r\n--XX\r\n"])
def test_a_byte_now_and_then_is_not_waited_for(port: int, state: Path, rest: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(HEAD + rest)
        until = time.monotonic() + PATIENCE
        with contextlib.suppress(OSError):
            while time.monotonic() < until:
                connection.sendall(b"a")
                time.sleep(0.2)
        assert time.monotonic() < until
    eventually(lambda: is_empty(state))


def test_a_client_that_goes_leaves_nothing(tmp_path: Path, port: int, state: Path) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + multipart(bytes(50_000), end=b""))
        eventually(lambda: not is_empty(state))
    eventually(lambda: is_empty(state))


def test_idle_connections_hold_off_no_other_address(tmp_path: Path, port: int) -> None:
    idle = [socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0)) for _ in range(60)]
    try:
        assert post(port, multipart(scan(tmp_path, "1.4.12"))).status == 200
    finally:
        for connection in idle:
            connection.close()


def test_several_requests_go_over_one_connection(tmp_path: Path, port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    for number in range(3):
        body = multipart(scan(tmp_path, f"1.4.13.{number}"))
        connection.request("POST", "/dicomweb/studies", body, {"Content-Type": RELATED})
        response = connection.getresponse()
        assert response.status == 200 and response.read()
        if number == 0:
            used = connection.sock
    assert connection.sock is used
    connection.close()


def test_who_asks_before_sending_is_told_to_go_on(tmp_path: Path, port: int) -> None:
    body = multipart(scan(tmp_path, "1.4.14"))
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(HEAD + f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(15).startswith(b"HTTP/1.1 200")
    refused = said(port, HEAD.replace(b"related", b"mixed") + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 415")


def test_no_room_is_503_with_the_time_to_wait(tmp_path: Path) -> None:
    for limit in ("queue = 1\nfree_mib = 1\nfree_percent = 0.0", "free_percent = 100.0"):
        folder = tmp_path / limit[:5]
        folder.mkdir()
        with role("stow", configured(folder, f"[stow]\nport = 0\n[limits]\n{limit}\n")) as process:
            port = int(process.says(r"127.0.0.1:(\d+)")[1])
            answers = [post(port, multipart(scan(tmp_path, f"1.4.15.{number}"))) for number in range(2)]
            assert [answer.status for answer in answers] == [200 if limit.startswith("queue") else 503, 503]
            assert int(answers[1].headers["Retry-After"]) > 0
        assert is_empty(folder / "state")


def test_a_database_that_fails_is_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecxr.node.limits import Limits
    from edgecxr.node.node_config import NodeConfig
    from edgecxr.node.node_process import Stop
    from edgecxr.node.receiving import stow
    from edgecxr.node.receiving.stow_settings import Stow

    config = NodeConfig(state=str(tmp_path / "state"), limits=Limits(free_mib=0, free_percent=0))
    with Spool(tmp_path / "state") as spool, stow.listening(config, Stow(port=0), spool, Stop()) as port:

        def fails(*_: Any) -> Any:
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(spool, "read", fails)
        answer = post(port, multipart(scan(tmp_path, "1.4.20")))
        assert answer.status == 503 and int(answer.headers["Retry-After"]) > 0
        monkeypatch.undo()
        assert post(port, multipart(scan(tmp_path, "1.4.20"))).status == 200


def test_a_fault_that_nobody_foresaw_is_said_and_ends_one_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from edgecxr.node.limits import Limits
    from edgecxr.node.node_config import NodeConfig
    from edgecxr.node.node_process import Stop
    from edgecxr.node.receiving import stow
    from edgecxr.node.receiving.stow_settings import Stow

    def fails(*_: Any) -> Any:
        raise RuntimeError("nobody foresaw this")

    config = NodeConfig(state=str(tmp_path / "state"), limits=Limits(free_mib=0, free_percent=0))
    with Spool(tmp_path / "state") as spool, stow.listening(config, Stow(port=0), spool, Stop()) as port:
        monkeypatch.setattr(stow, "FilmParts", fails)
        assert post(port, multipart(scan(tmp_path, "1.4.21"))).status == 500
        monkeypatch.undo()
        assert post(port, multipart(scan(tmp_path, "1.4.21"))).status == 200
    assert "nobody foresaw this" in capfd.readouterr().err


def test_the_page_of_the_node_names_each_status_of_a_refusal() -> None:
    from edgecxr.node.receiving import stow

    raised: set[str] = {"400", "408"}
    for module in (multipart_films, stow):
        raised |= set(re.findall(r"BadRequest\(.*, (\d{3})\)", Path(str(module.__file__)).read_text()))
    page = (Path(__file__).parents[3] / "docs" / "node.md").read_text()
    table = page.partition("| status | |")[2].partition("\n\n")[0]
    named = {status for row in table.splitlines() for status in re.findall(r"\d{3}", row.split("|")[1] if row else "")}
    assert raised <= named


def test_more_films_than_a_request_may_have_is_413(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart_films, "MOST_FILMS", 2)
    from edgecxr.node.audit.audit_events import Audit, Source
    from edgecxr.node.limits import Limits
    from edgecxr.node.node_config import NodeConfig

    limits, audit = Limits(free_mib=0, free_percent=0), Audit(NodeConfig(state=str(tmp_path / "state")), "stow")
    body = multipart(*(scan(tmp_path, f"1.4.16.{number}") for number in range(3)))
    with Spool(tmp_path / "state") as spool:
        parts = multipart_films.FilmParts("XX", spool, limits, Source("STOW", "::1"), audit, None)
        with pytest.raises(BadRequest) as raised:
            parts.feed(body)
        assert raised.value.status == 413 and len(parts.outcomes) == 2


def test_a_token_is_asked_for_and_may_be_exchanged(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a" * 32 + "\n")
    token.chmod(0o600)
    body = multipart(scan(tmp_path, "1.4.17"))
    with role("stow", configured(tmp_path, '[stow]\nport = 0\ntoken_file = "token"\n')) as process:
        port = int(process.says(r"127.0.0.1:(\d+)")[1])
        for shown in ({}, {"Authorization": "Bearer " + "b" * 32}, {"Authorization": "Basic " + "a" * 32}):
            answer = post(port, body, **shown)
            assert answer.status == 401 and "Bearer" in answer.headers["WWW-Authenticate"]
        assert post(port, body, Authorization="Bearer " + "a" * 32).status == 200
        token.write_text("c" * 32)
        assert post(port, body, Authorization="Bearer " + "a" * 32).status == 401
        assert post(port, body, Authorization="bearer  " + "c" * 32).status == 200
        token.chmod(0o644)
        assert post(port, body, Authorization="Bearer " + "c" * 32).status == 503
        process.says("chmod 600")


@pytest.mark.parametrize("content", ["short", "a" * 5000, "\0" * 40])
def test_a_token_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    (tmp_path / "token").chmod(0o600)
    with role("stow", configured(tmp_path, '[stow]\nport = 0\ntoken_file = "token"\n')) as process:
        assert process.popen.wait(timeout=PATIENCE) == 2
        eventually(lambda: len(process.lines) == 1)
        assert "/token" in process.lines[0]


def test_no_film_is_lost_when_it_is_killed(tmp_path: Path) -> None:
    config = configured(tmp_path, f"[stow]\nport = {free_port()}\n")
    port = int(config.read_text().partition("[stow]\nport = ")[2].split()[0])
    acknowledged: list[str] = []
    ended = threading.Event()

    def keep_sending() -> None:
        number = 0
        while not ended.is_set():
            uid = f"1.4.19.{number}"
            try:
                if post(port, multipart(scan(tmp_path, uid, size=700))).stored == [uid]:
                    acknowledged.append(uid)
                    number += 1
            except (OSError, http.client.HTTPException):
                ended.wait(0.05)

    thread = threading.Thread(target=keep_sending)
    thread.start()
    moment = np.random.default_rng(0)
    for _ in range(4):
        with role("stow", config):
            before = len(acknowledged)
            eventually(lambda before=before: len(acknowledged) > before)
            time.sleep(moment.uniform(0, 0.2))
    ended.set()
    thread.join(timeout=PATIENCE)
    with Spool(tmp_path / "state") as spool:
        kept = spool.read("SELECT id, uid, digest FROM film")
        assert set(acknowledged) <= {row["uid"] for row in kept} and len({row["uid"] for row in kept}) == len(kept)
        assert all(identify(spool.film_path(row["id"])).digest == row["digest"] for row in kept)
        spool.sweep()
        assert is_empty(tmp_path / "state") and {row["id"] for row in kept} == {
            int(p.stem) for p in spool.films.iterdir()
        }


def test_https_films_and_who_does_not_finish_the_handshake(tmp_path: Path) -> None:
    folder = certified(tmp_path / "c", "node")
    more = tls_table(folder) + "[stow]\nport = 0\n[limits]\nfree_mib = 1\nfree_percent = 0.0\nhandshake_seconds = 3.0\n"
    body = multipart(scan(tmp_path, "1.4.18"))
    with role("stow", configured(tmp_path, more)) as process:
        port = int(process.says(r"https://127.0.0.1:(\d+)")[1])
        silent = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) for _ in range(7)]
        context = client_context(str(folder / "ca.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=PATIENCE)
        connection.request("POST", "/dicomweb/studies", body, {"Content-Type": RELATED})
        assert connection.getresponse().status == 200
        connection.close()
        for each in silent:
            assert each.recv(1) == b""
            each.close()
        with pytest.raises((OSError, http.client.HTTPException)):
            post(port, body)
        with socket.create_connection(("127.0.0.1", port)) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
            client_context(None).wrap_socket(plain, server_hostname="127.0.0.1")
    assert dcmread(tmp_path / "state" / "films" / "1.dcm").SOPInstanceUID == "1.4.18"
