"""Sending by TLS: to pynetdicom and DCMTK, and to peers that prove nothing or the wrong thing."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra node)")

from pynetdicom import AE, evt
from pynetdicom.sop_class import SecondaryCaptureImageStorage

from edgecxr.node.node_config import NodeConfig
from edgecxr.node.sending import association
from edgecxr.node.sending.association import Association
from edgecxr.node.sending.destination import Destination
from edgecxr.node.sending.failures import Unreachable
from edgecxr.node.tls.certificates import Tls, server_context
from edgecxr.workers.new_python import command
from tests.cli_workspace import edgecxr
from tests.films.dicom_files import film, write
from tests.node.certified import certified, tls_table, until
from tests.node.running import alone, dcmtk, eventually, free_port, run, started


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified(tmp_path_factory.mktemp("clinic"), "node", "pacs", "late")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified(tmp_path_factory.mktemp("strangers"), "pacs", "node")


def files(folder: Path, name: str) -> Tls:
    return Tls(str(folder / f"{name}.pem"), str(folder / f"{name}.key"), str(folder / "ca.pem"))


def config(folder: Path, name: str = "node") -> NodeConfig:
    return NodeConfig(tls=files(folder, name))


def result(folder: Path, size: int = 64) -> bytes:
    dataset = film(np.ones((size, size), np.uint8), SOPClassUID=SecondaryCaptureImageStorage, SOPInstanceUID="1.2.9")
    return write(dataset, folder, "result.dcm").read_bytes()


@contextmanager
def pacs(context: ssl.SSLContext | None, kept: list[str]) -> Iterator[int]:
    entity = AE("PACS")
    entity.add_supported_context(SecondaryCaptureImageStorage, "1.2.840.10008.1.2.1")
    entity.add_supported_context("1.2.840.10008.1.1")

    def keep(event: evt.Event) -> int:
        kept.append(event.dataset.SOPInstanceUID)
        return 0

    server = entity.start_server(
        ("127.0.0.1", 0), block=False, ssl_context=context, evt_handlers=[(evt.EVT_C_STORE, keep)]
    )
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def to(port: int, host: str = "127.0.0.1", **options: str) -> Destination:
    return Destination("pacs", "PACS", host, port, tls=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_results_go_by_either_version(tmp_path: Path, certificates: Path, version: ssl.TLSVersion) -> None:
    context = server_context(files(certificates, "pacs"))
    context.minimum_version = context.maximum_version = version
    kept: list[str] = []
    with pacs(context, kept) as port:
        connection = Association(to(port), config(certificates))
        connection.verify()
        assert [connection.store(result(tmp_path, size)) for size in (64, 1000, 64)] == [None] * 3
        connection.release()
    assert kept == ["1.2.9"] * 3


def test_a_peer_that_proves_nothing_or_the_wrong_thing_gets_nothing(
    tmp_path: Path, certificates: Path, strangers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(association, "ANSWER", 2.0)
    until(certificates, "late", -1)
    kept: list[str] = []
    of_pacs = server_context(files(certificates, "pacs"))
    for context, destination, node in (
        (server_context(Tls(*(str(strangers / f"pacs.{kind}") for kind in ("pem", "key")))), {}, config(certificates)),
        (
            server_context(Tls(*(str(certificates / f"late.{kind}") for kind in ("pem", "key")))),
            {},
            config(certificates),
        ),
        (of_pacs, {"tls_name": "other.clinic"}, config(certificates)),
        (of_pacs, {"ca": str(certificates / "ca.pem")}, config(strangers)),
        (of_pacs, {"ca": str(certificates / "ca.pem")}, NodeConfig()),
        (of_pacs, {"ca": str(tmp_path / "gone.pem")}, config(certificates)),
        (None, {}, config(certificates)),
    ):
        with pacs(context, kept) as port:
            connection = Association(to(port, **destination), node)
            with pytest.raises(Unreachable):
                connection.store(result(tmp_path))
    assert kept == []


def test_a_peer_that_never_answers_the_handshake_is_given_up(
    tmp_path: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(association, "CONNECT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []
        thread = threading.Thread(target=lambda: accepted.append(server.accept()[0]), daemon=True)
        thread.start()
        with pytest.raises(Unreachable):
            Association(to(server.getsockname()[1]), config(certificates)).store(result(tmp_path))
        thread.join(timeout=10)
        accepted[0].close()


def test_dcmtk_s_storescp_gets_results_by_tls(tmp_path: Path, certificates: Path) -> None:
    result(tmp_path)
    (tmp_path / "kept").mkdir()
    table = '[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 11113\ntls = true\n'
    (tmp_path / "node.toml").write_text(table + tls_table(certificates))
    files = ("+tls", certificates / "pacs.key", certificates / "pacs.pem", "+cf", certificates / "ca.pem", "-rc")
    typed = command("edgecxr.cli:main", "send", str(tmp_path / "result.dcm"), "--to", "pacs", "--config")
    with (
        alone() as prefix,
        started(*prefix, dcmtk("storescp"), "-d", *files, "-od", tmp_path / "kept", "11113") as storescp,
    ):
        ended = [run(*prefix, *typed, tmp_path / "node.toml")]
        eventually(
            lambda: ended[-1].returncode == 0 or ended.append(run(*prefix, *typed, tmp_path / "node.toml")),
            str(ended[-1]),
        )
        (kept,) = (tmp_path / "kept").iterdir()
        assert dcmread(kept).SOPInstanceUID == "1.2.9" and storescp.popen.poll() is None


def test_echo_goes_by_tls_and_says_so(tmp_path: Path, certificates: Path) -> None:
    table = f'[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {free_port()}\ntls = true\n'
    path = tmp_path / "node.toml"
    with pacs(server_context(files(certificates, "pacs")), []) as port:
        path.write_text(table.replace(table.split("port = ")[1].split()[0], str(port)) + tls_table(certificates))
        ended = edgecxr("node", "echo", "pacs", "--config", path, runs=tmp_path)
        assert ended.code == 0 and "by TLS" in ended.out
