"""The process of the page: where it listens, TLS, bounds for bad clients, and what it does not load."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed (extra node)")
pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra node)")

from edgecxr.errors import UsageError
from edgecxr.node.http.bounded_connection import Bounds
from edgecxr.node.node_config import NodeConfig, Web
from edgecxr.node.tls.authority import certify
from edgecxr.node.web import web_process
from edgecxr.node.web.users import add_user
from edgecxr.node.web.web_settings import check_web
from tests.node.running import PATIENCE, configured, eventually, free_port, role
from tests.node.web.pages import served

PASSWORD = "a long password"


def certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Return files of an authority, of a certificate for 127.0.0.1, and of its key."""
    certify(folder, "node", ("127.0.0.1",), 90)
    return folder / "ca.pem", folder / "node.pem", folder / "node.key"


def test_the_process_serves_its_page_and_ends_when_told(tmp_path: Path) -> None:
    config = configured(tmp_path)
    with role("web", config) as process:
        port = int(process.says(r"the page is at http://127.0.0.1:(\d+)/")[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("GET", "/films")
        response = connection.getresponse()
        assert response.status == 200 and b"No films so far" in response.read()
        assert process.stop() == 0


def test_a_port_in_use_is_an_error_that_names_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = configured(tmp_path, f"[web]\nport = {port}\n")
        with role("web", config) as process:
            process.says(rf"web: \[web\] 127.0.0.1 port {port}")
            assert process.popen.wait(timeout=PATIENCE) == 2


def test_the_page_loads_neither_the_dicom_network_nor_a_model() -> None:
    code = "import json, sys; import edgecxr.node.web.web_process; print(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(ended.stdout)}
    assert loaded & {"uvicorn", "pynetdicom", "pydicom", "highdicom", "onnxruntime", "PIL"} == {"uvicorn"}
    assert "edgecxr.infer.predictor" not in json.loads(ended.stdout)


def test_others_reach_the_page_by_tls_and_with_a_password_only(tmp_path: Path, quick: None) -> None:
    with pytest.raises(UsageError, match=r"\[web\] address = '10.1.2.3'"):
        Web(address="10.1.2.3")
    with pytest.raises(UsageError, match="certificate and key"):
        Web(certificate="node.pem")
    for address in ("", "example.org", "10.1.2.3/24"):
        with pytest.raises(UsageError, match="IP address"):
            Web(address=address)
    _, pem, key = certificate(tmp_path)
    config = NodeConfig(state=str(tmp_path / "state"), web=Web(True, "0.0.0.0", 8443, str(pem), str(key)))
    with pytest.raises(UsageError, match="edgecxr node user add"):
        check_web(config)
    add_user(tmp_path / "state", "jane", "admin", PASSWORD)
    (line,) = check_web(config)
    assert "https://0.0.0.0:8443/" in line and "1 user" in line
    key.write_text("no key")
    with pytest.raises(UsageError, match="are no certificate"):
        check_web(config)
    assert check_web(NodeConfig(web=Web(enabled=False))) == ["web page: none"]


def over_tls(port: int, ca: Path, settings: Callable[[ssl.SSLContext], object] = lambda _: None) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(ca))
    settings(context)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), PATIENCE), server_hostname="127.0.0.1")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_is_1_2_or_later_and_a_new_certificate_is_used(tmp_path: Path) -> None:
    ca, pem, key = certificate(tmp_path)
    more = f'[web]\nport = {free_port()}\ncertificate = "{pem}"\nkey = "{key}"\n'
    config = configured(tmp_path, more)
    with role("web", config) as process:
        port = int(process.says(r"https://127.0.0.1:(\d+)/")[1])
        with over_tls(port, ca) as connection:
            first = connection.getpeercert(binary_form=True)
            connection.sendall(b"GET /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            answer = b""
            while part := connection.recv(1 << 16):
                answer += part
        head = answer.partition(b"\r\n\r\n")[0].decode().lower()
        assert head.startswith("http/1.1 200") and "strict-transport-security" in head
        assert "set-cookie: __host-edgecxr=" in head and "; secure" in head

        def old(context: ssl.SSLContext) -> None:
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
            context.set_ciphers("ALL:@SECLEVEL=0")

        with pytest.raises((ssl.SSLError, ConnectionError)):
            over_tls(port, ca, old)
        certify(tmp_path, "node", ("127.0.0.1",), 90, renew=True)
        process.says("read certificates again")
        with over_tls(port, ca) as connection:
            assert connection.getpeercert(binary_form=True) != first


def ended_after(connection: socket.socket) -> float:
    """Return the seconds until the other side hangs up."""
    began = time.monotonic()
    connection.settimeout(PATIENCE)
    with contextlib.suppress(ConnectionError):
        while connection.recv(4096):
            pass
    return time.monotonic() - began


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\nHost: x", b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nab"],
    ids=["silent", "half a header", "half a body"],
)
def test_a_request_that_does_not_end_is_ended(state: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(web_process, "BOUNDS", Bounds(request_seconds=0.5))
    with served(state) as browser, socket.create_connection(("127.0.0.1", browser.port)) as connection:
        connection.sendall(sent)
        assert ended_after(connection) >= 0.3
        assert browser.get("/healthz").status == 200


def test_a_byte_now_and_then_does_not_keep_a_connection(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_process, "BOUNDS", Bounds(request_seconds=1.0))
    with served(state) as browser, socket.create_connection(("127.0.0.1", browser.port)) as connection:
        request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        connection.sendall(request)  # a whole one first: the connection is kept
        answer = b""
        while not answer.endswith(b"ok\n"):
            answer += connection.recv(4096)
        ended = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not ended.wait(0.1):
                    connection.sendall(b"G")

        thread = threading.Thread(target=drip)
        thread.start()
        ended_after(connection)
        ended.set()
        thread.join()


def test_there_are_so_many_connections_and_no_more(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_process, "BOUNDS", Bounds(per_address=100))
    with served(state) as browser, contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(socket.create_connection(("127.0.0.1", browser.port)))
            for _ in range(web_process.BOUNDS.connections + 8)
        ]
        for connection in held[-8:]:
            assert ended_after(connection) < web_process.BOUNDS.request_seconds
        for connection in held[:8]:
            connection.close()
        eventually(lambda: answers(browser.port), "others are served again")


def test_one_address_leaves_connections_for_others(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_process, "BOUNDS", Bounds(per_address=4))
    with served(state) as browser, contextlib.ExitStack() as stack:
        place, other = ("127.0.0.1", browser.port), ("127.0.0.2", 0)
        for _ in range(4):
            stack.enter_context(socket.create_connection(place, source_address=other))
        late = stack.enter_context(socket.create_connection(place, PATIENCE, source_address=other))
        with contextlib.suppress(ConnectionError):
            late.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert late.recv(4096) == b""
        assert answers(browser.port)


def answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


@pytest.mark.parametrize(
    "sent",
    [b"\0" * 100 + b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /%00%ff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
     b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
     b"GET http://evil.example/films HTTP/1.1\r\nHost: evil.example\r\n\r\n",
     b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
     b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n" + b"x" * 40_000,
     b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: edgecxr=\xff\xfe; ; =\r\n\r\n",
     b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64],
)  # fmt: skip
def test_what_is_no_proper_request_harms_nothing(state: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(web_process, "BOUNDS", Bounds(request_seconds=0.5))
    with served(state) as browser:
        with socket.create_connection(("127.0.0.1", browser.port)) as connection:
            connection.sendall(sent)
            connection.settimeout(PATIENCE)
            with contextlib.suppress(ConnectionError):
                assert b"Quispe" not in connection.recv(1 << 16)
        assert browser.get("/healthz").status == 200


def shown_certificate(port: int) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection,
        context.wrap_socket(connection) as secured,
    ):
        shown = secured.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def test_a_certificate_that_fits_is_taken_at_once_and_another_never(tmp_path: Path) -> None:
    _, pem, key = certificate(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    _, new_pem, new_key = certificate(other)
    config = configured(tmp_path, f'[web]\ncertificate = "{pem}"\nkey = "{key}"\n')
    with role("web", config) as process:
        port = int(process.says(r"the page is at https://127.0.0.1:(\d+)/")[1])
        before = shown_certificate(port)
        key.write_bytes(new_key.read_bytes())
        process.says("the certificates of before are used on")
        assert shown_certificate(port) == before
        pem.write_bytes(new_pem.read_bytes())
        eventually(lambda: shown_certificate(port) == ssl.PEM_cert_to_DER_cert(first(new_pem)), "it is taken")
        assert process.stop() == 0


def first(pem: Path) -> str:
    """Return the first certificate of a file."""
    end = "-----END CERTIFICATE-----"
    return pem.read_text().partition(end)[0] + end
