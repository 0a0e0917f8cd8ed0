"""What most would write to receive films with pynetdicom: `python bare_receive.py FOLDER PORT`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pynetdicom import AE, AllStoragePresentationContexts, evt


def keep(event: Any) -> int:
    """Write a film under its UID."""
    Path(sys.argv[1], f"{event.request.AffectedSOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
    return 0


if __name__ == "__main__":
    entity = AE("EDGECXR")
    entity.supported_contexts = AllStoragePresentationContexts
    entity.maximum_pdu_size = 128 << 10
    entity.start_server(("127.0.0.1", int(sys.argv[2])), evt_handlers=[(evt.EVT_C_STORE, keep)])
