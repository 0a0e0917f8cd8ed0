"""The supervisor of a node, which keeps its processes running.

It loads neither pynetdicom nor a model nor a web server, and does nothing else that could end it.
"""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgecxr.errors import brief
from edgecxr.node.audit.audit_events import Audit
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.node_process import Stop
from edgecxr.storage.atomic import writing
from edgecxr.storage.locks import locked
from edgecxr.storage.permissions import PRIVATE, umask
from edgecxr.terminal import say
from edgecxr.workers.new_python import command, environment

ROLES = {
    "receive": "edgecxr.node.receiving.receive:main",
    "stow": "edgecxr.node.receiving.stow:main",
    "infer": "edgecxr.node.infer_films:main",
    "send": "edgecxr.node.sending.send:main",
    "web": "edgecxr.node.web.web_process:main",
}
"""Processes of a node -> the function that each runs."""


def roles(config: NodeConfig) -> dict[str, str]:
    """Return those of `ROLES` that a configuration asks for."""
    left_out = {role for role, is_asked in (("stow", config.stow), ("web", config.web.enabled)) if not is_asked}
    return {role: function for role, function in ROLES.items() if role not in left_out}


_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds until a process that has ended is started again.

They double each time that it ends by an error, unless it ran longer than the longest; a process that was killed is not
likely to be the cause.
"""

_LOOK = 0.2
_GRACE = 15.0  # seconds in which processes must stop


def serve(path: Path | None, config: NodeConfig) -> None:
    """Run a node until SIGTERM or SIGINT.

    Args:
        path: of the configuration, which each process reads itself; None if there is none.
        config: the same, read.

    Raises:
        UsageError: another node runs in its folder, or it cannot be made.
    """
    stop = Stop()
    with umask(PRIVATE), writing(config.folder, "name another folder with `state`"):
        config.folder.mkdir(parents=True, exist_ok=True)
    doing = f"serves {config.folder}: end it, or name another `state`"
    with umask(PRIVATE), locked(config.folder / ".serve.lock", doing):
        arguments = () if path is None else (str(path.absolute()),)
        audit = Audit(config, "supervisor")
        audit.started()
        processes = [_Process(role, command(function, *arguments), audit) for role, function in roles(config).items()]
        try:
            while not stop.wait(_LOOK):
                for process in processes:
                    process.keep_running()
        finally:
            _end(processes)
            audit.stopped()


@dataclass
class _Process:
    role: str
    command: list[str]
    audit: Audit
    popen: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    pause: float = field(default=_FIRST_PAUSE / 2)
    due: float = 0.0

    def keep_running(self) -> None:
        """Start the process unless it runs or pauses."""
        now = time.monotonic()
        if self.popen is None:
            if now >= self.due:
                self._start(now)
            return
        code = self.popen.poll()
        if code is None:
            return
        why = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        self.popen = None
        self._rest(now, f"ended {why}", fresh=code < 0 or now - self.began > _LONGEST_PAUSE)

    def _start(self, now: float) -> None:
        self.began = now
        try:
            # The process ends when the other end of its standard input is closed: when this one ends.
            self.popen = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment()
            )
        except OSError as error:  # such as no memory for a further process
            self._rest(now, f"did not start: {brief(error)}", fresh=False)

    def _rest(self, now: float, reason: str, fresh: bool) -> None:
        """Pause until the next start.

        Args:
            now: seconds of `time.monotonic`.
            reason: what has happened, in words.
            fresh: whether the pause is the first one again.
        """
        self.pause = _FIRST_PAUSE if fresh else min(_LONGEST_PAUSE, 2 * self.pause)
        self.due = now + self.pause
        self.audit.ended(self.role, reason)
        say(f"serve: {self.role} {reason}, and is started again in {self.pause:g} s")


def _end(processes: list[_Process]) -> None:
    running = [process.popen for process in processes if process.popen is not None]
    for popen in running:
        with suppress(OSError):
            popen.terminate()
    until = time.monotonic() + _GRACE
    for popen in running:
        try:
            popen.wait(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
