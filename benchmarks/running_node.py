"""A running node for benchmarks, with a stand-in for the PACS, all in a network of its own."""

from __future__ import annotations

import contextlib
import copy
import http.server
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from receive import PORT, make, wait_for

ARCHIVE = 11113
CONFIG = """
model = "research-28"
ae_title = "EDGECXR"
port = {port}
state = "{folder}/state"
[[peer]]
ae_title = "SENDER"
address = "127.0.0.0/8"
[limits]
free_mib = 0
free_percent = 0.0
[[destination]]
name = "archive"
"""
DESTINATIONS = {
    "stow": f'url = "http://127.0.0.1:{ARCHIVE}/dicomweb"\n',
    "store": f'ae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = {ARCHIVE}\n',
}
_PATIENCE = 3600.0


@contextmanager
def archive(by: str, look: Callable[[bytes], None] = lambda content: None) -> Iterator[None]:
    """Run a stand-in for the PACS that takes results and keeps nothing; by STOW-RS, `look` gets each one's bytes."""
    if by == "stow":
        Stow.look = staticmethod(look)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", ARCHIVE), Stow)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
        return
    process = subprocess.Popen(["/usr/bin/storescp", "--fork", "--ignore", "-aet", "ARCHIVE", str(ARCHIVE)])
    try:
        wait_for(ARCHIVE)
        yield
    finally:
        process.kill()
        process.wait()


STORED = b'{"00081199": {"vr": "SQ", "Value": [{}]}}'
"""What a DICOMweb service answers of an object that it keeps: ReferencedSOPSequence, here of an empty item."""


class Stow(http.server.BaseHTTPRequestHandler):
    """A DICOMweb service that takes everything."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    look: Callable[[bytes], None]

    def handle(self) -> None:
        """Answer until the connection ends, as when its sender is killed."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_POST(self) -> None:
        """Read what comes, and say that it is stored."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if len(body) < int(self.headers["Content-Length"]):  # the sender was killed
            return
        boundary = self.headers.get_param("boundary")
        self.look(body.partition(b"\r\n\r\n")[2].rpartition(f"\r\n--{boundary}--".encode())[0])
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(STORED)))
        self.end_headers()
        self.wfile.write(STORED)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Node:
    """A running node.

    Attributes:
        began: when it was started, seconds of `time.monotonic`.
        peak: largest PSS of all its processes so far, MiB.
    """

    def __init__(self, folder: Path, by: str, more: str = "") -> None:
        from edgecxr.workers.new_python import command, environment

        folder.mkdir()
        (folder / "node.toml").write_text(CONFIG.format(port=PORT, folder=folder) + DESTINATIONS[by] + more)
        self.database, self.peak, self.began = folder / "state" / "node.sqlite", 0.0, time.monotonic()
        self.process = subprocess.Popen(
            command("edgecxr.cli:main", "serve", "--config", str(folder / "node.toml")),
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def _sample(self) -> None:
        while not self._ended.wait(0.5):
            self.peak = max(self.peak, self.pss())

    def pids(self) -> list[int]:
        """Return the processes of the node."""
        parents: dict[int, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
        pids, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            pids.append(pid)
            todo += parents.get(pid, [])
        return pids

    def pid_of(self, role: str) -> int | None:
        """Return the process that the supervisor has started for a role; None if there is none now."""
        from edgecxr.node.supervisor import ROLES

        pid, module = self.process.pid, ROLES[role].partition(":")[0]
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                with contextlib.suppress(OSError):
                    if module in Path(f"/proc/{child}/cmdline").read_text():
                        return int(child)
        return None

    def pss(self) -> float:
        """Return the memory of all its processes, MiB, shared pages divided."""
        return sum(self.pss_of_roles().values())

    def pss_of_roles(self) -> dict[str, float]:
        """Return the memory of the supervisor ("serve") and of each role with the workers that it has forked, MiB."""
        mib: dict[str, float] = {}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                module = re.search(r"edgecxr\.node\.(?:\w+\.)*(\w+)", Path(f"/proc/{pid}/cmdline").read_text())
                role = module[1] if module else "serve" if pid == self.process.pid else "workers"
                mib[role] = mib.get(role, 0.0) + int(rollup.partition("\nPss:")[2].split()[0]) / 1024
        return mib

    def descriptors(self) -> int:
        """Return the number of its open files and sockets."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                total += sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return total

    def cpu_seconds(self) -> float:
        """Return the processor time of its processes, and of those that they have waited for."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += sum(map(int, fields[11:15]))
        return total / os.sysconf("SC_CLK_TCK")

    def films(self, states: str) -> list[tuple[Any, ...]]:
        """Return uid, received and changed of the films in states."""
        return self.rows(f"SELECT uid, received, changed FROM film WHERE {states}")

    def rows(self, select: str) -> list[tuple[Any, ...]]:
        """Return what a statement selects from the node's database."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=60)) as database:
            return database.execute(select).fetchall()

    def filed(self, count: int) -> None:
        """Wait until so many films are filed."""
        self.wait(lambda: len(self.films("state = 'filed'")) >= count, f"{count} films are filed")

    def settled(self) -> None:
        """Wait until no film that was acknowledged is on its way; one that was lost is not waited for."""
        self.wait(lambda: not self.films("state != 'filed'"), "all films are filed")

    def wait(self, holds: Callable[[], bool], event: str) -> None:
        """Wait until something holds."""
        until = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(sqlite3.OperationalError):  # the database is not there yet
                if holds():
                    return
                stopped = self.films("state IN ('refused', 'rejected')")
                if stopped:
                    sys.exit(f"{len(stopped)} films were not analysed; the first one is {stopped[0][0]}")
            if self.process.poll() is not None or time.monotonic() > until:
                sys.exit(f"the node has ended, or not within {_PATIENCE:g} s: {event}")
            time.sleep(0.05)

    def end(self) -> None:
        """End it."""
        self._ended.set()
        self._sampler.join()
        self.process.terminate()
        self.process.wait()


@contextmanager
def running(scratch: Path, by: str, more: str = "") -> Iterator[Node]:
    """Provide a node with an empty state folder, which takes associations; `more` is added to its configuration."""
    folder = scratch / "node"
    node = Node(folder, by, more)
    try:
        while echo() is None:
            if node.process.poll() is not None:
                sys.exit(f"the node has ended with exit code {node.process.returncode}")
            time.sleep(0.02)
        yield node
    finally:
        node.end()
        shutil.rmtree(folder)


def echo(seconds: int = 30) -> float | None:
    """Return the seconds of a C-ECHO by DCMTK; None if there is no answer."""
    start = time.monotonic()
    times = ["-to", str(seconds), "-ta", str(seconds), "-td", str(seconds)]
    command = ["/usr/bin/echoscu", *times, "-aet", "SENDER", "-aec", "EDGECXR", "127.0.0.1", str(PORT)]
    code = subprocess.run(command, stderr=subprocess.DEVNULL).returncode
    return None if code else time.monotonic() - start


def picture(mib: float) -> Any:
    """Return the phantom that is sent, as 16-bit pixels of so many MiB."""
    import numpy as np

    from edgecxr.phantom.film import render

    pixels = render(2026, 0).pixels
    side = int((mib * (1 << 20) / 2) ** 0.5)
    rows, columns = (np.arange(side) * length // side for length in pixels.shape)
    return np.rint(pixels[np.ix_(rows, columns)] * 4095).astype(np.uint16)


def send(folders: list[Path]) -> float:
    """Send folders of films at one time; return the seconds."""
    start = time.perf_counter()
    command = ["/usr/bin/dcmsend", "-aet", "SENDER", "-aec", "EDGECXR", "127.0.0.1", str(PORT), "+sd"]
    codes = [process.wait() for process in [subprocess.Popen([*command, str(folder)]) for folder in folders]]
    if any(codes):
        sys.exit(f"dcmsend ended with {codes}")
    return time.perf_counter() - start


def warm(scratch: Path, node: Node) -> None:
    """Let a node read its first film."""
    folder = make(scratch / "warm", 501, 1, 1.0, picture(1.0))
    send([folder])
    node.filed(1)
    shutil.rmtree(folder)


def stream(template: Any, numbers: range) -> None:
    """Send films, each with UIDs of its own and again until it is acknowledged."""
    from pynetdicom import AE

    film = copy.deepcopy(template)
    entity = AE("SENDER")
    entity.add_requested_context(film.SOPClassUID, film.file_meta.TransferSyntaxUID)
    association = None
    for number in numbers:
        film.SOPInstanceUID, film.StudyInstanceUID = f"1.2.700.{number}", f"1.3.700.{number}"
        while True:
            if association is None or not association.is_established:
                association = entity.associate("127.0.0.1", PORT, ae_title="EDGECXR")
            with contextlib.suppress(RuntimeError, ValueError):  # the association has just ended
                answer: Any = association.send_c_store(film) if association.is_established else {}
                if answer.get("Status") == 0:
                    break
            time.sleep(0.5)
    if association is not None and association.is_established:
        association.release()
