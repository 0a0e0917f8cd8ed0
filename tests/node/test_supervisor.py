"""The supervisor goes on, whatever a process of the node does."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from edgecxr.node import supervisor
from edgecxr.node.audit.audit_events import Audit
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.supervisor import _Process


def test_a_process_that_cannot_be_started_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def popen(*_: Any, **__: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    process = _Process("send", ["true"], Audit(NodeConfig(state=str(tmp_path / "state")), "supervisor"))
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", popen)
        pauses = []
        for _ in range(8):
            process.due = 0.0
            process.keep_running()
            pauses.append(process.due - time.monotonic())
    assert process.popen is None and pauses[1] > 1.5 * pauses[0] and pauses[-1] <= supervisor._LONGEST_PAUSE
    assert capsys.readouterr().err.count("Cannot allocate memory") == 8
    process.due = 0.0
    process.keep_running()
    assert process.popen is not None and process.popen.wait() == 0
