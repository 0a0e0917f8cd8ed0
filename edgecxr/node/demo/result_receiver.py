"""An archive that takes results, says so, and forgets them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined, unused-ignore]
    Comprehensive3DSRStorage,
    SecondaryCaptureImageStorage,
    Verification,
)

from edgecxr.node.sending.association import quiet
from edgecxr.terminal import printable, say

_KINDS = {Comprehensive3DSRStorage: "a report", SecondaryCaptureImageStorage: "a picture"}


@contextmanager
def receiving(ae_title: str) -> Iterator[int]:
    """Receive results on loopback until the block ends.

    Args:
        ae_title: of the archive.

    Yields:
        The port.
    """
    quiet()
    entity = AE(ae_title)
    for sop_class in (Verification, *_KINDS):
        entity.add_supported_context(sop_class)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, _taken)])
    assert server is not None
    try:
        yield int(server.server_address[1])
    finally:
        entity.shutdown()


def _taken(event: Any) -> int:
    result: Dataset = event.dataset
    kind = _KINDS.get(result.SOPClassUID, "an object")
    say(f"demo: the archive has {kind} about {printable(str(result.get('PatientID', '')))}")
    return 0x0000
