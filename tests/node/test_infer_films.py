"""From films of the spool to results: states, reasons, and the same bytes whatever was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

pytest.importorskip("highdicom", reason="highdicom is not installed (extra node)")

from edgecxr.errors import ModelError
from edgecxr.infer.film_readers import Readers
from edgecxr.infer.predictor import Predictor
from edgecxr.node import infer_films
from edgecxr.node.audit.audit_events import Audit, Source
from edgecxr.node.audit.audit_reading import describe, entries
from edgecxr.node.deliveries import Deliveries
from edgecxr.node.film_queue import MOST_ENDED, FilmQueue
from edgecxr.node.infer_films import TWIN, FilmInference
from edgecxr.node.intake import take
from edgecxr.node.node_config import Destination, NodeConfig
from edgecxr.node.node_process import Stop
from edgecxr.node.spool import Spool
from tests.films.dicom_files import film, write
from tests.node.running import eventually
from tests.tiny_bundle import tiny_bundle

NAMED = {"PatientName": "Quispe^Jane", "PatientID": "MRN-1", "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4"}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(tiny_bundle(tmp_path_factory.mktemp("model") / "model"))


def arrive(spool: Spool, folder: Path, uid: str, phi: bool = True, **elements: Any) -> int:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:32, :32] = 230
    path = write(film(pixels, **NAMED | {"SOPInstanceUID": uid} | elements), folder, "film.dcm")
    return put(spool, path.read_bytes(), phi)


def put(spool: Spool, content: bytes, phi: bool = True) -> int:
    audit = Audit(NodeConfig(state=str(spool.folder), phi=phi), "receive")
    building, file = spool.new_file()
    with file:
        file.write(content)
        file.flush()
        return take(spool, building, file, Source("TEST", "127.0.0.1"), audit)[0]


def infer(spool: Spool, predictor: Predictor, **config: Any) -> None:
    """Let films be read until none waits."""
    stop = Stop()
    to = (Destination("pacs", "PACS", "127.0.0.1", 104),)
    settings = NodeConfig(state=str(spool.folder), destination=to, **config)
    with Readers(1, tries=2) as readers:
        inference = FilmInference(settings, spool, readers, predictor, stop)
        inference._queue.void_leases("no boot")

        def done() -> bool:
            inference._claim()
            inference._finish(readers.poll(1.0))
            return inference._queue.waiting() == 0

        eventually(done)


def rows(spool: Spool) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in spool.read("SELECT id, state, reason FROM film ORDER BY id")]


def contents(spool: Spool, number: int) -> list[bytes]:
    rows = spool.read("SELECT id FROM result WHERE film = ? ORDER BY kind", number)
    return [spool.result_path(row["id"]).read_bytes() for row in rows]


def test_each_film_gets_its_results_or_its_reason(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    with Spool(tmp_path / "state") as spool:
        good = arrive(spool, tmp_path, "1.1")
        lateral = arrive(spool, tmp_path, "1.2", ViewPosition="LL")
        without = arrive(spool, tmp_path, "1.3", StudyInstanceUID=None)
        black = write(film(np.zeros((64, 64), np.uint8), SOPInstanceUID="1.4"), tmp_path, "black.dcm")
        blank = put(spool, black.read_bytes())
        infer(spool, predictor)
        assert rows(spool) == [
            (good, "made", None),
            (lateral, "refused", "view"),
            (without, "rejected", "no-identifiers"),
            (blank, "rejected", "blank"),
        ]
        events = [[*describe(entry)[2:6:2], describe(entry)[5]] for entry in entries(spool.folder)]
        assert sorted(event for event in events if event[0] != "film-received") == [
            ["film-read", "1.1", ""],
            ["film-refused", "1.2", "minor failure: view"],
            ["film-rejected", "1.3", "minor failure: no-identifiers"],
            ["film-rejected", "1.4", "minor failure: blank"],
        ]
        numbers = [row[0] for row in spool.read("SELECT id FROM result ORDER BY kind")]
        picture, report = (dcmread(spool.result_path(number)) for number in numbers)
        assert (picture.Modality, report.Modality) == ("OT", "SR")
        assert {str(each.PatientName) for each in (picture, report)} == {"Quispe^Jane"}
        ((prediction,),) = spool.read("SELECT prediction FROM film WHERE id = ?", good)
        assert json.loads(prediction)["findings"]["Cardiomegaly"]["decision"] is True
        assert str(spool.folder) not in prediction + "".join(capsys.readouterr().err)


@pytest.mark.parametrize("phi", [True, False])
def test_a_report_says_why_a_film_was_not_analysed_where_that_is_asked_for(
    tmp_path: Path, predictor: Predictor, phi: bool
) -> None:
    with Spool(tmp_path / "state") as spool:
        lateral = arrive(spool, tmp_path, "1.2", ViewPosition="LL", BodyPartExamined="CHEST QUISPE", phi=phi)
        without = arrive(spool, tmp_path, "1.3", StudyInstanceUID=None, phi=phi)
        blank = put(spool, write(film(np.zeros((64, 64), np.uint8), **NAMED), tmp_path, "black.dcm").read_bytes(), phi)
        infer(spool, predictor, not_analysed=True, phi=phi)
        assert rows(spool) == [
            (lateral, "refused", "view"),
            (without, "rejected", "no-identifiers"),
            (blank, "rejected", "blank"),
        ]
        assert [len(contents(spool, number)) for number in (lateral, without, blank)] == [1, 0, 1]
        report = dcmread(spool.result_path(spool.read("SELECT id FROM result WHERE film = ?", lateral)[0][0]))
        assert (report.Modality, str(report.PatientName)) == ("SR", NAMED["PatientName"] if phi else "")
        assert phi or b"QUISPE" not in b"".join(contents(spool, lateral)).upper()
        (state,) = {row[0] for row in spool.read("SELECT state FROM delivery")}
        assert state == "waiting"
        first = contents(spool, lateral)
        for result in spool.read("SELECT id FROM result"):
            Deliveries(spool).set_sent(result["id"], "pacs")
        assert rows(spool)[0] == (lateral, "refused", "view")
        with spool.transaction() as run:  # as if the process had been killed before it stored the report
            run("DELETE FROM delivery")
            run("DELETE FROM result")
            run("UPDATE film SET state = 'reading', lease = 'no boot:1'")
        infer(spool, predictor, not_analysed=True, phi=phi)
        assert contents(spool, lateral) == first


def test_a_film_read_again_after_a_kill_gets_the_same_bytes(tmp_path: Path, predictor: Predictor) -> None:
    with Spool(tmp_path / "state") as spool:
        number = arrive(spool, tmp_path, "1.1")
        infer(spool, predictor)
        first = contents(spool, number)
        with spool.transaction() as run:  # as if the process had been killed before it stored the results
            run("DELETE FROM delivery")
            run("DELETE FROM result")
            run("UPDATE film SET state = 'predicted', lease = 'no boot:1'")
        infer(spool, predictor)
        assert contents(spool, number) == first and len(first) == 2


def test_another_content_under_one_uid_is_said_in_its_report(tmp_path: Path, predictor: Predictor) -> None:
    for phi in (True, False):
        folder = tmp_path / str(phi)
        folder.mkdir()
        with Spool(folder / "state") as spool:
            first, other = arrive(spool, folder, "1.1"), arrive(spool, folder, "1.1", WindowCenter=9, WindowWidth=300)
            infer(spool, predictor, phi=phi)
            has_note = [TWIN.encode() in b"".join(contents(spool, number)) for number in (first, other)]
            assert has_note == [False, True]
            assert len(spool.read("SELECT DISTINCT uid FROM result")) == len(spool.read("SELECT uid FROM result"))


def test_without_phi_no_name_is_stored_beyond_the_film(tmp_path: Path, predictor: Predictor) -> None:
    with Spool(tmp_path / "state") as spool:
        number = arrive(spool, tmp_path, "1.1", phi=False, BodyPartExamined="CHEST QUISPE")
        infer(spool, predictor, phi=False)
        assert b"QUISPE" not in b"".join(contents(spool, number)).upper()
        assert contents(spool, number) != []
        audited = b"".join(path.read_bytes() for path in (spool.folder / "audit").iterdir())
        assert b"1.1" in audited and b"QUISPE" not in audited.upper() and b"MRN-1" not in audited
        spool.read("PRAGMA wal_checkpoint(TRUNCATE)")
        assert b"QUISPE" not in (spool.folder / "node.sqlite").read_bytes().upper()


def test_a_model_that_fails_is_an_error_and_no_fault_of_the_films(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(films: Any) -> Any:
        raise ModelError("the model does not answer with numbers")

    with Spool(tmp_path / "state") as spool:
        number = arrive(spool, tmp_path, "1.1")
        with monkeypatch.context() as patched:
            patched.setattr(predictor, "look", look)
            for _ in range(MOST_ENDED):  # the supervisor starts it again
                with Readers(1) as readers, pytest.raises(ModelError):
                    FilmInference(NodeConfig(state=str(spool.folder)), spool, readers, predictor, Stop()).run()
        assert FilmQueue(spool).void_leases("") == []
        infer(spool, predictor)
        assert rows(spool) == [(number, "made", None)]


def test_who_stops_while_the_disk_is_full_leaves_no_false_line_in_the_audit_trail(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Spool(tmp_path / "state") as spool:
        arrive(spool, tmp_path, "1.1")
        stop = Stop()

        def full() -> tuple[Path, Any]:
            stop.request()
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(spool, "new_file", full)
        with Readers(1) as readers:
            FilmInference(NodeConfig(state=str(spool.folder)), spool, readers, predictor, stop).run()
        assert [describe(entry)[2] for entry in entries(spool.folder)] == ["film-received"]
        assert [row["lease"] for row in spool.read("SELECT lease FROM film")] == [None]


def test_a_full_disk_makes_it_wait_and_loses_nothing(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(infer_films, "_AGAIN", 0.01)
    with Spool(tmp_path / "state") as spool:
        number = arrive(spool, tmp_path, "1.1")
        new_file, failures = spool.new_file, iter(range(3))

        def full() -> tuple[Path, Any]:
            if next(failures, None) is not None:
                raise OSError(28, "No space left on device")
            return new_file()

        monkeypatch.setattr(spool, "new_file", full)
        infer(spool, predictor)
        assert rows(spool) == [(number, "made", None)]
    assert len([line for line in capsys.readouterr().err.splitlines() if "waits" in line]) == 1
