"""Receiving by C-STORE: real senders, what is refused with which status, and nothing listens beyond loopback."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra node)")

from pynetdicom import AE
from pynetdicom.sop_class import DigitalXRayImageStorageForPresentation as DX

from edgecxr.node.audit.audit_reading import describe, entries
from edgecxr.node.intake import identify
from edgecxr.node.spool import Spool
from tests.films.dicom_files import film, write
from tests.node.running import Process, configured, dcmsend, dcmtk, echo, eventually, role, run

EXPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"


@pytest.fixture(scope="module")
def receiving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Path]]:
    """A running receiver, which the tests of this file share, and its state folder."""
    folder = tmp_path_factory.mktemp("receiving")
    more = "[limits]\nfree_mib = 1\nfree_percent = 0.0\nfilm_mib = 1\n"
    with role("receive", configured(folder, more)) as process:
        process.says("listens on 127.0.0.1")
        yield process, folder / "state"


@pytest.fixture
def port(receiving: tuple[Process, Path]) -> int:
    return int(receiving[0].says(r"port (\d+)")[1])


@pytest.fixture
def state(receiving: tuple[Process, Path]) -> Path:
    return receiving[1]


def scan(folder: Path, uid: str, seed: int = 0, **elements: Any) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64), np.uint8)
    stated = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "SOPInstanceUID": uid}
    return write(film(pixels, **stated | elements), folder, f"{uid}-{seed}.dcm")


def rows(state: Path, uid: str) -> list[Any]:
    with Spool(state) as spool:
        return spool.read("SELECT * FROM film WHERE uid = ? ORDER BY id", uid)


def elements(path: Path) -> list[Any]:
    return [(element.tag, element.value) for element in dcmread(path)]


def data_set(path: Path) -> str:
    return identify(path).digest


def send(port: int, dataset: Dataset, **associate: Any) -> Dataset | None:
    """Send a data set as it is; None if the association is refused."""
    entity = AE(associate.pop("calling", "MODALITY"))
    entity.add_requested_context(DX, associate.pop("syntax", EXPLICIT))
    association = entity.associate("127.0.0.1", port, ae_title="EDGE")
    if not association.is_established:
        return None
    try:
        return association.send_c_store(dataset)
    finally:
        association.abort()


def test_dcmtk_s_films_are_kept_as_they_are_and_only_once(tmp_path: Path, port: int, state: Path) -> None:
    films = [scan(tmp_path, f"1.9.1.{number}", number) for number in range(3)]
    assert echo(port) == 0
    for _ in range(2):
        ended = dcmsend(port, *films)
        assert ended.returncode == 0, ended.stderr
    for path in films:
        (row,) = rows(state, dcmread(path).SOPInstanceUID)
        kept = state / "films" / f"{row['id']}.dcm"
        assert elements(kept) == elements(path) and data_set(kept) == row["digest"]
        assert kept.read_bytes()[:132] == bytes(128) + b"DICM"
        assert (row["state"], row["source"], row["study"]) == ("received", "MODALITY at 127.0.0.1", "1.2.3")
    assert list((state / "incoming").iterdir()) == []


def test_another_content_under_one_uid_is_kept_beside_the_first(tmp_path: Path, port: int, state: Path) -> None:
    first, other = scan(tmp_path, "1.9.2", 1), scan(tmp_path, "1.9.2", 2)
    for path in (first, other, first):
        assert dcmsend(port, path).returncode == 0
    one, two = rows(state, "1.9.2")
    assert (one["twin"], two["twin"]) == (None, one["id"])
    kept = [state / "films" / f"{row['id']}.dcm" for row in (one, two)]
    assert [*map(elements, kept)] == [*map(elements, (first, other))]


@pytest.mark.parametrize(("calling", "called"), [("STRANGER", "EDGE"), ("MODALITY", "OTHER")])
def test_who_is_not_known_and_who_calls_another_is_rejected_with_the_reason(
    tmp_path: Path, port: int, calling: str, called: str
) -> None:
    path = scan(tmp_path, "1.9.3")
    ended = run(dcmtk("storescu"), "-aet", calling, "-aec", called, "127.0.0.1", str(port), path)
    reason = "Calling AE Title Not Recognized" if calling == "STRANGER" else "Called AE Title Not Recognized"
    assert ended.returncode != 0 and reason in ended.stdout + ended.stderr
    assert echo(port, calling, called) != 0


def test_what_is_no_film_gets_no_context(tmp_path: Path, port: int, state: Path) -> None:
    path = scan(tmp_path, "1.9.4", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    ended = dcmsend(port, path)
    assert "no acceptable pres" in ended.stderr and rows(state, "1.9.4") == []


@pytest.mark.parametrize("uid", ["../../x", "1.2.3 4", "1." + "2" * 63, "1.2.840.99999"])
def test_a_uid_that_is_none_or_not_the_data_set_s_is_0xa900(
    tmp_path: Path, port: int, state: Path, uid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pynetdicom import _config

    monkeypatch.setitem(_config.VALIDATORS, "UI", lambda value: (True, ""))
    dataset = dcmread(scan(tmp_path, "1.9.5"))
    # The command names the data set's own UID; for the last one, only the data set is changed on the way.
    dataset.SOPInstanceUID = uid
    if uid.startswith("1.2.840"):
        from pynetdicom import dimse_primitives

        own = dimse_primitives.C_STORE.AffectedSOPInstanceUID.fset
        assert own is not None
        monkeypatch.setattr(
            dimse_primitives.C_STORE,
            "AffectedSOPInstanceUID",
            dimse_primitives.C_STORE.AffectedSOPInstanceUID.setter(lambda self, value: own(self, "1.9.5")),
        )
    answer = send(port, dataset)
    assert answer is not None and answer.get("Status") == 0xA900
    assert rows(state, uid) == [] and list((state / "incoming").iterdir()) == []


@pytest.mark.parametrize("length", [2, 20, 5000])
def test_a_header_that_cannot_be_read_is_0xc000(
    tmp_path: Path, port: int, state: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pynetdicom import association

    content = np.random.default_rng(1).integers(0, 255, length, np.uint8).tobytes()
    monkeypatch.setattr(association, "encode", lambda *_: content)
    answer = send(port, dcmread(scan(tmp_path, "1.9.6")))
    assert answer is not None and answer.get("Status") == 0xC000 and rows(state, "1.9.6") == []


def test_an_empty_uid_is_0xc000(tmp_path: Path, port: int, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pynetdicom import association, dsutils

    nameless = dcmread(scan(tmp_path, "1.9.16"))
    nameless.SOPInstanceUID = ""
    monkeypatch.setattr(association, "encode", lambda dataset, *how: dsutils.encode(nameless, *how))
    answer = send(port, dcmread(scan(tmp_path, "1.9.16")))
    assert answer is not None and answer.get("Status") == 0xC000 and rows(state, "1.9.16") == rows(state, "") == []


def test_a_deflated_header_is_unpacked_no_further_than_it_must(tmp_path: Path, port: int, state: Path) -> None:
    from edgecxr.node import intake

    dataset = dcmread(scan(tmp_path, "1.9.7"))
    answer = send(port, dataset, syntax=DEFLATED)
    assert answer is not None and answer.Status == 0 and rows(state, "1.9.7")[0]["study"] == "1.2.3"
    dataset.SOPInstanceUID = "1.9.8"
    dataset.add_new(0x00091010, "UN", bytes(intake.LONGEST_HEADER + 10))
    dataset.add_new(0x00090010, "LO", "BOMB")
    answer = send(port, dataset, syntax=DEFLATED)
    assert answer is not None and answer.Status == 0xC000 and rows(state, "1.9.8") == []


def test_comments_of_64_kb_are_a_header_like_others(tmp_path: Path, port: int, state: Path) -> None:
    dataset = dcmread(scan(tmp_path, "1.9.9"))
    dataset.PatientComments = "x" * 65_536
    answer = send(port, dataset)
    assert answer is not None and answer.Status == 0 and rows(state, "1.9.9")[0]["series"] == "1.2.4"


def test_a_film_that_is_too_large_is_aborted_and_leaves_nothing(tmp_path: Path, port: int, state: Path) -> None:
    large = write(film(np.zeros((1500, 1500), np.uint8), SOPInstanceUID="1.9.10"), tmp_path, "large.dcm")
    ended = run(dcmtk("storescu"), "-v", "-aet", "MODALITY", "-aec", "EDGE", "127.0.0.1", str(port), large)
    # It may still be sending when the connection ends.
    broken = "Peer aborted|aborted Association|Broken pipe|reset by peer"
    assert ended.returncode != 0 and re.search(broken, ended.stdout + ended.stderr), ended
    eventually(lambda: list((state / "incoming").iterdir()) == [], "the file is removed")
    assert rows(state, "1.9.10") == [] and echo(port) == 0


def test_a_full_queue_and_a_full_disk_are_0xa700_and_echo_goes_on(tmp_path: Path) -> None:
    for limit in ("queue = 1\nfree_mib = 1\nfree_percent = 0.0", "free_percent = 100.0"):
        folder = tmp_path / limit[:5]
        folder.mkdir()
        with role("receive", configured(folder, f"[limits]\n{limit}\n")) as process:
            port = int(process.says(r"port (\d+)")[1])
            first = send(port, dcmread(scan(tmp_path, "1.9.11")))
            second = send(port, dcmread(scan(tmp_path, "1.9.12")))
            assert first is not None and second is not None
            assert first.Status == (0 if limit.startswith("queue") else 0xA700)
            assert second.Status == 0xA700 and second.ErrorComment
            assert echo(port) == 0 and process.stop() == 0
        assert list((folder / "state" / "incoming").iterdir()) == []


def test_it_ends_when_its_supervisor_does_and_only_one_runs_in_a_folder(tmp_path: Path) -> None:
    config = configured(tmp_path)
    with role("receive", config) as first:
        first.says("listens on")
        with role("receive", config) as second:
            assert second.popen.poll() is None and second.lines == []
            assert first.popen.stdin is not None
            first.popen.stdin.close()  # as it is when the supervisor is killed
            assert first.popen.wait(timeout=60) == 0
            second.says("listens on")


def test_a_port_that_is_taken_is_one_line(tmp_path: Path, port: int) -> None:
    with role("receive", configured(tmp_path, port=port)) as process:
        assert process.popen.wait(timeout=60) == 2
        eventually(lambda: len(process.lines) == 1)
        assert f"port {port}" in process.lines[0]


def test_hashes_are_of_the_content(tmp_path: Path) -> None:
    path = scan(tmp_path, "1.9.13")
    content = path.read_bytes()
    start = content.index(b"\x08\x00", content.index(EXPLICIT.encode()))
    assert identify(path).digest == hashlib.sha256(EXPLICIT.encode() + b"/" + content[start:]).hexdigest()


def test_refusals_that_were_only_counted_are_in_the_trail_once_it_stops(tmp_path: Path) -> None:
    with role("receive", configured(tmp_path)) as process:
        port = int(process.says(r"listens on 127.0.0.1 port (\d+)")[1])
        for _ in range(4):
            assert send(port, Dataset(), calling="STRANGER") is None
        assert process.stop() == 0
    told = [describe(entry) for entry in entries(tmp_path / "state")]
    refused = [row[-1] for row in told if row[2] == "association-refused"]
    assert len(refused) == 2 and "3 times more" in refused[1]
