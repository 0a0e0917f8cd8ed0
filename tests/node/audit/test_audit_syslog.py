"""Copies of the audit trail for a repository: XML by DICOM's schema, syslog over TLS, nothing lost."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecxr.errors import UsageError
from edgecxr.node.audit import audit_syslog, audit_trail
from edgecxr.node.audit.audit_events import Audit, Source, Subject
from edgecxr.node.audit.audit_messages import KINDS, message, participant, patient, resource, study
from edgecxr.node.audit.audit_reading import entries
from edgecxr.node.audit.audit_repository import Repository
from edgecxr.node.audit.audit_syslog import AuditSyslog, framed, syslog_message
from edgecxr.node.audit.audit_xml import to_xml
from edgecxr.node.node_config import NodeConfig, read_config
from edgecxr.node.tls.certificates import Tls, server_context
from tests.cli_workspace import edgecxr
from tests.node.certified import certified
from tests.node.running import configured, eventually, free_port
from tests.tiny_bundle import tiny_bundle

ANY = st.text(max_size=40)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified(tmp_path_factory.mktemp("keys"), "node", "repository")


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a line count as sent sooner."""
    monkeypatch.setattr(audit_syslog, "_SETTLED", 0.1)


def tls(keys: Path, name: str) -> Tls:
    return Tls(str(keys / f"{name}.pem"), str(keys / f"{name}.key"), str(keys / "ca.pem"))


class Collector:
    """A repository on loopback that can break connections."""

    def __init__(self, keys: Path) -> None:
        self.context, self.received, self.close_after = server_context(tls(keys, "repository")), [], 0
        self.open: list[ssl.SSLSocket] = []
        self.connections = 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]

    def reset(self) -> None:
        """Break all connections as a machine does that starts anew."""
        for connection in self.open:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with socket.socket(fileno=connection.detach()) as plain:
                plain.shutdown(socket.SHUT_RD)  # else a thread that reads holds the connection open

    def serve(self) -> None:
        while True:
            try:
                plain, _ = self.listening.accept()
            except OSError:
                return
            with suppress(OSError, ssl.SSLError), self.context.wrap_socket(plain, server_side=True) as connection:
                self.connections += 1
                self.open.append(connection)
                self._read(connection)

    def _read(self, connection: ssl.SSLSocket) -> None:
        content, here = b"", 0
        while part := connection.recv(65536):
            content += part
            while (match := re.match(rb"([1-9][0-9]*) ", content)) and len(content) - match.end() >= int(match[1]):
                self.received.append(content[match.end() : match.end() + int(match[1])])
                content, here = content[match.end() + int(match[1]) :], here + 1
                if here == self.close_after:
                    self.close_after = 0
                    return


@contextmanager
def collecting(keys: Path) -> Iterator[Collector]:
    collector = Collector(keys)
    thread = threading.Thread(target=collector.serve, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.listening.close()


def config(state: Path, keys: Path, port: int, **more: str) -> NodeConfig:
    return NodeConfig(state=str(state), tls=tls(keys, "node"), audit=Repository("127.0.0.1", port, **more))


def lines(state: Path, count: int, name: str = "MODALITY") -> None:
    writer = Audit(NodeConfig(state=str(state)), "receive")
    for number in range(count):
        writer.received(Subject(f"1.2.{number}", "1.2.840", "1.3", patient="MRN"), Source(name, "10.0.0.7"), True)


def uids(messages: list[bytes]) -> list[str]:
    return [re.findall(rb'<Instance UID="([^"]*)"', each)[0].decode() for each in messages]


def sent(sender: AuditSyslog, steps: int = 60) -> None:
    """Let a sender do what its thread does, without the waiting."""
    for _ in range(steps):
        try:
            sender.step()
        except OSError:
            sender._forget()


def until(collector: Collector, count: int, sender: AuditSyslog) -> None:
    for _ in range(400):
        if len(set(uids(collector.received))) >= count:
            return
        sent(sender, 1)
        threading.Event().wait(0.02)


@settings(deadline=None, max_examples=120)
@given(kind=st.sampled_from(sorted(KINDS)), who=ANY, name=ANY, text=ANY, uid=ANY, remark=ANY)
def test_any_entry_is_an_audit_message_by_the_schema(
    kind: str, who: str, name: str, text: str, uid: str, remark: str
) -> None:
    people = [participant(who, requestor=True, role="source", address="10.0.0.7", name=name)]
    objects = [study(uid, "1.2.840", text, film=uid), patient(text), resource(name, "file:///trail")]
    entry = {
        "line": 7,
        "previous": "0" * 64,
        **json.loads(json.dumps(message(kind, who, people, objects, "4", remark))),
    }
    root = ElementTree.fromstring(to_xml(entry))
    assert root.tag == "AuditMessage" and root.attrib == {}
    parts = ["EventIdentification", "ActiveParticipant", "AuditSourceIdentification"]
    assert [each.tag for each in root] == [*parts, *["ParticipantObjectIdentification"] * 3]
    event, active, _, studied, _, named = root
    assert set(event.attrib) == {"EventActionCode", "EventDateTime", "EventOutcomeIndicator"}
    own = [each for each in event if each.get("codeSystemName") == "99EDGECXR"]
    assert [each.get("csd-code") for each in own] == [kind]
    assert (event.find("EventOutcomeDescription") is not None) == bool(remark)
    assert active.get("UserIsRequestor") == "true" and [each.tag for each in active] == ["RoleIDCode"]
    order = ["ParticipantObjectIDTypeCode", "ParticipantObjectDetail", "SOPClass"]
    assert [each.tag for each in studied] == order
    detail = studied.find("ParticipantObjectDetail")
    assert (
        detail is not None
        and base64.b64decode(detail.get("value", "")).decode() == uid.encode("utf-8", "replace").decode()
    )
    assert named.find("ParticipantObjectName") is not None


@given(host=st.text(max_size=300))
def test_a_message_has_the_header_of_syslog_and_its_length_before_it(host: str) -> None:
    entry = message("started", "EDGECXR", [participant("EDGECXR", requestor=True)])
    content = syslog_message(entry, host)
    head, mark, body = content.partition(b"\xef\xbb\xbf")
    fields = head.decode("ascii").split(" ")
    assert fields[0] == "<85>1" and fields[3] == "edgecxr" and fields[5:] == ["DICOM+RFC3881", "-", ""] and mark
    assert fields[1] == entry["EventIdentification"]["EventDateTime"] and 1 <= len(fields[2]) <= 255
    assert ElementTree.fromstring(body).tag == "AuditMessage"
    assert framed(content) == f"{len(content)} ".encode() + content


def test_all_lines_come_in_order_and_once_and_further_ones_later(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, settled: None
) -> None:
    monkeypatch.setattr(audit_trail, "LARGEST_FILE", 4000)
    monkeypatch.setattr(audit_syslog, "_AT_ONCE", 2 * audit_trail.LONGEST_LINE)
    lines(tmp_path, 30)
    with collecting(keys) as collector:
        sender = AuditSyslog(config(tmp_path, keys, collector.port).audit, config(tmp_path, keys, collector.port))
        until(collector, 30, sender)
        assert uids(collector.received) == [f"1.2.{number}" for number in range(30)]
        collector.received.clear()
        eventually(lambda: sent(sender, 1) or sender._counted == 30, "they count as sent")
        # A process that is started again goes on after what counts as sent.
        again = AuditSyslog(config(tmp_path, keys, collector.port).audit, config(tmp_path, keys, collector.port))
        sender._forget()
        lines(tmp_path, 5)
        until(collector, 5, again)
        assert uids(collector.received) == [f"1.2.{number}" for number in range(5)]


@settings(deadline=None, max_examples=8, suppress_health_check=list(HealthCheck))
@given(breaks=st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_whatever_breaks_no_line_is_lost(
    tmp_path_factory: pytest.TempPathFactory, keys: Path, breaks: list[int]
) -> None:
    state = tmp_path_factory.mktemp("state")
    lines(state, 20)
    with collecting(keys) as collector:
        node_config = config(state, keys, collector.port)
        for after in breaks:
            collector.close_after = after
            sender = AuditSyslog(node_config.audit, node_config)
            for _ in range(3):
                sent(sender, 1)
                threading.Event().wait(0.06)
            sender._forget()  # as a kill would
        sender = AuditSyslog(node_config.audit, node_config)
        until(collector, 20, sender)
        assert set(uids(collector.received)) == {f"1.2.{number}" for number in range(20)}


def test_a_torn_line_is_passed_over_and_a_trail_that_begins_anew_is_sent(tmp_path: Path, keys: Path) -> None:
    lines(tmp_path, 3)
    folder = tmp_path / audit_trail.FOLDER
    (path,) = [folder / name for name in audit_trail.file_names(folder)]
    with path.open("ab") as file:
        file.write(b'{"line": 4, "torn')
    lines(tmp_path, 2)
    (folder / audit_syslog.POSITION).write_text("999999\n")
    with collecting(keys) as collector:
        node_config = config(tmp_path, keys, collector.port)
        sender = AuditSyslog(node_config.audit, node_config)
        for _ in range(200):
            sent(sender, 1)
            if len(collector.received) >= 6:
                break
            threading.Event().wait(0.02)
        assert len(collector.received) == len(list(entries(tmp_path))) == 6


def test_lines_that_were_taken_away_before_they_were_sent_are_told(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit_trail, "LARGEST_FILE", 4000)
    lines(tmp_path, 12)
    first, second, *_ = names = audit_trail.file_names(tmp_path / audit_trail.FOLDER)
    (tmp_path / audit_trail.FOLDER / first).unlink()
    gone = audit_trail.first_line(second) - 1
    assert len(names) > 2
    with collecting(keys) as collector:
        node_config = config(tmp_path, keys, collector.port)
        until(collector, 12 - gone, AuditSyslog(node_config.audit, node_config))
        assert uids(collector.received) == [f"1.2.{number}" for number in range(gone, 12)]
    assert capsys.readouterr().err.count(f"{gone} lines") == 1


def test_health_tells_of_a_repository_that_takes_nothing_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines(tmp_path, 2)
    assert not audit_syslog.is_behind(tmp_path)
    position = tmp_path / audit_trail.FOLDER / audit_syslog.POSITION
    position.write_text("1\n")
    assert not audit_syslog.is_behind(tmp_path)
    os.utime(position, (1, 1))
    assert not audit_syslog.is_behind(tmp_path), "nothing was to be sent for long, and the line is new"
    later = time.time() + 2 * audit_syslog.LATE
    monkeypatch.setattr(audit_syslog.time, "time", lambda: later)
    assert audit_syslog.is_behind(tmp_path)
    position.write_text("2\n")
    os.utime(position, (1, 1))
    assert not audit_syslog.is_behind(tmp_path) and not audit_syslog.is_behind(tmp_path / "none")


@pytest.mark.parametrize("name", [audit_syslog.POSITION, audit_trail.HEAD])
def test_a_trail_of_which_nobody_can_tell_what_was_sent_is_behind(tmp_path: Path, name: str) -> None:
    lines(tmp_path, 2)
    (tmp_path / audit_trail.FOLDER / audit_syslog.POSITION).write_text("1\n")
    assert not audit_syslog.is_behind(tmp_path)
    (tmp_path / audit_trail.FOLDER / name).write_bytes(b"\xff" * 1000)
    assert audit_syslog.is_behind(tmp_path)


def test_a_position_that_says_nothing_is_told(tmp_path: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines(tmp_path, 2)
    node_config = config(tmp_path, keys, 6514)
    AuditSyslog(node_config.audit, node_config)
    assert "is sent again" not in capsys.readouterr().err
    (tmp_path / audit_trail.FOLDER / audit_syslog.POSITION).write_text("garbage")
    AuditSyslog(node_config.audit, node_config)
    assert "is sent again" in capsys.readouterr().err


def test_a_repository_that_resets_connections_is_told_and_nothing_counts_as_sent(
    tmp_path: Path, keys: Path, settled: None
) -> None:
    lines(tmp_path, 3)
    with collecting(keys) as collector:
        node_config = config(tmp_path, keys, collector.port)
        sender = AuditSyslog(node_config.audit, node_config)
        sender.step()
        assert sender._socket is not None and sender._counted == 0
        while len(collector.received) < 3:  # until then the collector may not know the connection
            threading.Event().wait(0.02)
        collector.reset()
        with pytest.raises(OSError):
            for _ in range(100):
                sender.step()
                threading.Event().wait(0.05)
        assert sender._counted == 0


def test_a_repository_of_another_authority_gets_nothing(
    tmp_path: Path, keys: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = certified(tmp_path_factory.mktemp("strangers"), "repository")
    lines(tmp_path, 1)
    with collecting(stranger) as collector:
        node_config = config(tmp_path, keys, collector.port)
        with pytest.raises(OSError, match="certificate"):
            AuditSyslog(node_config.audit, node_config).step()
        assert collector.received == []
        assert node_config.audit is not None
        other = replace(
            node_config, audit=replace(node_config.audit, ca=str(stranger / "ca.pem"), tls_name="wrong.example")
        )
        with pytest.raises(OSError, match="certificate"):
            AuditSyslog(other.audit, other).step()


def test_the_check_names_it_and_wrong_values_are_usage_errors(tmp_path: Path, keys: Path) -> None:
    (tmp_path / "keys").symlink_to(keys)
    more = '[audit]\nhost = "127.0.0.1"\nca = "keys/ca.pem"\n'
    path = configured(tmp_path, more, port=free_port(), model=str(tiny_bundle(tmp_path / "model").path))
    ended = edgecxr("serve", "--config", path, "--check", runs=tmp_path)
    assert ended.code == 0 and "audit trail to: 127.0.0.1 port 6514" in ended.out
    good = path.read_text()
    for wrong in ('host = ""', 'host = "a"\nport = 0', 'host = "a"\ncertificate = "b"', 'host = "a"\nca = "no.pem"'):
        path.write_text(good.partition("[audit]")[0] + f"[audit]\n{wrong}\n")
        assert edgecxr("serve", "--config", path, "--check", runs=tmp_path).code == 2, wrong
    with pytest.raises(UsageError):
        path.write_text(good + "colour = 1\n")
        read_config(path)
