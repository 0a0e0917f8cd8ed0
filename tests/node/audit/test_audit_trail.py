"""The audit trail: one chain of all processes, which goes on whatever is killed, and in which every change is found."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecxr.errors import CheckFailed, UsageError
from edgecxr.node.audit import audit_reading, audit_trail
from edgecxr.node.audit.audit_events import Audit, Source, Subject
from edgecxr.node.audit.audit_reading import Checked, entries, latest, verify
from edgecxr.node.audit.audit_trail import FOLDER, HEAD, LONGEST_LINE, AuditTrail, file_names
from edgecxr.node.node_config import NodeConfig
from tests.node.running import eventually

FILM = Subject("1.2.3", "1.2.840.10008.5.1.4.1.1.1.1", "1.2", patient="MRN-1")


def audit(state: Path, process: str = "receive") -> Audit:
    return Audit(NodeConfig(state=str(state)), process)


def filled(state: Path, count: int = 8) -> Path:
    """Return the folder of a trail with so many lines."""
    writer = audit(state)
    for number in range(count):
        writer.received(Subject(f"1.2.{number}", "1.2.840", "1.3"), Source("MODALITY", "10.0.0.7"), True)
    return AuditTrail(state).folder


def lines(state: Path) -> list[bytes]:
    folder = AuditTrail(state).folder
    return b"".join((folder / name).read_bytes() for name in file_names(folder)).split(b"\n")[:-1]


def test_each_line_holds_the_hash_of_the_one_before(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    before = "0" * 64
    for number, line in enumerate(lines(tmp_path), 1):
        entry = json.loads(line)
        assert (entry["line"], entry["previous"]) == (number, before)
        before = hashlib.sha256(line).hexdigest()
    assert str(verify(tmp_path).end) == f"3:{before}"


def test_an_entry_has_the_names_and_codes_of_dicom(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    (entry,) = entries(tmp_path)
    event = entry["EventIdentification"]
    assert event["EventID"] == {
        "csd-code": "110104", "codeSystemName": "DCM", "originalText": "DICOM Instances Transferred",
    }  # fmt: skip
    assert (event["EventActionCode"], event["EventOutcomeIndicator"]) == ("C", "0")
    assert event["EventDateTime"].endswith("+00:00")
    sender, here = entry["ActiveParticipant"]
    assert (sender["UserID"], sender["NetworkAccessPointID"], sender["NetworkAccessPointTypeCode"]) == (
        "MODALITY", "10.0.0.7", "2",
    )  # fmt: skip
    assert sender["UserIsRequestor"] and not here["UserIsRequestor"] and here["UserID"] == "EDGECXR"
    assert sender["RoleIDCode"][0]["csd-code"] == "110153" and here["RoleIDCode"][0]["csd-code"] == "110152"
    (study,) = entry["ParticipantObjectIdentification"]
    assert study["ParticipantObjectID"] == "1.3" and study["SOPClass"][0]["Instance"] == [{"UID": "1.2.0"}]


@pytest.mark.parametrize("phi", [True, False])
def test_patients_are_named_only_where_results_name_them(tmp_path: Path, phi: bool) -> None:
    writer = Audit(NodeConfig(state=str(tmp_path), phi=phi), "receive")
    writer.received(FILM, Source("MODALITY", "10.0.0.7"), True)
    writer.looked_at(FILM, "nurse", "10.0.0.8")
    assert [b"MRN-1" in line for line in lines(tmp_path)] == [phi, phi]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the state folder of a trail of eight lines; not to be changed."""
    return filled(tmp_path_factory.mktemp("whole"), 8).parent


def changed(content: bytes, how: str, at: int, other: int) -> bytes:
    """Return the lines of a file after somebody has edited, removed, doubled or exchanged some."""
    parts = content.splitlines(keepends=True)
    at, other = at % len(parts), other % len(parts)
    if how == "edit":
        line = bytearray(parts[at])
        place = other * 37 % len(line)
        line[place] ^= 1 + (at * 11 + other) % 255
        parts[at] = bytes(line)
    elif how == "remove":
        del parts[at]
    elif how == "double":
        parts.insert(at, parts[at])
    elif how == "exchange":
        parts[at], parts[other] = parts[other], parts[at]
    elif how == "end":
        del parts[at:]
    elif how == "insert":
        parts.insert(at, parts[other].replace(b"MODALITY", b"SOMEBODY"))
    else:
        return content[: max(1, at * 97 % len(content))]
    return b"".join(parts)


@given(
    how=st.sampled_from(["edit", "remove", "double", "exchange", "end", "insert", "cut"]),
    at=st.integers(0, 400),
    other=st.integers(0, 400),
)
@settings(max_examples=100, deadline=None)
def test_any_edit_removal_or_exchange_of_lines_is_found(whole: Path, how: str, at: int, other: int) -> None:
    state = Path(tempfile.mkdtemp(dir=whole))
    folder = shutil.copytree(whole / FOLDER, state / FOLDER)
    (name,) = file_names(folder)
    content = (folder / name).read_bytes()
    edited = changed(content, how, at, other)
    (folder / name).write_bytes(edited)
    if edited == content:
        assert verify(state).end.line == 8
        return
    with pytest.raises(CheckFailed):
        verify(state)
    # Nor is it forgotten once the node has written more.
    audit(state).started()
    with pytest.raises(CheckFailed):
        verify(state)


def test_files_begin_anew_and_the_chain_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_trail, "LARGEST_FILE", 2000)
    folder = filled(tmp_path, 12)
    names = file_names(folder)
    assert len(names) > 2 and verify(tmp_path).end.line == 12 and len(list(entries(tmp_path))) == 12
    first = {name: json.loads((folder / name).read_text().partition("\n")[0])["line"] for name in names}
    assert [f"audit-{line:010d}.jsonl" for line in first.values()] == names
    for name in names:
        hidden = (folder / name).rename(folder / "elsewhere")
        with pytest.raises(CheckFailed):
            verify(tmp_path)
        hidden.rename(folder / name)
    assert verify(tmp_path).end.line == 12


@pytest.fixture(scope="module")
def rolled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("rolled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_trail, "LARGEST_FILE", 3000)
        for _ in range(5):
            filled(state, 8)
            audit(state, "web").looked_at(FILM, "Nurse Ångström", "10.0.0.8")
    return state


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 60), most=st.integers(1, 60),
    text=st.sampled_from(["", "nurse ång", "1.2.7", "film-received", "10.0.0.7", "nobody"]),
    start=st.none() | st.integers(1, 60),
)  # fmt: skip
def test_the_newest_entries_come_first_page_by_page(
    rolled: Path, count: int, most: int, text: str, start: int | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_reading, "MOST_SEARCHED", most)
        entries_so_far, before, page_count = [], start, 0
        while page_count == 0 or before is not None:
            page, further = latest(rolled, count, before, text)
            assert len(page) <= count and (further is None or before is None or further < before)
            entries_so_far, before, page_count = entries_so_far + page, further, page_count + 1
            assert page_count <= 50
    expected = [
        entry
        for entry in reversed(list(entries(rolled)))
        if (start is None or entry["line"] < start) and text in " ".join(audit_reading.describe(entry)).casefold()
    ]
    assert entries_so_far == expected


def test_whole_files_may_lie_elsewhere_if_their_end_was_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_trail, "LARGEST_FILE", 2000)
    folder = filled(tmp_path, 7)
    noted = str(verify(tmp_path).end)
    filled(tmp_path, 5)
    assert verify(tmp_path, noted).end.line == 12
    names = file_names(folder)
    (folder / names[0]).unlink()
    with pytest.raises(CheckFailed):
        verify(tmp_path)
    assert verify(tmp_path, noted).end.line == 12
    with pytest.raises(CheckFailed):
        verify(tmp_path, f"7:{'1' * 64}")
    for name in names[1:]:
        if int(name[6:16]) <= 8:
            (folder / name).unlink()
    with pytest.raises(CheckFailed):
        verify(tmp_path, noted)
    with pytest.raises(UsageError):
        verify(tmp_path, "seven")


@pytest.mark.parametrize("rest", [b'{"line":4,"prev', b"\0" * 900, b"{", '{"line":4,"é'.encode()[:-1]])
def test_a_torn_line_is_closed_and_the_chain_goes_on(
    tmp_path: Path, rest: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = filled(tmp_path, 3)
    (name,) = file_names(folder)
    with (folder / name).open("ab") as file:
        file.write(rest)
    assert verify(tmp_path) == Checked(verify(tmp_path).end, [], True) and verify(tmp_path).end.line == 3
    audit(tmp_path).started()
    assert "line 4 is torn" in capsys.readouterr().err
    checked = verify(tmp_path)
    assert (checked.end.line, checked.torn, checked.unfinished) == (6, [4], False)
    kinds = [entry["EventIdentification"]["EventTypeCode"][-1]["csd-code"] for entry in entries(tmp_path)]
    assert kinds[-2:] == ["trail-torn", "started"]
    # What it was torn to cannot be changed either.
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content.replace(rest, rest[:-1] + b"}"))
    with pytest.raises(CheckFailed):
        verify(tmp_path)


def test_a_head_that_is_one_line_behind_is_no_break(tmp_path: Path) -> None:
    folder = filled(tmp_path, 3)
    behind = (folder / HEAD).read_bytes()
    filled(tmp_path, 1)
    (folder / HEAD).write_bytes(behind)
    assert verify(tmp_path).end.line == 4
    audit(tmp_path).started()
    assert verify(tmp_path).end.line == 5 and verify(tmp_path).torn == []


@pytest.mark.parametrize("gone", ["head", "files", "all"])
def test_what_is_gone_is_found_also_later(tmp_path: Path, gone: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = filled(tmp_path, 3)
    for path in folder.iterdir():
        if gone == "all" or (path.name == HEAD) == (gone == "head"):
            path.unlink()
    if gone == "all":  # as in a new folder: only --anchor finds it
        with pytest.raises(UsageError):
            verify(tmp_path)
        audit(tmp_path).started()
        with pytest.raises(CheckFailed):
            verify(tmp_path, f"3:{'a' * 64}")
        return
    for _ in range(2):
        with pytest.raises(CheckFailed):
            verify(tmp_path)
        audit(tmp_path).started()
    assert "goes on, but" in capsys.readouterr().err


WRITER = """
import sys
from pathlib import Path
from edgecxr.node.audit.audit_events import Audit, Source, Subject
from edgecxr.node.node_config import NodeConfig
audit = Audit(NodeConfig(state=sys.argv[1]), "receive")
for number in range(int(sys.argv[3])):
    audit.received(Subject(f"1.{sys.argv[2]}.{number}", "1.2", "1.3"), Source("CR", "10.0.0.7"), True)
    print(number, flush=True)
"""


def writers(state: Path, count: int, events: int) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(state), str(number), str(events)], stdout=subprocess.PIPE, text=True
        )
        for number in range(count)
    ]


def test_several_processes_write_one_chain(tmp_path: Path) -> None:
    assert [process.communicate()[1] or process.returncode for process in writers(tmp_path, 2, 40)] == [0, 0]
    assert verify(tmp_path).end.line == 80 and verify(tmp_path).torn == []
    assert len({json.loads(line)["ParticipantObjectIdentification"][0]["SOPClass"][0]["Instance"][0]["UID"]
                for line in lines(tmp_path)}) == 80  # fmt: skip


@pytest.mark.long
def test_whatever_is_killed_the_chain_is_whole_and_has_what_was_reported(tmp_path: Path) -> None:
    chance, reported = random.Random(7), 0
    for _ in range(15):
        processes = writers(tmp_path, 2, 10_000)
        for process in processes:
            assert process.stdout is not None and process.stdout.readline()
        for _ in range(chance.randrange(30)):
            processes[0].stdout.readline()  # type: ignore[union-attr]
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
        for process in processes:
            assert process.stdout is not None
            reported += 1 + len(process.stdout.read().splitlines())
            process.wait()
        assert verify(tmp_path).end.line >= reported
    audit(tmp_path).started()
    assert verify(tmp_path).end.line >= reported


def test_a_full_disk_loses_events_and_no_films_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(tmp_path, 2)
    writer = audit(tmp_path)
    real: Callable[..., int] = os.pwrite

    def half(descriptor: int, data: bytes, at: int) -> int:
        if len(data) > 200:
            return real(descriptor, data[:100], at)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", half)
        for _ in range(3):
            writer.started()
    assert verify(tmp_path).end.line == 2
    writer.started()
    assert verify(tmp_path).end.line == 4 and verify(tmp_path).torn == []
    messages = capsys.readouterr().err.splitlines()
    assert len(messages) == 2 and "cannot be written" in messages[0] and "3 events" in messages[1]
    assert "3 events" in lines(tmp_path)[2].decode()


def test_strangers_cannot_fill_the_trail(tmp_path: Path) -> None:
    writer = audit(tmp_path)
    for number in range(3000):
        writer.refused(Source(f"S{number % 600}", "10.9.9.9"), "it is no [[peer]]")
    assert len(lines(tmp_path)) < 250
    writer.write_counts()
    events = [entry["EventIdentification"] for entry in entries(tmp_path)]
    assert {each["EventID"]["csd-code"] for each in events} == {"110113"}
    times = [each["EventOutcomeDescription"].rpartition("(")[2].partition(" ")[0] for each in events]
    assert sum(int(each) if each.isdecimal() else 1 for each in times) == 3000


def test_a_line_is_bounded_whatever_it_is_about(tmp_path: Path) -> None:
    writer = audit(tmp_path)
    writer.received(
        Subject("1" * 9999, "é" * 9999, "\0" * 9999, patient="<b>" * 9999), Source("\n" * 9999, "x" * 999), True
    )
    writer.failed(FILM, "pacs", "\U0001f600" * 9999, True)
    assert len(lines(tmp_path)) == 2 and max(map(len, lines(tmp_path))) < LONGEST_LINE
    assert verify(tmp_path).end.line == 2


def test_the_files_are_the_user_s_own(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        folder = filled(tmp_path, 1)
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())] == [0o700, 0o600, 0o600]


def test_a_link_in_place_of_a_file_is_not_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = filled(tmp_path / "state", 1)
    (tmp_path / "victim").write_text("mine\n")
    (name,) = file_names(folder)
    (folder / name).unlink()
    (folder / name).symlink_to(tmp_path / "victim")
    audit(tmp_path / "state").started()
    assert (tmp_path / "victim").read_text() == "mine\n" and "cannot be written" in capsys.readouterr().err


def test_events_of_the_web_page_and_of_commands_say_who(tmp_path: Path) -> None:
    writer = audit(tmp_path, "web")
    writer.login("nurse", "10.0.0.8", False)
    writer.login("nurse", "10.0.0.8", True)
    writer.looked_at(FILM, "nurse", "10.0.0.8")
    writer.user_changed("nurse", "role operator", "admin", "10.0.0.9")
    writer.retried(3, None)
    writer.logout("nurse", "10.0.0.8")
    messages = list(entries(tmp_path))
    events = [entry["EventIdentification"] for entry in messages]
    assert [each["EventID"]["csd-code"] for each in events] == [
        "110114",
        "110114",
        "110103",
        "110113",
        "110102",
        "110114",
    ]
    assert [each["EventOutcomeIndicator"] for each in events] == ["4", "0", "0", "0", "0", "0"]
    who = [entry["ActiveParticipant"][0] for entry in messages]
    assert all(each["UserIsRequestor"] for each in who)
    assert [each["UserID"] for each in who[:4]] == ["nurse", "nurse", "nurse", "admin"] and who[4]["UserID"]
    eventually(lambda: verify(tmp_path).end.line == 6)
