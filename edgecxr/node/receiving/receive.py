"""The process that receives films.

They come by C-STORE and from watched folders. The answer is 0x0000 only when a film is on the disk, with its row in the
database.
"""

from __future__ import annotations

import logging
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID as DicomUID
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined, unused-ignore]

from edgecxr import __version__
from edgecxr.errors import UsageError, brief
from edgecxr.films.codestreams.pixel_data import SYNTAXES
from edgecxr.node import intake
from edgecxr.node.audit.audit_events import Audit, Source
from edgecxr.node.commitment.commitment_reports import PUSH_MODEL, Reports
from edgecxr.node.commitment.commitments import Commitments
from edgecxr.node.film_queue import FilmQueue
from edgecxr.node.intake import NotTaken
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.node_process import Stop, run_role
from edgecxr.node.receiving.answers import CLASSES, FAILED, STATUSES
from edgecxr.node.receiving.guard import GuardedServer, Incoming, IncomingFiles
from edgecxr.node.spool import ChangingNote, Spool
from edgecxr.node.tls.certificates import Renewed, server_context
from edgecxr.node.watched_folder import watching
from edgecxr.terminal import printable, say

SUCCESS = 0x0000

IMPLEMENTATION = DicomUID("2.25.208821317405473411957716253812146871537")
"""Implementation class UID of edgecxr, made once from a random UUID (PS3.5, B.2)."""

_LARGEST_PDU = 128 << 10


def main() -> None:
    """Run the process."""
    run_role("receive", _receive)


def _receive(config: NodeConfig, stop: Stop) -> None:
    warnings.filterwarnings("ignore", module="pydicom")  # they quote what strangers send
    with Spool(config.folder) as spool:
        spool.sweep()
        stop.follow_supervisor()
        with listening(config, spool, stop) as server, watching(config, spool, stop):
            by = " by TLS" if receives_by_tls(config) else ""
            say(f"receive: {config.ae_title} listens on {config.address} port {server.server_address[1]}{by}")
            stop.wait()


@contextmanager
def listening(config: NodeConfig, spool: Spool, stop: Stop) -> Iterator[GuardedServer]:
    """Receive films in threads of this process, until the block ends.

    Raises:
        UsageError: the address cannot be listened on, or a certificate cannot be used.
    """
    tls = certificates(config)
    # Its messages quote what strangers send, and name no remedy.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    _config.LOG_HANDLER_LEVEL = "none"
    _config.STORE_RECV_CHUNKED_DATASET = True
    # Odd UIDs are to be answered, not aborted.
    _config.VALIDATORS["UI"] = lambda value: (True, "")
    limits = config.limits
    scp = _StorageProvider(config, spool)

    refused = ChangingNote(spool, "refused.receive")

    def each_second() -> None:
        scp.each_second()
        refused.update(dict(server.refused))
        if tls is not None:
            tls.context()
            tls.remind()

    entity = AE(config.ae_title)
    entity.implementation_class_uid, entity.implementation_version_name = IMPLEMENTATION, f"EDGECXR_{__version__}"[:16]
    entity.maximum_pdu_size = _LARGEST_PDU
    entity.maximum_associations = 1 << 20  # pynetdicom counts idle connections, too: see `is_one_too_many`
    entity.require_called_aet = True
    entity.acse_timeout = limits.first_seconds
    entity.network_timeout = limits.idle_seconds
    entity.dimse_timeout = limits.idle_seconds
    entity.add_supported_context(Verification)
    for sop_class in CLASSES:
        entity.add_supported_context(sop_class, list(SYNTAXES))
    if any(to.commit for to in config.destination):  # it reports as an SCP, which the requestor of an association is
        entity.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)
    reports = Reports(Commitments(spool), Audit(config, "receive"), "receive")
    try:
        server = GuardedServer(
            *(entity, (config.address, config.port), config.ae_title, entity.supported_contexts),
            evt_handlers=[
                (evt.EVT_REQUESTED, scp.requested),
                (evt.EVT_C_STORE, scp.store),
                (evt.EVT_C_ECHO, scp.echo),
                (evt.EVT_N_EVENT_REPORT, reports.handle),
            ],
            limits=limits,
            each_second=each_second,
            tls=tls,
        )
    except OSError as error:
        raise UsageError(
            f"{config.address} port {config.port} cannot be listened on ({error.strerror}): end what listens there, or "
            "give another `port`"
        ) from error
    scp.server = server
    entity._servers.append(server)
    stop.background("the listener", server.serve_forever)
    try:
        yield server
    finally:
        server.shutdown()
        for association in entity.active_associations:
            association.abort(block=False)
        scp.write_counts()


def receives_by_tls(config: NodeConfig) -> bool:
    """Return whether films are received by TLS alone."""
    return config.tls is not None and config.tls.dicom


def certificates(config: NodeConfig) -> Renewed | None:
    """Return what the listener proves itself with, or None.

    Raises:
        UsageError: a file cannot be used.
    """
    tls = config.tls
    if tls is None or not tls.dicom:
        return None
    files = [tls.certificate, tls.key, *([tls.ca] if tls.ca else [])]
    return Renewed(lambda: server_context(tls), files, "receive")


class _StorageProvider:
    """Handlers of pynetdicom's events.

    Attributes:
        files: of data sets that are coming in.
        server: set once there is one.
    """

    def __init__(self, config: NodeConfig, spool: Spool) -> None:
        self._config, self._spool, self._queue = config, spool, FilmQueue(spool)
        self._audit = Audit(config, "receive")
        self.files = IncomingFiles(spool.new_file)
        self.server: GuardedServer | None = None
        self._echoes: set[str] = set()

    def each_second(self) -> None:
        """Remove files of associations that have ended, and write what was counted."""
        self.files.remove_abandoned()
        while self._echoes:
            with suppress(sqlite3.Error):  # C-ECHO works on a full disk, and the page does without it
                self._spool.note(f"echo.{self._echoes.pop()}", "asked_us")
        self._audit.write_counts(time.monotonic())

    def write_counts(self) -> None:
        """Write what was counted, at the end."""
        self._audit.write_counts()

    def requested(self, event: Any) -> None:
        """Reject an association of an unknown peer, or one too many."""
        requestor = event.assoc.requestor
        title, address = requestor.primitive.calling_ae_title.strip(), requestor.address
        if not self._config.may_send(title, address):
            say(f"receive: refused {printable(title)} at {address}, which is no [[peer]]")
            self._audit.refused(Source(title, address), "it is no [[peer]]")
            self._reject(event.assoc, 1, 1, 3)
            return
        assert self.server is not None
        if self.server.is_one_too_many(address):
            self._audit.refused(Source(title, address), "it is one too many")
            self._reject(event.assoc, 2, 3, 2)

    def echo(self, event: Any) -> int:
        """Answer C-ECHO, and note it for the web page."""
        requestor = event.assoc.requestor
        self._echoes.add(printable(str(Source(requestor.primitive.calling_ae_title.strip(), requestor.address))))
        return SUCCESS

    def store(self, event: Any) -> Any:
        """Return the status of a C-STORE request, after taking its data set."""
        request = event.request
        incoming: Incoming | None = request._dataset_file
        title, address = event.assoc.requestor.primitive.calling_ae_title.strip(), event.assoc.requestor.address
        peer = Source(title, address)
        source = printable(str(peer))
        try:
            if incoming is None:
                return _answer(STATUSES["unreadable"], "no data set")
            self.files.finished(incoming)
            intake.check_room(self._spool, self._queue, self._config.limits)
            incoming.finish()
            assert incoming.path is not None
            announced = (str(request.AffectedSOPClassUID or ""), str(request.AffectedSOPInstanceUID or ""))
            number, new = intake.take(self._spool, incoming.path, incoming.raw, peer, self._audit, announced)
            say(f"receive: film {number} from {source}{'' if new else ', which was there already'}")
            return SUCCESS
        except NotTaken as error:
            say(f"receive: no film from {source}: {error}")
            return _answer(STATUSES[error.reason], str(error))
        except OSError as error:
            say(f"receive: no film from {source}: {brief(error)}")
            return _answer(STATUSES["no-space"] if intake.is_full(error) else FAILED, error.strerror or "")
        except Exception as error:  # else pynetdicom would answer 0xC211, and say nothing
            say(f"receive: no film from {source}: {type(error).__name__}, {brief(error)}")
            full = "full" in str(error)  # sqlite3's "database or disk is full" has no code of its own in Python 3.10
            return _answer(STATUSES["no-space"] if full else FAILED, type(error).__name__)
        finally:
            if incoming is not None:
                incoming.close()

    @staticmethod
    def _reject(association: Any, result: int, source: int, diagnostic: int) -> None:
        association.acse.send_reject(result, source, diagnostic)
        association.kill()  # waits until the answer is sent


def _answer(status: int, comment: str) -> Dataset:
    answer = Dataset()
    answer.Status, answer.ErrorComment = status, comment[:64]
    return answer
