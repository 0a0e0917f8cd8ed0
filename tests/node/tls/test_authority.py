"""`edgecxr node ca`: an authority of one's own, made by openssl."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from edgecxr.errors import UsageError
from edgecxr.node.tls import authority
from edgecxr.node.tls.authority import certify
from edgecxr.node.tls.certificates import client_context, end_of, server_context
from tests.cli_workspace import edgecxr
from tests.node.certified import certified
from tests.node.running import run


def test_a_first_call_makes_the_authority_and_a_second_uses_it(tmp_path: Path) -> None:
    folder = certified(tmp_path / "c", "node")
    authority_before = (folder / "ca.pem").read_bytes()
    assert [path.name for path in certify(folder, "ct1", ["10.1.2.3", "ct1.clinic"], 100)] == ["ct1.key", "ct1.pem"]
    assert (folder / "ca.pem").read_bytes() == authority_before
    assert {path.name for path in folder.iterdir()} == {
        f"{n}.{k}" for n in ("ca", "node", "ct1") for k in ("key", "pem")
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    verified = run("openssl", "verify", "-CAfile", folder / "ca.pem", folder / "node.pem", folder / "ct1.pem")
    assert verified.returncode == 0, verified
    shown = run("openssl", "x509", "-in", folder / "ct1.pem", "-noout", "-text").stdout
    for fact in ("IP Address:10.1.2.3", "DNS:ct1.clinic", "CA:FALSE", "TLS Web Client Authentication", "P-256"):
        assert fact in shown


def test_renewing_keeps_the_key(tmp_path: Path) -> None:
    folder = certified(tmp_path / "c", "node")
    key, end = (folder / "node.key").read_bytes(), end_of(str(folder / "node.pem"))
    with pytest.raises(UsageError, match="--renew"):
        certify(folder, "node", [], 700)
    assert [path.name for path in certify(folder, "node", [], 700, renew=True)] == ["node.pem"]
    assert (folder / "node.key").read_bytes() == key and (end_of(str(folder / "node.pem")) - end).days == 335
    server_context_of(folder, "node")


def server_context_of(folder: Path, name: str) -> ssl.SSLContext:
    from edgecxr.node.tls.certificates import Tls

    return server_context(Tls(str(folder / f"{name}.pem"), str(folder / f"{name}.key"), str(folder / "ca.pem")))


@pytest.mark.parametrize(
    ("name", "hosts", "days", "named"),
    [
        ("ca", [], 10, "ca"), ("../x", [], 10, "../x"), ("10.0.0.1:1", [], 10, "10.0.0.1:1"),
        ("a", ["b,DNS:c"], 10, "b,DNS"),
        ("a\nb", [], 10, "name"), ("a", [], 0, "--days"),
    ],
)  # fmt: skip
def test_odd_values_are_refused_and_leave_nothing(
    tmp_path: Path, name: str, hosts: list[str], days: int, named: str
) -> None:
    with pytest.raises(UsageError) as raised:
        certify(tmp_path / "c", name, hosts, days)
    assert named in str(raised.value) and not (tmp_path / "c").exists()


def test_nothing_to_renew_no_openssl_and_an_openssl_that_fails_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "renew" in edgecxr("node", "ca", tmp_path / "c", "node", "--renew", runs=tmp_path).error
    program = tmp_path / "openssl"
    program.write_text("#!/bin/sh\necho no such curve >&2\nexit 1\n")
    program.chmod(0o700)
    monkeypatch.setattr(authority.shutil, "which", lambda name: str(program))
    with pytest.raises(UsageError, match="no such curve"):
        certify(tmp_path / "c", "node", [], 10)
    assert list((tmp_path / "c").iterdir()) == []
    monkeypatch.setattr(authority.shutil, "which", lambda name: None)
    ended = edgecxr("node", "ca", tmp_path / "c", "node", runs=tmp_path)
    assert ended.code == 2 and "openssl is not installed" in ended.error


def test_the_command_names_what_it_made(tmp_path: Path) -> None:
    certified(tmp_path / "other", "any")
    ended = edgecxr("node", "ca", tmp_path / "c", "node", "--host", "127.0.0.1", runs=tmp_path)
    assert ended.code == 0, ended
    assert [Path(line).name for line in ended.out.splitlines()] == ["ca.pem", "ca.key", "node.key", "node.pem"]
    client_context(str(tmp_path / "c" / "ca.pem"))
