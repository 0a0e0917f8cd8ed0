"""HTTP on a socket: who is counted from when, what ends it, and what does not."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra node)")

from edgecxr.errors import EdgeCxrError, UsageError
from edgecxr.node.http.bounded_connection import Bounds
from edgecxr.node.http.http_listener import HttpListener
from edgecxr.node.http.listening_socket import listening_socket
from edgecxr.node.node_process import Stop
from edgecxr.node.tls.certificates import Renewed, Tls, client_context, server_context
from tests.node.certified import certified
from tests.node.running import PATIENCE, eventually


async def greeting(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextmanager
def serving(
    bounds: Bounds, certificates: Renewed | None = None, each_second: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, HttpListener, Stop]]:
    stop, listener = Stop(), HttpListener(greeting, bounds, certificates, each_second)
    with listening_socket("web", "127.0.0.1", 0) as sock:
        thread = stop.background("the listener", lambda: listener.run(sock, stop))
        yield sock.getsockname()[1], listener, stop
        stop.request()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def answer(port: int, context: ssl.SSLContext | None = None) -> http.client.HTTPResponse:
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        if context is None
        else http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=PATIENCE)
    )
    with contextlib.closing(connection):
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        return response


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(PATIENCE)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_an_answer_has_its_date() -> None:
    with serving(Bounds()) as (port, _, _):
        eventually(lambda: answer(port).headers["Date"], "the date is there")


def test_connections_in_their_handshake_are_counted_and_ended(tmp_path: Path) -> None:
    folder = certified(tmp_path, "node")
    own = Tls(str(folder / "node.pem"), str(folder / "node.key"))
    renewed = Renewed(lambda: server_context(own), [own.certificate, own.key], "web")
    bounds = Bounds(connections=3, per_address=2, handshake_seconds=1.0)
    with serving(bounds, renewed) as (port, listener, _), contextlib.ExitStack() as stack:

        def connected(source: str) -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0)))

        silent = [connected("127.0.0.2") for _ in range(2)]
        assert is_closed(connected("127.0.0.2")) and listener.refused == {"address": 1}
        silent.append(connected("127.0.0.3"))
        assert is_closed(connected("127.0.0.4")) and listener.refused == {"address": 1, "connections": 1}
        assert all(is_closed(connection) for connection in silent)
        context = client_context(str(folder / "ca.pem"))
        eventually(lambda: listener.refused["tls"] == 3, "handshakes that failed are counted")
        assert answer(port, context).status == 200
        plain = connected("127.0.0.2")
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert is_closed(plain) or is_closed(plain)
        eventually(lambda: listener.refused["tls"] == 4, "so is who speaks no TLS")
        for _ in range(6):  # a place that is left is free again
            assert answer(port, context).status == 200


def test_places_are_free_again_however_a_connection_ends() -> None:
    with serving(Bounds(connections=2, per_address=2, request_seconds=0.5)) as (port, listener, _):
        place = ("127.0.0.1", port)
        for sent in (b"", b"GET / HT", b"\0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") * 3:
            with socket.create_connection(place, PATIENCE) as connection:
                connection.sendall(sent)
        with socket.create_connection(place, PATIENCE) as silent:
            assert is_closed(silent)
        eventually(lambda: not listener._open, "none is open")
        assert answer(port).status == 200


WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
PIECES = st.sampled_from([
    WHOLE, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab", b"Transfer-Encoding: chunked\r\n\r\nfff",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n\r\n", b"Upgrade: websocket\r\n", b"PRI * HTTP/2.0\r\n\r\n",
    b"\r\n",
])  # fmt: skip


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    clients=st.lists(
        st.tuples(st.lists(PIECES | st.binary(max_size=40), max_size=4), st.sampled_from(["close", "half", "reset"])),
        min_size=1, max_size=3,
    )
)  # fmt: skip
def test_whatever_is_sent_the_place_is_free_again_and_others_are_answered(
    clients: list[tuple[list[bytes], str]],
) -> None:
    with serving(Bounds(connections=4, per_address=4, request_seconds=0.3)) as (port, listener, stop):
        for pieces, end in clients:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
                for piece in pieces:
                    connection.sendall(piece)
                if end == "half":
                    connection.shutdown(socket.SHUT_WR)
                elif end == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        eventually(lambda: not listener._open, "no place is held")
        assert answer(port).status == 200 and not stop.requested


def test_a_listener_waits_for_descriptors_and_ends_with_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    accept, failures = asyncio.selector_events.BaseSelectorEventLoop.sock_accept, [errno.EMFILE, errno.ECONNABORTED]

    async def failing(loop: Any, sock: socket.socket) -> Any:
        if failures:
            raise OSError(failures.pop(), "it fails")
        return await accept(loop, sock)

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_accept", failing)
    with serving(Bounds()) as (port, _, stop):
        assert answer(port).status == 200 and not failures
        failures.append(errno.EBADF)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE):
            assert stop.wait(PATIENCE)
    with pytest.raises(EdgeCxrError, match="the listener has ended"):
        stop.check()


def test_what_is_due_each_second_holds_up_no_answer() -> None:
    held, release = threading.Event(), threading.Event()

    def slow() -> None:
        held.set()
        release.wait(PATIENCE)

    with serving(Bounds(), each_second=slow) as (port, _, _):
        assert held.wait(PATIENCE) and answer(port).status == 200
        release.set()


def test_an_answer_that_has_begun_is_finished_before_the_end() -> None:
    begun, release = threading.Event(), threading.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        import asyncio

        begun.set()
        await asyncio.get_running_loop().run_in_executor(None, release.wait, PATIENCE)
        await greeting(scope, receive, send)

    stop, answers = Stop(), []
    listener = HttpListener(slow, Bounds(), None, lambda: None)
    with listening_socket("web", "127.0.0.1", 0) as sock:
        thread = stop.background("the listener", lambda: listener.run(sock, stop))
        client = threading.Thread(target=lambda: answers.append(answer(sock.getsockname()[1]).status))
        client.start()
        assert begun.wait(PATIENCE)
        stop.request()
        time.sleep(0.5)
        release.set()
        client.join(PATIENCE)
        thread.join(PATIENCE)
    assert answers == [200] and not thread.is_alive()


def test_an_address_of_another_machine_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"^\[stow\] 192\.0\.2\.1 port 1 "):
        listening_socket("stow", "192.0.2.1", 1)
