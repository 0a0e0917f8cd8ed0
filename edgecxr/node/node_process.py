"""Beginning and end of a node's processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edgecxr.errors import EdgeCxrError, brief
from edgecxr.node.audit.audit_events import Audit
from edgecxr.node.node_config import NodeConfig, read_config
from edgecxr.storage.locks import locked
from edgecxr.storage.permissions import PRIVATE, umask
from edgecxr.terminal import say

_GRACE = 10.0
"""Seconds in which a process must stop once it is told to."""


class Stop:
    """A request to stop.

    It comes by SIGTERM or SIGINT, or when the supervisor ends.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._failure: str | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.request())

    def request(self) -> None:
        """Ask this process to stop."""
        self._event.set()

    @property
    def requested(self) -> bool:
        """Whether this process is to stop."""
        return self._event.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until this process is to stop; return whether it is.

        Args:
            seconds: longest time to wait; None is for ever.
        """
        return self._event.wait(seconds)

    def background(self, name: str, work: Callable[[], object]) -> threading.Thread:
        """Do work in a thread that this process cannot do without.

        If the work ends before this process is to stop, the process stops and `check` raises, so that the supervisor
        starts it again.

        Args:
            name: of what is done, for the message.
            work: runs until this process is to stop.
        """

        def run() -> None:
            reason = ""
            try:
                work()
            except Exception as error:
                reason = f" ({type(error).__name__}: {brief(error)})"
            if not self.requested:
                self._failure = f"{name} has ended{reason}: the process is started again"
                self.request()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def check(self) -> None:
        """Raise if work of the background has ended too early.

        Raises:
            EdgeCxrError: names it.
        """
        if self._failure is not None:
            raise EdgeCxrError(self._failure)

    def follow_supervisor(self) -> None:
        """Stop when the supervisor ends, however it ends.

        It holds the other end of this process's standard input. This starts a thread.
        """

        def watch() -> None:
            while os.read(0, 1):
                pass
            self.request()
            time.sleep(_GRACE)
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def run_role(role: str, work: Callable[[NodeConfig, Stop], None]) -> None:
    """Run a node's process until it is told to stop.

    Its command line is the path of the configuration, or nothing. An error becomes a line and an exit code.

    Args:
        role: name of the process; only one of a name runs in a state folder.
        work: called with the configuration.
    """
    audit = None
    try:
        with umask(PRIVATE):
            stop = Stop()
            config = read_config(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
            config.folder.mkdir(parents=True, exist_ok=True)
            # One that has lost its supervisor may not have ended yet.
            with locked(config.folder / f".{role}.lock"):
                audit = Audit(config, role)
                audit.started()
                work(config, stop)
                stop.check()
                audit.stopped()
        code = 0
    except EdgeCxrError as error:
        say(f"{role}: {error}")
        if audit is not None:
            audit.ended(role, f"ended: {error}")
        code = error.exit_code
    sys.stderr.flush()
    os._exit(code)  # threads of associations may still wait for their peers
