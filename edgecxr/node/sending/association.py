"""An association with a destination, plain or by TLS."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined, unused-ignore]
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    SecondaryCaptureImageStorage,
    Verification,
)

from edgecxr.errors import UsageError, brief
from edgecxr.infer.dicom.uids import uid_of
from edgecxr.node.bounded_socket import BoundedSocket
from edgecxr.node.limits import Limits
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.sending.destination import Destination
from edgecxr.node.sending.failures import Refused, Unreachable
from edgecxr.node.sending.no_connection import AssociationAttempt, no_connection
from edgecxr.node.tls.client_tls import ClientTls
from edgecxr.terminal import printable

CONNECT, ANSWER = 5.0, 30.0
"""Seconds for a connection, and for an answer."""


def quiet() -> None:
    """Keep pynetdicom from logging; its messages name no remedy."""
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    _config.LOG_HANDLER_LEVEL = "none"


_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
RESULTS = [
    (sop_class, _SYNTAXES)
    for sop_class in (Comprehensive3DSRStorage, ComprehensiveSRStorage, SecondaryCaptureImageStorage)
]
"""SOP classes of results, and the transfer syntaxes in which they are sent."""


class Association:
    """An association with a destination, made when it is needed.

    Attributes:
        was_established: whether the last failure was of an association that had been accepted.
        sent_as: SOP class and instance UID under which the last result was sent.
    """

    def __init__(
        self,
        destination: Destination,
        config: NodeConfig,
        contexts: Sequence[tuple[str, list[Any]]] = RESULTS,
        handlers: Sequence[tuple[Any, Any]] = (),
    ) -> None:
        self._destination = destination
        self._limits = dataclasses.replace(
            Limits(), first_seconds=ANSWER, idle_seconds=ANSWER, object_seconds=2 * ANSWER
        )
        self._entity = AE(destination.calling or config.ae_title)
        self._entity.connection_timeout, self._entity.network_timeout = CONNECT, None
        self._entity.acse_timeout = self._entity.dimse_timeout = ANSWER
        self._entity.add_requested_context(Verification)
        for sop_class, syntaxes in contexts:
            self._entity.add_requested_context(sop_class, syntaxes)
        self._handlers = list(handlers)
        self._tls = ClientTls(destination, config.tls)
        self._association: Any = None
        self.was_established, self.sent_as = False, ("", "")

    @property
    def is_open(self) -> bool:
        """Whether there is an association."""
        return self._association is not None and self._association.is_established

    def store(self, content: bytes) -> str | None:
        """Send a result.

        Returns:
            A remark of the destination, or None.

        Raises:
            Unreachable: there is no association, or it is lost.
            Refused: the destination does not take the result.
        """
        try:
            dataset: Dataset = dcmread(BytesIO(content))
            _ = dataset.file_meta.TransferSyntaxUID, dataset.SOPClassUID, dataset.SOPInstanceUID
        except Exception as error:  # pydicom raises nearly anything
            raise Refused(f"it is no DICOM file: {brief(error)}", transient=False) from error
        association = self.associated()
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        if dataset.SOPClassUID == Comprehensive3DSRStorage and dataset.SOPClassUID not in accepted:
            dataset = as_comprehensive(dataset)
        if dataset.SOPClassUID not in accepted:
            raise Refused(f"it takes no {dataset.SOPClassUID.name}", transient=False)
        self.sent_as = (str(dataset.SOPClassUID), str(dataset.SOPInstanceUID))
        try:
            answer = association.send_c_store(dataset)
        except (RuntimeError, ValueError, OSError) as error:
            answer = Dataset()
            cause = brief(error)
        else:
            cause = "no answer"
        if "Status" not in answer:
            self.drop()
            raise Unreachable(f"the association ended: {cause}")
        status, comment = int(answer.Status), printable(str(answer.get("ErrorComment", "")))
        words = f"status 0x{status:04X}{f', {comment}' if comment else ''}"
        if status == 0:
            return None
        if status == 0x0111 or status >> 12 == 0xB:  # it has the result already, or has changed something in it
            return words
        raise Refused(words, transient=status >> 8 == 0xA7)

    def verify(self) -> None:
        """Ask whether the destination is there.

        Raises:
            Unreachable: it is not.
        """
        answer = self.associated().send_c_echo()
        if answer.get("Status") != 0:
            self.drop()
            raise Unreachable("it does not answer C-ECHO: its log says why")

    def release(self) -> None:
        """Release the association if there is one."""
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None

    def associated(self) -> Any:
        """Return the association, made if needed.

        Raises:
            Unreachable: there is none.
        """
        if self._association is not None and self._association.is_established:
            return self._association
        to = self._destination
        self._association, self.was_established = None, False
        try:
            tls = (self._tls.context(), to.tls_name or to.host) if to.tls else None
        except UsageError as error:
            raise Unreachable(str(error)) from error
        attempt = AssociationAttempt(to, self._entity.ae_title)
        try:
            association = self._entity.associate(
                to.host,
                to.port,
                ae_title=to.ae_title,
                tls_args=tls,
                evt_handlers=[
                    (evt.EVT_CONN_OPEN, lambda event: BoundedSocket(event.assoc, self._limits)),
                    *attempt.handlers,
                    *self._handlers,
                ],
            )
        except (OSError, RuntimeError, ValueError) as error:  # such as a name that is not found
            raise Unreachable(no_connection(to.host, to.port, error, CONNECT)) from error
        if not association.is_established:
            raise Unreachable(attempt.failure(association, tls, CONNECT))
        self._association, self.was_established = association, True
        return association

    def drop(self) -> None:
        """Abort the association if there is one."""
        if self._association is not None:
            self._association.abort()
        self._association = None


def as_comprehensive(report: Dataset) -> Dataset:
    """Return a Comprehensive 3D SR as a Comprehensive SR.

    It has the same content, which uses nothing of the third dimension, under a UID of its own.

    Args:
        report: is changed.
    """
    uid = uid_of("edgecxr comprehensive", report.SOPInstanceUID)
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = uid
    return report
