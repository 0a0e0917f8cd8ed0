"""Attacks that a plain pynetdicom listener does not survive, and ends of the disk and of the sender."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra node)")

from pynetdicom import AE
from pynetdicom.sop_class import DigitalXRayImageStorageForPresentation as DX

from edgecxr.node.spool import Spool
from edgecxr.workers.new_python import command
from tests.films.dicom_files import film, write
from tests.node.running import PATIENCE, Process, configured, echo, eventually, role, started

LIMITS = """[limits]
free_mib = 1
free_percent = 0.0
first_seconds = 4.0
object_seconds = 4.0
film_mib = 16
"""


@pytest.fixture(scope="module")
def receiving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Path]]:
    """A running receiver with short limits, and its state folder."""
    folder = tmp_path_factory.mktemp("guarded")
    with role("receive", configured(folder, LIMITS)) as process:
        process.says("listens on")
        yield process, folder / "state"
        assert process.popen.poll() is None


@pytest.fixture
def port(receiving: tuple[Process, Path]) -> int:
    return int(receiving[0].says(r"port (\d+)")[1])


def connected(port: int, address: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE, source_address=(address, 0))
    connection.settimeout(PATIENCE)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Read until the peer closes; return whether it does."""
    try:
        while connection.recv(65_536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def memory_peak(process: Process) -> int:
    """Return the greatest size of a process so far, MiB."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def established(port: int) -> object:
    entity = AE("MODALITY")
    entity.add_requested_context(DX, "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", port, ae_title="EDGE")
    assert association.is_established
    return association


@pytest.mark.parametrize("kind", [1, 4])
def test_a_pdu_that_claims_4_gb_is_not_read(receiving: tuple[Process, Path], port: int, kind: int) -> None:
    before = memory_peak(receiving[0])
    with connected(port) as connection:
        connection.sendall(struct.pack(">BBL", kind, 0, 0xFFFFFFFF))
        with contextlib.suppress(OSError):
            for _ in range(300):
                connection.sendall(bytes(1 << 20))
        assert is_closed(connection)
    assert memory_peak(receiving[0]) - before < 100 and echo(port) == 0


def test_idle_connections_of_one_address_hold_off_no_other(port: int) -> None:
    idle = [connected(port, "127.0.0.2") for _ in range(200)]
    try:
        assert echo(port) == 0
        more = [connected(port, f"127.0.1.{host}") for host in range(1, 100)]
        idle += more
        assert echo(port) == 0, "even where there is no room left"
        assert all(is_closed(connection) for connection in idle), "each is closed in the end"
    finally:
        for connection in idle:
            connection.close()


def test_one_association_too_many_of_an_address_is_rejected_for_now(port: int) -> None:
    associations = [established(port) for _ in range(8)]
    try:
        entity = AE("MODALITY")
        entity.add_requested_context(DX)
        refused = entity.associate("127.0.0.1", port, ae_title="EDGE")
        answer = refused.acceptor.primitive
        assert refused.is_rejected and answer is not None
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
    finally:
        for association in associations:
            association.release()  # type: ignore[attr-defined]
    eventually(lambda: echo(port) == 0)


def test_a_byte_now_and_then_is_not_waited_for(port: int) -> None:
    with connected(port) as connection:
        ended = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                connection.sendall(struct.pack(">BBL", 1, 0, 1000))
                while not ended.wait(0.2):
                    connection.sendall(b"\0")

        thread = threading.Thread(target=drip)
        thread.start()
        closed = is_closed(connection)
        ended.set()
        thread.join()
    assert closed and echo(port) == 0


def test_an_object_that_never_ends_is_aborted_and_its_file_goes(receiving: tuple[Process, Path], port: int) -> None:
    incoming = receiving[1] / "incoming"
    association = established(port)
    connection = association.dul.socket.socket  # type: ignore[attr-defined]
    command_set = (
        bytes.fromhex("00000000 04000000 78000000 00000200 1c000000")
        + b"1.2.840.10008.5.1.4.1.1.1.1.1\0"[:28]
        + bytes.fromhex(
            "00000001 02000000 0100 00001001 02000000 0100 00000007 02000000 0200 00000008 02000000 0000"
            "00000010 06000000"
        )
        + b"1.2.3\0"
    )
    connection.sendall(pdu(1, 3, command_set) + pdu(1, 0, bytes(1000)))
    eventually(lambda: list(incoming.iterdir()) != [], "the file is begun")
    until = time.monotonic() + PATIENCE
    with contextlib.suppress(OSError):
        while time.monotonic() < until:
            connection.sendall(pdu(1, 0, bytes(10)))
            time.sleep(0.2)
    eventually(lambda: list(incoming.iterdir()) == [], "the file is removed")
    eventually(lambda: not association.is_established)  # type: ignore[attr-defined]
    assert time.monotonic() < until and echo(port) == 0


def pdu(context: int, control: int, data: bytes) -> bytes:
    """Return a P-DATA-TF PDU with one value (PS3.8, 9.3.5)."""
    return struct.pack(">BBLLBB", 4, 0, len(data) + 6, len(data) + 2, context, control) + data


def test_more_contexts_than_there_are_numbers_end_only_that_connection(port: int) -> None:
    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(content)) + content

    syntaxes = item(0x30, b"1.2.840.10008.1.1") + item(0x40, b"1.2.840.10008.1.2")
    contexts = b"".join(item(0x20, bytes([(2 * n + 1) % 256, 0, 0, 0]) + syntaxes) for n in range(129))
    user = item(0x50, item(0x51, struct.pack(">L", 16_384)) + item(0x52, b"1.2.3"))
    body = struct.pack(">HH16s16s32x", 1, 0, b"EDGE".ljust(16), b"MODALITY".ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + user
    with connected(port) as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, len(body)) + body)
        connection.shutdown(socket.SHUT_WR)
        assert is_closed(connection)
    assert echo(port) == 0


@pytest.mark.parametrize("seed", range(20))
def test_noise_ends_only_its_own_connection(port: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    kind, size = int(random.integers(0, 10)), int(random.integers(0, 3000))
    noise = random.integers(0, 256, size, np.uint8).tobytes()
    with connected(port) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(struct.pack(">BBL", kind, 0, size) + noise)
            connection.shutdown(socket.SHUT_WR)
        assert is_closed(connection)
    if seed % 5 == 0:
        assert echo(port) == 0


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


@pytest.mark.parametrize("missing", ["uid", "class", "command", "everything"])
def test_a_command_that_lacks_something_is_aborted_and_leaves_no_traceback(
    receiving: tuple[Process, Path], port: int, missing: str
) -> None:
    parts = {
        "class": element(2, str(DX).encode() + b"\0"), "command": element(0x100, b"\1\0"),
        "id": element(0x110, b"\1\0"), "priority": element(0x700, b"\0\0"), "data": element(0x800, b"\1\0"),
        "uid": element(0x1000, b"1.7.9\0"),
    }  # fmt: skip
    command_set = b"".join(part for name, part in parts.items() if missing not in (name, "everything"))
    association = established(port)
    plain = association.dul.socket.socket  # type: ignore[attr-defined]
    for flags, content in ((3, command_set), (0, bytes(100)), (2, bytes(100))):
        with contextlib.suppress(OSError):
            plain.sendall(pdu(1, flags, content))
    # pynetdicom's own thread reads the answer of this side.
    eventually(lambda: not association.is_established, "the association ends")  # type: ignore[attr-defined]
    assert echo(port) == 0
    assert not [line for line in receiving[0].lines if "Traceback" in line], receiving[0].lines


def test_what_was_acknowledged_before_an_abort_stays(
    receiving: tuple[Process, Path], port: int, tmp_path: Path
) -> None:
    association = established(port)
    path = write(film(np.ones((64, 64), np.uint8), SOPInstanceUID="1.7.1"), tmp_path, "film.dcm")
    assert association.send_c_store(dcmread(path)).Status == 0  # type: ignore[attr-defined]
    association.dul.socket.socket.sendall(pdu(1, 0, bytes(1000)))  # type: ignore[attr-defined]
    association.abort()  # type: ignore[attr-defined]
    with Spool(receiving[1]) as spool:
        ((number,),) = spool.read("SELECT id FROM film WHERE uid = '1.7.1'")
        assert spool.film_path(number).is_file()
    eventually(lambda: list((receiving[1] / "incoming").iterdir()) == [])


def test_a_disk_that_ends_within_a_film_is_0xa700_and_leaves_nothing(tmp_path: Path) -> None:
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))"
    program = command("edgecxr.node.receiving.receive:main")[-1]
    config = configured(tmp_path)
    with started(sys.executable, "-c", f"{limit}; {program}", config) as process:
        port = int(process.says(r"port (\d+)")[1])
        for size, status in ((1000, 0xA700), (100, 0), (1000, 0xA700)):
            path = write(film(np.ones((size, size), np.uint8), SOPInstanceUID=f"1.7.{size}"), tmp_path, f"{size}.dcm")
            association = established(port)
            assert association.send_c_store(dcmread(path)).Status == status  # type: ignore[attr-defined]
            association.release()  # type: ignore[attr-defined]
        assert echo(port) == 0
    with Spool(tmp_path / "state") as spool:
        assert [row["uid"] for row in spool.read("SELECT uid FROM film")] == ["1.7.100"]
        assert list(spool.incoming.iterdir()) == []
