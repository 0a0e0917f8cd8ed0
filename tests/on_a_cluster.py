"""Programs that start a Ray cluster, whose daemons must not keep a test waiting."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

LIMIT = 200
"""Seconds; a cluster of one machine takes some six to start and to end."""


class ProgramOutcome(NamedTuple):
    """What a program left."""

    returncode: int
    stdout: str
    stderr: str


def ran(command: list[str], cwd: Path | None = None, **variables: str) -> ProgramOutcome:
    """Run a program in a session of its own, which is killed as a whole if it takes too long.

    Its output goes to files: daemons inherit pipes, and whoever reads these would wait for them too.
    """
    # Ray's sockets have long names, and a path may have 108 characters.
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "TMPDIR": "/tmp"} | variables
    environment.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=err, env=environment, start_new_session=True)
        try:
            code = child.wait(LIMIT)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        out.seek(0)
        err.seek(0)
        return ProgramOutcome(code, out.read(), err.read())
