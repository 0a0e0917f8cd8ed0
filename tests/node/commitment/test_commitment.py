"""Storage commitment: reports on the same and on another association, failures, silence, and Orthanc."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra node)")
pytest.importorskip("highdicom", reason="highdicom is not installed (extra node)")

from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    SecondaryCaptureImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from edgecxr.infer.dicom.objects import DicomObject
from edgecxr.node.commitment import commitment_request
from edgecxr.node.commitment.commitments import AGAIN, Commitments
from edgecxr.node.deliveries import Deliveries
from edgecxr.node.limits import Limits
from edgecxr.node.sending.destination import Destination
from edgecxr.node.spool import Spool
from edgecxr.node.supervisor import ROLES
from edgecxr.workers.new_python import command
from tests.node.running import alone, configured, eventually, free_port, role, started
from tests.node.sending.sent_results import Node, made_results
from tests.node.test_spool import add

PUSH, INSTANCE = StorageCommitmentPushModel, StorageCommitmentPushModelInstance


@pytest.fixture(scope="module")
def dicom_results(tmp_path_factory: pytest.TempPathFactory) -> tuple[DicomObject, ...]:
    return made_results(tmp_path_factory.mktemp("made"))


class Pacs:
    """A PACS on loopback that keeps results, and reports as a test wants.

    Attributes:
        requests: N-ACTION requests so far.
        status: of their answers.
        report: what is reported of a request: the data set; None is nothing.
        port_of_node: where it reports to; None is on the same association.
    """

    def __init__(self, port: int) -> None:
        self.port, self.requests, self.status = port, list[Dataset](), 0
        self.report: Callable[[Dataset], Dataset | None] = all_kept
        self.port_of_node: int | None = None
        self.answers: list[int] = []

    def act(self, event: Any) -> tuple[int, None]:
        request = event.action_information
        self.requests.append(request)
        report = self.report(request) if self.status == 0 else None
        if report is not None:
            threading.Thread(target=self._send, args=(event.assoc, report), daemon=True).start()
        return self.status, None

    def _send(self, association: Any, report: Dataset) -> None:
        kind = 2 if "FailedSOPSequence" in report else 1
        if self.port_of_node is not None:
            association = reporting(self.port_of_node)
        else:
            time.sleep(0.2)  # after the answer to the request
        answer, _ = association.send_n_event_report(report, kind, PUSH, INSTANCE)
        self.answers.append(answer.Status)
        if self.port_of_node is not None:
            association.release()


def reporting(port: int, calling: str = "PACS") -> Any:
    """Return an association by which a PACS reports."""
    entity = AE(calling)
    entity.add_requested_context(PUSH)
    association = entity.associate("127.0.0.1", port, ae_title="EDGE", ext_neg=[build_role(PUSH, scp_role=True)])
    assert association.is_established
    return association


def all_kept(request: Dataset) -> Dataset:
    report = Dataset()
    report.TransactionUID, report.ReferencedSOPSequence = request.TransactionUID, request.ReferencedSOPSequence
    return report


def first_failed(reason: int) -> Callable[[Dataset], Dataset]:
    def report_of(request: Dataset) -> Dataset:
        report = all_kept(request)
        failed, *kept = request.ReferencedSOPSequence
        failed.FailureReason = reason
        report.FailedSOPSequence, report.ReferencedSOPSequence = [failed], kept
        return report

    return report_of


@contextmanager
def pacs(commits: bool = True, classes: tuple[Any, ...] = (Comprehensive3DSRStorage,)) -> Iterator[Pacs]:
    peer, entity = Pacs(free_port()), AE("PACS")
    for sop_class in (*classes, SecondaryCaptureImageStorage):
        entity.add_supported_context(sop_class)
    if commits:
        entity.add_supported_context(PUSH)
    server = entity.start_server(
        ("127.0.0.1", peer.port),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, lambda event: 0), (evt.EVT_N_ACTION, peer.act)],
    )
    assert server is not None
    try:
        yield peer
    finally:
        server.shutdown()


@contextmanager
def sending(folder: Path, peer: Pacs, dicom_results: Any, commit: bool = True, **limits: float) -> Iterator[Node]:
    to = Destination("pacs", "PACS", "127.0.0.1", peer.port, commit=commit)
    node = Node(folder, to, dicom_results, limits=Limits(**limits))  # type: ignore[arg-type]
    try:
        yield node
    finally:
        if node.sender._commitment is not None:
            node.sender._commitment.release()
        node.close()


def steps_until(node: Node, counts: dict[str, int]) -> None:
    """Take steps as `Sender.run` does, as if pauses were over, until results are in these states."""

    def there() -> bool:
        if node.counts != counts:
            node.again()
            node.sender._commit()
        return node.counts == counts

    eventually(there, f"{counts}, and there are {node.counts}")


def test_results_are_filed_once_they_are_committed(tmp_path: Path, dicom_results: Any) -> None:
    with pacs() as peer, sending(tmp_path, peer, dicom_results) as node:
        node.step()
        assert (node.state, node.counts) == ("made", {"sent": 2})
        steps_until(node, {"committed": 2})
        assert node.state == "filed"
        eventually(lambda: peer.answers == [0])
        (request,) = peer.requests
        named = {(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in request.ReferencedSOPSequence}
        assert named == {(each.sop_class, each.uid) for each in dicom_results} and not node.sender._commit()


def test_what_was_sent_under_another_uid_is_asked_for_by_that(tmp_path: Path, dicom_results: Any) -> None:
    with pacs(classes=(ComprehensiveSRStorage,)) as peer, sending(tmp_path, peer, dicom_results) as node:
        steps_until(node, {"committed": 2})
        classes = {item.ReferencedSOPClassUID for item in peer.requests[0].ReferencedSOPSequence}
        assert classes == {ComprehensiveSRStorage, SecondaryCaptureImageStorage}


@pytest.mark.parametrize(("reason", "counts"), [(0x0112, {"committed": 2}), (0x0122, {"committed": 1, "dead": 1})])
def test_what_is_not_kept_is_sent_again_or_given_up(
    tmp_path: Path, dicom_results: Any, reason: int, counts: dict[str, int]
) -> None:
    with pacs() as peer, sending(tmp_path, peer, dicom_results) as node:
        peer.report = lambda request: (first_failed(reason) if len(peer.requests) == 1 else all_kept)(request)
        steps_until(node, counts)
        if "dead" in counts:
            assert f"0x{reason:04X}" in node.deliveries.errors(1)[0][3] and node.state == "made"
            node.deliveries.retry("pacs")
            steps_until(node, {"committed": 2})
        assert node.state == "filed" and len(peer.requests) == 2


@pytest.mark.parametrize("broken", ["no context", "status", "away"])
def test_a_pacs_that_cannot_be_asked_is_asked_again_and_the_status_says_why(
    tmp_path: Path, dicom_results: Any, broken: str
) -> None:
    with pacs(commits=broken != "no context") as peer, sending(tmp_path, peer, dicom_results) as node:
        node.step()
        if broken == "status":
            peer.status = 0x0213
        if broken == "away":
            node.sender._commitment._association._destination = Destination("pacs", "PACS", "127.0.0.1", free_port())  # type: ignore[union-attr]
        assert node.sender._commit() and node.counts == {"sent": 2} and not node.sender._commit()
        words = node.deliveries.errors(1)[0][3]
        assert words.startswith("not committed") and ("0x0213" in words) == (broken == "status")
        ((due, begun),) = node.spool.read("SELECT max(due), min(begun) FROM commitment")
        assert 5 <= due - begun < 60


def test_who_says_nothing_is_asked_again_and_given_up_in_the_end(
    tmp_path: Path, dicom_results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment_request, "LISTEN", 0.0)
    with pacs() as peer, sending(tmp_path, peer, dicom_results, commit_hours=2.0) as node:
        peer.report = lambda request: None
        node.step()
        assert node.sender._commit() and not node.sender._commit()
        with node.spool.transaction() as run:
            run("UPDATE commitment SET due = due - ?", AGAIN)
        assert node.sender._commit() and len(peer.requests) == 2
        assert peer.requests[0].TransactionUID != peer.requests[1].TransactionUID
        with node.spool.transaction() as run:
            run("UPDATE commitment SET begun = begun - 7201")
        node.sender._expired = float("-inf")
        node.sender._commit()
        assert node.counts == {"dead": 2} and "2 hours" in node.deliveries.errors(1)[0][3]
        monkeypatch.setattr(commitment_request, "LISTEN", 10.0)
        peer.report = all_kept
        assert node.deliveries.retry("pacs") == 2
        steps_until(node, {"committed": 2})
        assert node.state == "filed"


def test_without_the_option_nothing_is_asked_and_what_was_open_is_filed(tmp_path: Path, dicom_results: Any) -> None:
    with pacs() as peer:
        with sending(tmp_path, peer, dicom_results) as node:
            node.step()
        with Spool(tmp_path / "state") as spool:
            Commitments(spool).forget("pacs")
            assert Deliveries(spool).counts() == {"pacs": {"sent": 2}}
            assert spool.read("SELECT state FROM film")[0]["state"] == "filed"
        assert peer.requests == []


TABLE = '[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\ncommit = true\n'
PEER = '[[peer]]\nae_title = "PACS"\naddress = "127.0.0.1"\n'


def test_a_report_on_an_association_of_its_own_and_reports_of_strangers(tmp_path: Path, dicom_results: Any) -> None:
    with pacs() as peer, sending(tmp_path, peer, dicom_results) as node:
        with role("receive", configured(tmp_path, TABLE.format(port=peer.port) + PEER)) as process:
            peer.port_of_node = int(process.says(r"port (\d+)")[1])
            node.step()
            association = reporting(peer.port_of_node)
            for odd in (
                Dataset.from_json({"0020000D": {"vr": "UI", "Value": ["1.2"]}}),
                stranger("1.2.3"),
                stranger("x" * 100),
            ):
                answer, _ = association.send_n_event_report(odd, 1, PUSH, INSTANCE)
                assert answer.Status in (0x0110, 0x0115) and node.counts == {"sent": 2}
            association.release()
            steps_until(node, {"committed": 2})
            eventually(lambda: peer.answers == [0])
            process.says("pacs has committed result 1")
        assert node.state == "filed"


def stranger(transaction: str) -> Dataset:
    report, item = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.3", "1.2.3"
    report.TransactionUID, report.ReferencedSOPSequence = transaction, [item]
    return report


def test_reports_need_the_option(tmp_path: Path) -> None:
    with role("receive", configured(tmp_path, PEER)) as process:
        entity = AE("PACS")
        entity.add_requested_context(PUSH)
        association = entity.associate("127.0.0.1", int(process.says(r"port (\d+)")[1]), ae_title="EDGE")
        assert not association.accepted_contexts


ORTHANC = Path("/usr/sbin/Orthanc")


def test_orthanc_commits_itself(tmp_path: Path, dicom_results: Any) -> None:
    if not ORTHANC.exists():
        pytest.skip("Orthanc is not installed (Debian: orthanc)")
    edge = {"AET": "EDGE", "Host": "127.0.0.1", "Port": 11112, "AllowStorageCommitment": True}
    settings = {
        "Name": "PACS", "DicomAet": "PACS", "StorageDirectory": str(tmp_path / "db"), "HttpPort": 8042,
        "IndexDirectory": str(tmp_path / "db"), "DicomPort": 4242, "RemoteAccessAllowed": False, "Plugins": [],
        "AuthenticationEnabled": False, "DicomModalities": {"edge": edge},
    }  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    config = configured(tmp_path, TABLE.format(port=4242) + PEER, port=11112)
    with Spool(tmp_path / "state") as spool:
        Deliveries(spool).add(add(spool, "1.2.5"), dicom_results, ["pacs"])
        with (
            alone() as prefix,
            started(*prefix, ORTHANC, tmp_path / "orthanc.json") as orthanc,
            started(*prefix, *command(ROLES["receive"], str(config))) as receive,
        ):
            orthanc.says("Orthanc has started")
            receive.says("listens on")
            with started(*prefix, *command(ROLES["send"], str(config))) as send:
                eventually(lambda: Deliveries(spool).counts() == {"pacs": {"committed": 2}}, str(send.lines))
                assert spool.read("SELECT state FROM film")[0]["state"] == "filed"
