"""What a node needs of its machine, as `doctor` and `serve --check` say it."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from edgecxr import extras
from edgecxr.doctor import node_rows
from edgecxr.errors import UsageError
from edgecxr.machine import clock
from edgecxr.node import check, surroundings
from edgecxr.node.limits import Limits
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.surroundings import disk, findings, tools, unfit
from tests.cli_workspace import edgecxr
from tests.node.running import configured, free_port
from tests.tiny_bundle import tiny_bundle


def program(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    path.chmod(0o755)
    return path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders of programs on PATH, pip's before the system's."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'venv'}:relative:{tmp_path / 'usr'}")


def test_tools_of_dcmtk_that_pynetdicom_hides_are_named_with_their_paths(tmp_path: Path, path: None) -> None:
    assert tools() is None
    program(tmp_path / "venv", "storescu", b"#!/usr/bin/python3\n")
    assert tools() is None
    hidden = program(tmp_path / "usr", "storescu", b"\x7fELF")
    free = program(tmp_path / "usr", "storescp", b"\x7fELF")
    finding = tools()
    assert finding is not None and finding.facts == {"hidden": [str(hidden)], "found": [str(free)]}
    assert str(hidden) in finding.value


def test_a_disk_on_which_films_would_be_refused_is_warned_of(tmp_path: Path) -> None:
    good = disk(NodeConfig(state=str(tmp_path / "not" / "yet"), limits=Limits(free_mib=1, free_percent=0.0)))
    assert good.remedy == "" and good.facts["free_bytes"] > good.facts["kept_bytes"] == 1 << 20
    full = disk(NodeConfig(state=str(tmp_path), limits=Limits(free_mib=1 << 40)))
    assert "0xA700" in full.remedy


@pytest.mark.parametrize(("state", "kept"), [(0, True), (5, False), (-1, None)])
def test_the_clock_is_as_the_kernel_says(monkeypatch: pytest.MonkeyPatch, state: int, kept: bool | None) -> None:
    class Library:
        def __init__(self, *_: object, **__: object) -> None: ...

        def adjtimex(self, buffer: object) -> int:
            return state

    monkeypatch.setattr(clock.ctypes, "CDLL", Library)
    (finding,) = (each for each in findings(NodeConfig()) if each.name == "clock")
    assert finding.facts == {"synchronised": kept} and bool(finding.remedy) == (kept is not True)


def test_the_kernel_answers_about_the_clock() -> None:
    assert clock.synchronised() in (True, False, None)


def test_another_version_of_pynetdicom_is_an_error_and_serves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = {"node": [Requirement("pynetdicom>=3.0.4,<3.1")]}
    monkeypatch.setattr(extras, "requirements", lambda: needs)
    monkeypatch.setattr(extras, "installed", lambda name: "3.0.4")
    assert unfit() is None
    monkeypatch.setattr(extras, "installed", lambda name: "3.1.0")
    monkeypatch.setattr(node_rows, "installed", lambda name: "3.1.0")
    assert unfit() == ("3.1.0", "<3.1,>=3.0.4")
    assert next(node_rows.rows()).status == "error"
    config = configured(tmp_path, port=free_port(), model=str(tiny_bundle(tmp_path / "model").path))
    ended = edgecxr("serve", "--config", config, "--check", runs=tmp_path)
    assert ended.code == 2 and "3.1.0" in ended.error


def test_without_the_extra_there_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_rows, "installed", lambda name: None)
    (row,) = node_rows.rows()
    assert row.status == "absent" and row.commands


def test_check_warns_of_what_the_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "synchronised", lambda: False)
    monkeypatch.setattr(check, "isolation", lambda: {"possible": ["network"]})
    config = configured(tmp_path, port=free_port(), model=str(tiny_bundle(tmp_path / "model").path))
    ended = edgecxr("serve", "--config", config, "--check", runs=tmp_path)
    warned = [line for line in ended.out.splitlines() if line.startswith("warning:")]
    assert ended.code == 0 and len(warned) == 2
    assert "clock" in warned[0] and "network" in warned[1]


def test_certificates_of_a_configuration_are_told_with_their_ends(tmp_path: Path) -> None:
    from edgecxr.node.tls.authority import certify

    for name, days in (("node", 800), ("soon", 9)):
        certify(tmp_path / "keys", name, ["127.0.0.1"], days, False)
    keys = tmp_path / "keys"
    (keys / "broken.pem").write_text("none")
    more = (
        f'[tls]\ncertificate = "{keys}/node.pem"\nkey = "{keys}/node.key"\nca = "{keys}/ca.pem"\n'
        '[[destination]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 1\ntls = true\n'
        f'certificate = "{keys}/soon.pem"\nkey = "{keys}/soon.key"\nca = "{keys}/broken.pem"\n'
    )
    rows = {row.name: row for row in node_rows.rows(configured(tmp_path, more))}
    statuses = {
        Path(row.facts["path"]).name: row.status for name, row in rows.items() if name.startswith("certificate")
    }
    assert statuses == {"node.pem": "ok", "ca.pem": "ok", "soon.pem": "warn", "broken.pem": "warn"}
    assert rows["disk"].facts["path"] == str(tmp_path / "state")
    (tmp_path / "node.toml").write_text("ae_titel = 1")
    with pytest.raises(UsageError, match="ae_title"):
        list(node_rows.rows(tmp_path / "node.toml"))
