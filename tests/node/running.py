"""Processes of a node and their peers, started and ended by a test. Nothing listens beyond loopback."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgecxr.node.supervisor import ROLES
from edgecxr.workers.new_python import command, environment

PATIENCE = 120.0
"""Seconds after which a test gives up; a loaded machine needs a few."""


def dcmtk(name: str) -> str:
    """Return the full path of a DCMTK program; pip's pynetdicom installs some of the same names."""
    for folder in ("/usr/bin", "/usr/local/bin"):
        if os.access(f"{folder}/{name}", os.X_OK):
            return f"{folder}/{name}"
    pytest.skip(f"{name} is not installed (Debian: dcmtk)")


def eventually(holds: Callable[[], object], event: str = "") -> None:
    """Wait until something holds."""
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until, f"not within {PATIENCE:g} s: {event}"
        time.sleep(0.05)


@contextmanager
def alone() -> Iterator[list[str]]:
    """Provide a prefix of commands, which then share a network of their own with nothing but loopback.

    Some programs listen on all addresses.
    """
    up = "fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, struct.pack('16sh14x', b'lo', 0x49))"
    holder = f"import fcntl, socket, struct, sys, time; {up}; print('up', flush=True); sys.stdin.read()"
    programs = [shutil.which(name) for name in ("unshare", "nsenter")]
    if None in programs or os.geteuid() != 0:
        pytest.skip("a network of its own needs root, unshare and nsenter (Debian: util-linux)")
    process = subprocess.Popen(
        ["unshare", "-n", sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        if process.stdout.readline() != "up\n":
            pytest.skip("this machine gives no network of its own")
        yield ["nsenter", "-t", str(process.pid), "-n"]
    finally:
        process.stdin.close()
        process.wait()


class Process:
    """A program whose lines on standard error are kept."""

    def __init__(self, *arguments: str | Path, **variables: str) -> None:
        self.lines: list[str] = []
        self.popen = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**environment(), **variables},
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.lines.append(line.rstrip("\n"))

    def says(self, pattern: str) -> re.Match[str]:
        """Wait for a line, and return the match."""
        matches: list[re.Match[str]] = []

        def there() -> bool:
            matches.extend(match for line in list(self.lines) if (match := re.search(pattern, line)))
            assert matches or self.popen.poll() is None, self.lines
            return bool(matches)

        eventually(there, f"{pattern} in {self.lines}")
        return matches[0]

    def kill(self) -> None:
        """End it by SIGKILL, with its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        self._reader.join(timeout=PATIENCE)

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        self.popen.terminate()
        code = self.popen.wait(timeout=PATIENCE)
        self._reader.join(timeout=PATIENCE)
        return code


@contextmanager
def started(*arguments: str | Path, **variables: str) -> Iterator[Process]:
    """Provide a program, killed afterwards."""
    process = Process(*arguments, **variables)
    try:
        yield process
    finally:
        process.kill()


@contextmanager
def role(name: str, config: Path) -> Iterator[Process]:
    """Provide a process of a node."""
    with started(*command(ROLES[name], str(config))) as process:
        yield process


def free_port() -> int:
    """Return a port of loopback on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def configured(folder: Path, more: str = "", **keys: object) -> Path:
    """Write a configuration for a test: small reserves, one peer on loopback."""
    values = {"ae_title": "EDGE", "port": 0, "state": str(folder / "state"), "workers": 1, **keys}
    lines = [
        f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for key, value in values.items()
    ]
    peer = '[[peer]]\nae_title = "MODALITY"\naddress = "127.0.0.0/8"\n'
    limits = "" if "[limits]" in more else "[limits]\nfree_mib = 1\nfree_percent = 0.0\n"
    web = "" if "[web]" in more else "[web]\nport = 0\n"
    path = folder / "node.toml"
    path.write_text("\n".join([*lines, peer, more, limits, web]).replace("'", '"'))
    return path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [str(argument) for argument in arguments], capture_output=True, text=True, errors="replace", timeout=PATIENCE
    )


def dcmsend(
    port: int, *films: Path, calling: str = "MODALITY", called: str = "EDGE"
) -> subprocess.CompletedProcess[str]:
    """Send films by DCMTK."""
    return run(dcmtk("dcmsend"), "-v", "-aet", calling, "-aec", called, "127.0.0.1", str(port), *films)


def echo(port: int, calling: str = "MODALITY", called: str = "EDGE", seconds: int = 20) -> int:
    """Ask by DCMTK whether a node is there; return the exit code."""
    program = dcmtk("echoscu")
    return run(
        program, "-to", str(seconds), "-ta", str(seconds), "-aet", calling, "-aec", called, "127.0.0.1", str(port)
    ).returncode


def has_dcmtk() -> bool:
    """Return whether DCMTK is there."""
    return shutil.which("dcmsend") is not None
