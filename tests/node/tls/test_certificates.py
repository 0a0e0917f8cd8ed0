"""Certificates: what is no certificate, when they end, and that they are read again."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from edgecxr.errors import UsageError
from edgecxr.node.tls import certificates
from edgecxr.node.tls.authority import certify
from edgecxr.node.tls.certificates import Renewed, Tls, client_context, end_of, ending, server_context
from tests.node.certified import certified, until
from tests.node.running import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified(tmp_path_factory.mktemp("certified"), "node", "other")


def files(folder: Path, name: str = "node") -> Tls:
    return Tls(str(folder / f"{name}.pem"), str(folder / f"{name}.key"), str(folder / "ca.pem"))


def test_contexts_are_those_of_bcp_195(folder: Path) -> None:
    listener, client = server_context(files(folder)), client_context(str(folder / "ca.pem"))
    assert listener.verify_mode == client.verify_mode == ssl.CERT_REQUIRED and client.check_hostname
    for context in (listener, client):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        of_12 = [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"]
        assert of_12 and all(name.startswith("ECDHE-") and "GCM" in name for name in of_12)
    assert server_context(Tls(files(folder).certificate, files(folder).key)).verify_mode == ssl.CERT_NONE


def test_the_end_is_that_which_openssl_tells(folder: Path) -> None:
    stated = run("openssl", "x509", "-in", folder / "ca.pem", "-noout", "-enddate").stdout.strip().partition("=")[2]
    end = datetime.strptime(stated, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=timezone.utc)
    assert end_of(str(folder / "ca.pem")) == end
    assert ending(str(folder / "ca.pem")) is None
    soon = ending(str(folder / "ca.pem"), end - timedelta(days=29))
    late = ending(str(folder / "ca.pem"), end + timedelta(seconds=1))
    assert soon is not None and f"{end:%Y-%m-%d}" in soon and late is not None and "has ended" in late


@pytest.mark.parametrize("year", [2049, 2050, 2101])
def test_years_after_2049_are_read(tmp_path: Path, folder: Path, year: int) -> None:
    for name in ("ca.pem", "ca.key", "node.pem", "node.key"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    until(tmp_path, "node", (datetime(year, 6, 1, tzinfo=timezone.utc) - datetime.now(timezone.utc)).days)
    assert end_of(str(tmp_path / "node.pem")).year == year


@pytest.mark.parametrize("cut", [0, 1, 20, 100, 300])
def test_what_is_no_certificate_is_one_line_with_its_name(tmp_path: Path, folder: Path, cut: int) -> None:
    import base64

    der = ssl.PEM_cert_to_DER_cert((folder / "node.pem").read_text())[:cut]
    path = tmp_path / "cut.pem"
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(der) + b"\n-----END CERTIFICATE-----\n")
    for use in (
        lambda: end_of(str(path)),
        lambda: client_context(str(path)),
        lambda: server_context(Tls(str(path), files(folder).key)),
        lambda: server_context(Tls(files(folder).certificate, str(path))),
        lambda: end_of(str(tmp_path / "gone.pem")),
        lambda: client_context(str(tmp_path)),
    ):
        with pytest.raises(UsageError) as raised:
            use()
        assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)


def test_a_key_of_another_certificate_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"other\.key"):
        server_context(Tls(files(folder).certificate, files(folder, "other").key))


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(tmp_path: Path, folder: Path) -> None:
    run("openssl", "ec", "-in", folder / "node.key", "-aes256", "-passout", "pass:secret", "-out", tmp_path / "key")
    with pytest.raises(UsageError, match="without a password"):
        server_context(Tls(files(folder).certificate, str(tmp_path / "key")))


def test_files_that_change_are_read_again_and_half_a_change_is_not(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(certificates, "_LOOK", 0.0)
    for name in ("ca.pem", "ca.key", "node.pem", "node.key", "other.pem", "other.key"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    tls = files(tmp_path)
    renewed = Renewed(lambda: server_context(tls), [tls.certificate, tls.key], "receive")
    first = renewed.context()
    assert renewed.context() is first
    (tmp_path / "other.pem").replace(tmp_path / "node.pem")
    assert renewed.context() is first and renewed.context() is first
    (tmp_path / "other.key").replace(tmp_path / "node.key")
    second = renewed.context()
    assert second is not first and renewed.context() is second
    messages = capsys.readouterr().err.splitlines()
    assert len(messages) == 2 and "of before" in messages[0] and "again" in messages[1]


def test_a_certificate_that_ends_soon_is_said_once_a_day(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ca.pem", "ca.key"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    certify(tmp_path, "node", [], 12)
    tls = files(tmp_path)
    renewed = Renewed(lambda: server_context(tls), [tls.certificate, tls.key, str(tmp_path / "ca.pem")], "receive")
    renewed.remind()
    renewed.remind()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("receive: warning") and "node.pem" in line
