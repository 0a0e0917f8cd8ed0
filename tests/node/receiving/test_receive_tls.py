"""Receiving by TLS: real senders, and strangers with other certificates, none, or nothing to say."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra node)")

from pynetdicom import AE
from pynetdicom.sop_class import DigitalXRayImageStorageForPresentation as DX

from edgecxr.node.spool import Spool
from edgecxr.node.tls.authority import certify
from edgecxr.node.tls.certificates import client_context
from tests.films.dicom_files import film, write
from tests.node.certified import certified, tls_table, until
from tests.node.running import PATIENCE, Process, configured, dcmtk, echo, eventually, role, run

LIMITS = "[limits]\nfree_mib = 1\nfree_percent = 0.0\nhandshake_seconds = 3.0\nfirst_seconds = 4.0\n"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified(tmp_path_factory.mktemp("clinic"), "node", "modality", "late")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified(tmp_path_factory.mktemp("strangers"), "modality")


@pytest.fixture(scope="module")
def receiving(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Path]]:
    """A running receiver of TLS, and its folder."""
    folder = tmp_path_factory.mktemp("receiving")
    with role("receive", configured(folder, tls_table(certificates) + LIMITS)) as process:
        assert process.says("listens on .*port").string.endswith("by TLS")
        yield process, folder
        assert process.popen.poll() is None


@pytest.fixture
def port(receiving: tuple[Process, Path]) -> int:
    return int(receiving[0].says(r"port (\d+)")[1])


def dcmtk_tls(folder: Path, name: str = "modality", ca: Path | None = None) -> list[str | Path]:
    return ["+tls", folder / f"{name}.key", folder / f"{name}.pem", "+cf", (ca or folder) / "ca.pem"]


def echo_tls(port: int, *tls: str | Path) -> int:
    calls = ("-aet", "MODALITY", "-aec", "EDGE", "-to", "20", "-ta", "20", "-td", "20")
    return run(dcmtk("echoscu"), *tls, *calls, "127.0.0.1", str(port)).returncode


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(PATIENCE)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while connection.recv(4096):
            pass
    return True


def uids(folder: Path) -> list[str]:
    with Spool(folder / "state") as spool:
        return [row["uid"] for row in spool.read("SELECT uid FROM film")]


def test_dcmtk_sends_by_tls(tmp_path: Path, receiving: tuple[Process, Path], port: int, certificates: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1200, 1200), np.uint8)
    path = write(film(pixels, SOPInstanceUID="1.8.1"), tmp_path, "film.dcm")
    calls = ("-aet", "MODALITY", "-aec", "EDGE", "127.0.0.1", str(port))
    assert echo_tls(port, *dcmtk_tls(certificates)) == 0
    ended = run(dcmtk("storescu"), *dcmtk_tls(certificates), *calls, path)
    assert ended.returncode == 0, ended
    assert "1.8.1" in uids(receiving[1])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_pynetdicom_sends_by_either_version(
    tmp_path: Path, receiving: tuple[Process, Path], port: int, certificates: Path, version: ssl.TLSVersion
) -> None:
    context = client_context(*(str(certificates / name) for name in ("ca.pem", "modality.pem", "modality.key")))
    context.minimum_version = context.maximum_version = version
    entity = AE("MODALITY")
    entity.add_requested_context(DX, "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", port, ae_title="EDGE", tls_args=(context, "127.0.0.1"))
    assert association.is_established
    for number in range(3):
        uid = f"1.8.{version.value}.{number}"
        path = write(film(np.full((700, 700), number, np.uint8), SOPInstanceUID=uid), tmp_path, "film.dcm")
        assert association.send_c_store(dcmread(path)).Status == 0
        assert uid in uids(receiving[1])
    association.release()


def test_strangers_certificates_and_none_are_refused(port: int, certificates: Path, strangers: Path) -> None:
    assert echo_tls(port, *dcmtk_tls(strangers, ca=certificates)) != 0, "of another authority"
    assert echo_tls(port, *dcmtk_tls(certificates, ca=strangers)) != 0, "the sender knows another authority"
    # DCMTK's +tla shows none.
    assert echo_tls(port, "+tla", "+cf", certificates / "ca.pem") != 0, "none at all"
    assert echo(port) != 0, "no TLS"
    assert echo_tls(port, *dcmtk_tls(certificates)) == 0


def test_a_certificate_that_has_ended_is_refused(
    receiving: tuple[Process, Path], port: int, certificates: Path
) -> None:
    assert echo_tls(port, *dcmtk_tls(certificates, "late")) == 0
    until(certificates, "late", -1)
    assert echo_tls(port, *dcmtk_tls(certificates, "late")) != 0
    receiving[0].says("no TLS with 127.0.0.1")


def test_old_versions_are_refused(port: int, certificates: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates / "ca.pem")
    context.load_cert_chain(certificates / "modality.pem", certificates / "modality.key")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection, pytest.raises(ssl.SSLError):
        context.wrap_socket(connection, server_hostname="127.0.0.1")


@pytest.mark.parametrize(
    "first", [b"", b"\x16\x03\x01\x02\x00\x01", b"\x01\x00\x00\x00\x00\xcd\x00\x01", b"GET / HTTP/1.1\r\n"]
)
def test_who_does_not_finish_the_handshake_blocks_nobody(port: int, certificates: Path, first: bytes) -> None:
    silent = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) for _ in range(14)]
    try:
        for connection in silent:
            connection.sendall(first)
        assert echo_tls(port, *dcmtk_tls(certificates)) == 0
        began = time.monotonic()
        assert all(map(is_closed, silent)) and time.monotonic() - began < PATIENCE
    finally:
        for connection in silent:
            connection.close()
    assert echo_tls(port, *dcmtk_tls(certificates)) == 0


def test_who_says_nothing_after_the_handshake_blocks_nobody(port: int, certificates: Path) -> None:
    context = client_context(*(str(certificates / name) for name in ("ca.pem", "modality.pem", "modality.key")))
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain:
        connection = context.wrap_socket(plain, server_hostname="127.0.0.1")
        assert echo_tls(port, *dcmtk_tls(certificates)) == 0
        assert is_closed(connection)


def test_noise_within_tls_ends_only_its_own_connection(port: int, certificates: Path) -> None:
    context = client_context(*(str(certificates / name) for name in ("ca.pem", "modality.pem", "modality.key")))
    for noise in (b"\x01\x00\xff\xff\xff\xff", b"\x04\x00\x00\x00\x10\x00" + bytes(20)):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain:
            connection = context.wrap_socket(plain, server_hostname="127.0.0.1")
            connection.sendall(noise)
            assert is_closed(connection)
    assert echo_tls(port, *dcmtk_tls(certificates)) == 0


def test_a_new_certificate_is_taken_without_a_restart(tmp_path: Path) -> None:
    folder = certified(tmp_path / "c", "node", "modality")
    with role("receive", configured(tmp_path, tls_table(folder))) as process:
        port = int(process.says(r"port (\d+)")[1])
        assert echo_tls(port, *dcmtk_tls(folder)) == 0
        for name in ("ca", "node", "modality"):
            for kind in ("key", "pem"):
                (folder / f"{name}.{kind}").replace(tmp_path / f"old-{name}.{kind}")
        certified(folder, "modality")
        process.says("certificates of before")
        certify(folder, "node", ["127.0.0.1"], 12)
        process.says("read certificates again")
        eventually(lambda: echo_tls(port, *dcmtk_tls(folder)) == 0)
        assert process.says("warning: the certificate").string.count("node.pem") == 1
        assert echo_tls(port, *dcmtk_tls(tmp_path, "old-modality", ca=folder)) != 0


def test_without_ca_a_peer_needs_no_certificate_and_dicom_false_is_plain(tmp_path: Path, certificates: Path) -> None:
    with role("receive", configured(tmp_path, tls_table(certificates, mutual=False))) as process:
        port = int(process.says(r"port (\d+)")[1])
        assert echo_tls(port, "+tla", "+cf", certificates / "ca.pem") == 0
    with role("receive", configured(tmp_path, tls_table(certificates) + "dicom = false\n")) as process:
        assert echo(int(process.says(r"port (\d+)$")[1])) == 0


def test_a_certificate_that_is_none_is_one_line(tmp_path: Path, certificates: Path) -> None:
    (tmp_path / "node.pem").write_text("<html>")
    table = tls_table(certificates).replace(f"{certificates}/node.pem", "node.pem")
    with role("receive", configured(tmp_path, table)) as process:
        assert process.popen.wait(timeout=PATIENCE) == 2
        eventually(lambda: len(process.lines) == 1)
        assert "node.pem" in process.lines[0]
