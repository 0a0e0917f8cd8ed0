"""Sending: what is tried again, what is given up, and that a bad destination holds up nothing else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra node)")
pytest.importorskip("highdicom", reason="highdicom is not installed (extra node)")

from pynetdicom import AE, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, ComprehensiveSRStorage, SecondaryCaptureImageStorage

from edgecxr.infer.dicom.objects import DicomObject
from edgecxr.node import check
from edgecxr.node.audit.audit_events import Audit
from edgecxr.node.check import describe, status
from edgecxr.node.deliveries import LONGEST_PAUSE
from edgecxr.node.limits import Limits
from edgecxr.node.node_config import Destination, NodeConfig
from edgecxr.node.sending import association, send
from edgecxr.node.sending.send import pause
from tests.cli_workspace import edgecxr
from tests.node.running import dcmtk, eventually, free_port, run
from tests.node.sending.sent_results import Node, made_results

ALL = (Comprehensive3DSRStorage, ComprehensiveSRStorage, SecondaryCaptureImageStorage)
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"

Answer = Callable[[Dataset], Any]


@pytest.fixture(scope="module")
def dicom_results(tmp_path_factory: pytest.TempPathFactory) -> tuple[DicomObject, ...]:
    """A report and a picture."""
    return made_results(tmp_path_factory.mktemp("made"))


class Pacs:
    """A PACS on loopback that answers as a test wants.

    Attributes:
        kept: what it took.
        associations: number of associations so far.
    """

    def __init__(self, port: int) -> None:
        self.port, self.kept, self.associations = port, list[Dataset](), 0
        self.answer: Answer = lambda dataset: 0x0000

    def take(self, event: Any) -> Any:
        dataset = event.dataset
        status = self.answer(dataset)
        if status is None:
            event.assoc.abort()
            return 0x0110
        if status in (0, 0x0111) or status >> 12 == 0xB:
            self.kept.append(dataset)
        return status

    def count(self, event: Any) -> None:
        self.associations += 1


@contextmanager
def pacs(port: int, classes: tuple[Any, ...] = ALL, syntaxes: tuple[str, ...] = (EXPLICIT,)) -> Iterator[Pacs]:
    peer, entity = Pacs(port), AE("PACS")
    entity.require_calling_aet = ["EDGECXR"]
    for sop_class in classes:
        entity.add_supported_context(sop_class, list(syntaxes))
    server = entity.start_server(
        ("127.0.0.1", port),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, peer.take), (evt.EVT_ACCEPTED, peer.count)],
    )
    assert server is not None
    try:
        yield peer
    finally:
        server.shutdown()


@pytest.fixture
def node(tmp_path: Path, dicom_results: tuple[DicomObject, ...]) -> Iterator[Node]:
    node = Node(tmp_path, to(free_port()), dicom_results)
    yield node
    node.close()


def to(port: int) -> Destination:
    return Destination("pacs", "PACS", "127.0.0.1", port)


def port_of(node: Node) -> int:
    return node.sender._destination.port


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_both_results_go_in_one_association_as_they_are(node: Node, dicom_results: Any, syntax: str) -> None:
    with pacs(port_of(node), syntaxes=(syntax,)) as peer:
        assert node.step() and (node.state, node.counts) == ("filed", {"sent": 2})
        assert peer.associations == 1 and not node.step()
        sent = {dataset.SOPInstanceUID: dataset for dataset in peer.kept}
        assert set(sent) == {each.uid for each in dicom_results}
        for result in dicom_results:
            original = dcmread(node.spool.result_path(dicom_results.index(result) + 1))
            assert [(e.tag, e.value) for e in sent[result.uid]] == [(e.tag, e.value) for e in original]


def test_an_association_without_work_is_released(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "IDLE", 0.0)
    with pacs(port_of(node)):
        node.step()
        association = node.sender._connection._association  # type: ignore[attr-defined]
        eventually(lambda: not node.step() and association.is_released)


@pytest.mark.parametrize(
    ("status", "counts"),
    [
        (0x0111, {"sent": 2}), (0xB000, {"sent": 2}), (0xB007, {"sent": 2}), (0xA700, {"waiting": 2}),
        (0xA900, {"dead": 2}), (0xC000, {"dead": 2}), (0x0110, {"dead": 2}), (0x0122, {"dead": 2}),
    ],
)  # fmt: skip
def test_an_answer_decides_what_becomes_of_a_result(node: Node, status: int, counts: dict[str, int]) -> None:
    with pacs(port_of(node)) as peer:
        peer.answer = lambda dataset: status
        node.step()
        assert node.counts == counts
        assert node.state == ("filed" if "sent" in counts else "made")
        if "sent" not in counts:
            assert f"0x{status:04X}" in node.deliveries.errors(1)[0][3]
            peer.answer = lambda dataset: 0
            assert node.deliveries.retry("pacs") == counts.get("dead", 0)
            node.again()
            assert (node.state, len(peer.kept)) == ("filed", 2)


def test_one_result_that_breaks_associations_holds_up_no_other(node: Node) -> None:
    with pacs(port_of(node)) as peer:
        peer.answer = lambda dataset: None if dataset.Modality == "SR" else 0
        node.step()
        assert node.counts == {"sent": 1, "waiting": 1} and [each.Modality for each in peer.kept] == ["OT"]


def test_a_pacs_without_3d_reports_gets_the_same_content_as_a_comprehensive_report(
    node: Node, tmp_path: Path, dicom_results: tuple[DicomObject, ...]
) -> None:
    with pacs(port_of(node), (ComprehensiveSRStorage, SecondaryCaptureImageStorage)) as peer:
        node.step()
        (report,) = [each for each in peer.kept if each.Modality == "SR"]
    original = dcmread(node.spool.result_path(1))
    assert node.state == "filed" and report.SOPClassUID == ComprehensiveSRStorage
    assert report.SOPInstanceUID not in {each.uid for each in dicom_results}
    assert report.ContentSequence == original.ContentSequence
    report.file_meta = original.file_meta
    report.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    report.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    checked = run(dcmtk("dciodvfy"), tmp_path / "report.dcm")
    assert "ComprehensiveSR" in checked.stderr
    assert [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith("Error")] == []


def test_a_result_whose_file_is_missing_is_given_up_and_holds_up_no_other(node: Node) -> None:
    node.spool.result_path(1).unlink()
    with pacs(port_of(node)) as peer:
        assert node.step() and node.counts == {"dead": 1, "sent": 1} and len(peer.kept) == 1
    assert "No such file" in node.deliveries.errors(1)[0][3]


def test_what_waits_for_a_destination_that_is_gone_is_dropped_in_the_end_and_can_be_sent_again(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    config = NodeConfig(state=str(node.spool.folder), limits=Limits(give_up_hours=1.0))
    audit = Audit(config, "send")
    node.deliveries.set_failed(1, "pacs", "0xC000", None)
    send.tidy(config, node.spool, audit)
    assert node.counts == {"dead": 1, "waiting": 1} and node.deliveries.removed(()) == {"pacs": 2}
    assert node.deliveries.removed(("pacs",)) == {}
    lines = describe(status(config))
    assert "2 results wait for pacs" in lines and any("pacs" in line for line in check._removed(config))
    with node.spool.transaction() as run_:
        run_("UPDATE delivery SET begun = begun - 3601")
    send.tidy(config, node.spool, audit)
    assert (node.state, node.counts, node.deliveries.removed(())) == ("filed", {"dropped": 2}, {})
    assert "2 results for pacs" in capsys.readouterr().err
    with pacs(port_of(node)) as peer:
        assert node.deliveries.retry("pacs") == 2 and node.state == "made"
        node.again()
        assert (node.state, len(peer.kept)) == ("filed", 2)


def test_retry_ends_a_pause(node: Node, tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    port, state = port_of(node), node.spool.folder
    table = f'[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\n'
    config.write_text(f'state = "{state}"\n{table}')
    node.step()
    assert node.counts == {"waiting": 2} and "nothing listens" in node.deliveries.errors(1)[0][3]
    with pacs(port) as peer:
        node.step()
        assert peer.kept == [], "it is paused"
        ended = edgecxr("node", "retry", "--config", config, runs=tmp_path)
        assert ended.code == 0 and "0 results" in ended.out and ", 2 that waited" in ended.out
        node.step()
        assert len(peer.kept) == 2 and node.state == "filed"


def test_results_of_a_dropped_delivery_are_forgotten_in_time(node: Node) -> None:
    config = NodeConfig(state=str(node.spool.folder), limits=Limits(give_up_hours=1.0))
    with node.spool.transaction() as run_:
        run_("UPDATE delivery SET begun = begun - 3601")
    send.tidy(config, node.spool, Audit(config, "send"))
    assert node.spool.forget(-1, -1) > 0 and node.state == "forgotten"
    assert node.deliveries.retry("pacs") == 0, "there is nothing to send"


def test_a_pacs_that_takes_no_report_at_all_gets_the_picture(node: Node) -> None:
    with pacs(port_of(node), (SecondaryCaptureImageStorage,)) as peer:
        node.step()
        assert node.counts == {"dead": 1, "sent": 1} and len(peer.kept) == 1


def test_a_pacs_that_is_away_is_tried_again_and_given_up_in_the_end(tmp_path: Path, dicom_results: Any) -> None:
    node = Node(tmp_path, to(free_port()), dicom_results, limits=Limits(give_up_hours=1.0))
    node.step()
    assert node.counts == {"waiting": 2} and not node.step(), "it waits"
    ((tries, due),) = node.spool.read("SELECT DISTINCT tries, due > begun FROM delivery")
    assert (tries, due) == (1, 1)
    with node.spool.transaction() as run_:
        run_("UPDATE delivery SET begun = begun - 3601")
    node.sender._began -= 3601
    node.again()
    assert node.counts == {"dead": 2} and node.state == "made"
    with pacs(port_of(node)):
        assert node.deliveries.retry("pacs") == 2
        node.again()
        assert node.state == "filed"


def test_what_waited_while_the_node_was_off_is_not_given_up_at_its_first_failure(
    tmp_path: Path, dicom_results: Any
) -> None:
    node = Node(tmp_path, to(free_port()), dicom_results)
    with node.spool.transaction() as run_:
        run_("UPDATE delivery SET begun = begun - 1e6")  # a long weekend, or a clock that was set forward
    node.step()
    assert node.counts == {"waiting": 2}
    with pacs(port_of(node)) as peer:
        peer.answer = lambda dataset: 0xA700
        node.again()
        assert node.counts == {"waiting": 2}
        peer.answer = lambda dataset: 0x0000
        node.again()
        assert node.state == "filed"


def test_a_rejected_association_is_no_verdict_on_a_result(tmp_path: Path, dicom_results: Any) -> None:
    node = Node(tmp_path, to(free_port()), dicom_results, ae_title="UNKNOWN")
    with pacs(port_of(node)):
        node.step()
        assert node.counts == {"waiting": 2} and "rejects" in node.deliveries.errors(1)[0][3]


@pytest.mark.parametrize("speaks", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\2\0\xff\xff\xff\xff" + bytes(100)])
def test_a_peer_that_speaks_no_dicom_is_one_that_cannot_be_reached(
    tmp_path: Path, dicom_results: Any, monkeypatch: pytest.MonkeyPatch, speaks: bytes
) -> None:
    monkeypatch.setattr(association, "ANSWER", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        node = Node(tmp_path, to(server.getsockname()[1]), dicom_results)
        accepted: list[socket.socket] = []

        def accept() -> None:
            connection, _ = server.accept()
            accepted.append(connection)
            connection.sendall(speaks)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        node.step()
        thread.join(timeout=10)
        assert node.counts == {"waiting": 2} and len(accepted) == 1
        accepted[0].close()


def test_pauses_grow_to_a_quarter_of_an_hour_and_differ() -> None:
    assert 5 <= pause(0) <= 6.25 and 40 <= pause(3) <= 50
    assert all(0.7 * LONGEST_PAUSE <= pause(failures) <= LONGEST_PAUSE for failures in (8, 30, 10_000))
    assert len({pause(3) for _ in range(10)}) > 1


def test_send_sends_what_infer_has_written_and_says_what_was_not_taken(
    tmp_path: Path, dicom_results: tuple[DicomObject, ...]
) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    for result in dicom_results:
        (folder / f"{result.kind}.dcm").write_bytes(result.content)
    port = free_port()
    config = tmp_path / "node.toml"
    config.write_text(f'[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\n')
    typed = ("send", folder, "--to", "pacs", "--config", config)
    away = edgecxr(*typed, runs=tmp_path)
    assert (away.code, away.err.count("not sent: "), away.out) == (3, 2, "")
    assert away.err.count("nothing listens") == 2 and "0 files sent to pacs, 2 not sent" in away.err
    with pacs(port) as peer:
        ended = edgecxr(*typed, runs=tmp_path)
        assert ended.code == 0 and "2 files sent to pacs" in ended.err and "not sent" not in ended.err
        assert sorted(ended.out.splitlines()) == [f"sent: {folder / kind}.dcm" for kind in ("sc", "sr")]
        assert sorted(each.SOPInstanceUID for each in peer.kept) == sorted(each.uid for each in dicom_results)
        (folder / "page.dcm").write_text("<html>")
        mixed = edgecxr(*typed, runs=tmp_path)
        assert (mixed.code, len(mixed.out.splitlines()), mixed.err.count("not sent: ")) == (3, 2, 1)
        assert len(peer.kept) == 4 and len({each.SOPInstanceUID for each in peer.kept}) == 2, (
            "a second call sends again"
        )
        assert edgecxr("send", tmp_path / "gone", "--to", "pacs", "--config", config, runs=tmp_path).code == 3
    (tmp_path / "empty").mkdir()
    assert edgecxr("send", tmp_path / "empty", "--to", "pacs", "--config", config, runs=tmp_path).code == 2
    assert edgecxr("send", folder, "--to", "nobody", "--config", config, runs=tmp_path).code == 2


def test_a_fault_with_one_result_ends_no_thread_and_holds_up_no_other(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [AttributeError("of a peer's answer")]

    def store(content: bytes) -> None:
        if faults:
            raise faults.pop()
        node.sender._stop.request()

    monkeypatch.setattr(node.sender._connection, "store", store)
    node.sender.run()
    assert node.counts == {"sent": 1, "waiting": 1} and "AttributeError" in node.deliveries.errors(1)[0][3]


def test_a_fault_with_a_commitment_ends_no_thread(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(send, "_FIRST_PAUSE", 0.01)
    faults = [AttributeError("of a peer's answer")]

    def commit() -> bool:
        if faults:
            raise faults.pop()
        node.sender._stop.request()
        return False

    monkeypatch.setattr(node.sender, "_commit", commit)
    node.sender.run()
    assert "AttributeError" in capsys.readouterr().err
