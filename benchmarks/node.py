"""How a whole node does: films per second, delays, memory, start, strangers and a soak, beside other receivers.

    python benchmarks/node.py --out benchmarks/results/cpu-2core/node.json
    python benchmarks/node.py --parts soak --films 20000 --out benchmarks/results/cpu-2core/node-soak.json

`edgecxr serve` with the bundle that comes with edgecxr gets films by DCMTK's dcmsend, and files both results of each by
STOW-RS (`--by stow`) or C-STORE (`--by store`, DCMTK's storescp) at a stand-in that keeps nothing. The films are one
phantom that its quality gate takes, enlarged, each with UIDs of its own. Parts: `start` (to the first C-ECHO and the
first prediction; memory and CPU while nothing comes), `sustained` (films of --mib and of 1 MiB, as fast as they go,
each filed; beside it a plain pynetdicom listener and storescp, which only receive), `delay` (from the first byte of a
film to both results filed, one film a second), `hostile` (C-ECHO while 200 silent connections of another address are
open, for all three receivers), `soak` (--films small ones by eight senders: growth of memory and of descriptors).
Memory is the PSS of all processes of the node. All runs in a network of its own (unshare). Limits are goals for two
cores. Ends with 6 if one is missed. Needs edgecxr[node], and DCMTK and util-linux of the system.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import http.server
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import receive
from ratios import finish, judged, record, spread
from receive import PORT, loopback, make, wait_for

ARCHIVE = 11113
PARTS = ("start", "sustained", "delay", "hostile", "soak")
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
# Seconds, MiB and shares on two cores.
GOALS = {
    "sustained large": 1 / 4, "sustained 1 MiB": 1 / 8, "delay p50": 0.7, "delay p95": 1.5, "PSS idle": 500.0,
    "PSS peak": 900.0, "CPU idle": 0.01, "start to C-ECHO": 2.0, "start to prediction": 5.0, "echo": 1.0,
    "soak memory": 1.05, "soak descriptors": 1.02,
}  # fmt: skip
SILENT = 200
ECHOES = 20
_PATIENCE = 3600.0


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:-1])
    parser.add_argument("--films", type=int, default=96, help="of each part")
    parser.add_argument("--mib", type=float, default=15.0, help="of a large film")
    parser.add_argument("--senders", type=int, default=4, help="at one time")
    parser.add_argument("--by", choices=DESTINATIONS, default="stow", help="how results are filed")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds of nothing")
    args = parser.parse_args()
    if not os.environ.get(receive.INSIDE):
        unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
        command = [*unshare, sys.executable, *sys.argv]
        return subprocess.run(command, env={**os.environ, receive.INSIDE: "1"}).returncode
    loopback()
    with tempfile.TemporaryDirectory(prefix="edgecxr-node-") as scratch, archive(args.by):
        results = [globals()[part](Path(scratch), args) for part in PARTS if part in args.parts]
    settings = {key: getattr(args, key) for key in ("films", "mib", "senders", "by", "idle")}
    return finish(record("node", settings, results), args.out)


@contextmanager
def archive(by: str) -> Iterator[None]:
    """Run a stand-in for the PACS that takes results and keeps nothing."""
    if by == "stow":
        server = http.server.ThreadingHTTPServer(("127.0.0.1", ARCHIVE), Stow)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()
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

    def do_POST(self) -> None:
        """Read what comes, and say that it is stored."""
        self.rfile.read(int(self.headers["Content-Length"]))
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

    def __init__(self, folder: Path, by: str) -> None:
        from edgecxr.workers.new_python import command, environment

        folder.mkdir()
        (folder / "node.toml").write_text(CONFIG.format(port=PORT, folder=folder) + DESTINATIONS[by])
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
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += parents.get(pid, [])
        return found

    def pss(self) -> float:
        """Return the memory of all its processes, MiB, shared pages divided."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(rollup.partition("\nPss:")[2].split()[0])
        return total / 1024

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

    def films(self, states: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return uid, received and changed of the films in states."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=60)) as database:
            return database.execute(f"SELECT uid, received, changed FROM film WHERE {states}", values).fetchall()

    def filed(self, count: int) -> None:
        """Wait until so many films are filed."""
        self.wait(lambda: len(self.films("state = 'filed'")) >= count, f"{count} films are filed")

    def settled(self) -> None:
        """Wait until no film that was acknowledged is on its way; one that was lost is not waited for."""
        self.wait(lambda: not self.films("state != 'filed'"), "all films are filed")

    def wait(self, holds: Callable[[], bool], what: str) -> None:
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
                sys.exit(f"the node has ended, or not within {_PATIENCE:g} s: {what}")
            time.sleep(0.05)

    def end(self) -> None:
        """End it."""
        self._ended.set()
        self._sampler.join()
        self.process.terminate()
        self.process.wait()


@contextmanager
def running(scratch: Path, by: str) -> Iterator[Node]:
    """Provide a node with an empty state folder, which takes associations."""
    folder = scratch / "node"
    node = Node(folder, by)
    try:
        while echo() is None:
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


def start(scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure the start, and what a node takes while nothing comes."""
    (film,) = make(scratch / "first", 900, 1, 1.0, picture(1.0)).iterdir()
    with running(scratch, args.by) as node:
        to_echo = time.monotonic() - node.began
        send([film.parent])
        node.wait(lambda: bool(node.films("state NOT IN ('received', 'reading')")), "a film is read")
        to_prediction = time.monotonic() - node.began
        node.filed(1)
        time.sleep(10)
        before, since = node.cpu_seconds(), time.monotonic()
        time.sleep(args.idle)
        share = (node.cpu_seconds() - before) / (time.monotonic() - since)
        idle = node.pss()
    measured = {"start to C-ECHO": to_echo, "start to prediction": to_prediction, "CPU idle": share, "PSS idle": idle}
    return {"name": "start", "checks": [judged(name, value, GOALS[name]) for name, value in measured.items()]}


def sustained(scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure films per second from the first byte to the last result filed."""
    result: dict[str, Any] = {"name": "sustained", "checks": []}
    for name, mib in (("large", args.mib), ("1 MiB", 1.0)):
        each = max(1, args.films // args.senders)
        pixels = picture(mib)
        folders = [make(scratch / f"{name}-{n}", n + 1, each, mib, pixels) for n in range(args.senders)]
        with running(scratch, args.by) as node:
            warm(scratch, node)
            began = time.perf_counter()
            sending = send(folders)
            node.filed(each * args.senders + 1)
            seconds = time.perf_counter() - began
            peak = node.peak
        count = each * args.senders
        result[name] = {"films": count, "films_per_s": round(count / seconds, 2), "peak_mib": round(peak, 1)}
        result[name]["received_per_s"] = {"node": round(count / sending, 2)}
        for kind in ("plain", "storescp"):
            alone, _ = receive.measured(scratch, kind, folders)
            result[name]["received_per_s"][kind] = round(count / alone, 2)
        result["checks"] += [
            judged(f"sustained {name}", seconds / count, GOALS[f"sustained {name}"]),
            judged("PSS peak", peak, GOALS["PSS peak"]),
        ]
        for folder in folders:
            shutil.rmtree(folder)
    return result


def delay(scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure from a film's first byte to both results filed, at one film a second."""
    films = sorted(make(scratch / "delay", 500, args.films, args.mib, picture(args.mib)).iterdir())
    began: dict[str, float] = {}
    command = ["/usr/bin/dcmsend", "-aet", "SENDER", "-aec", "EDGECXR", "127.0.0.1", str(PORT)]
    with running(scratch, args.by) as node:
        warm(scratch, node)
        due = time.monotonic()
        for film in films:
            time.sleep(max(0.0, due - time.monotonic()))
            due += 1
            began[f"1.2.500.{int(film.stem) + 1}"] = time.time()
            subprocess.run([*command, str(film)], check=True)
        node.filed(len(films) + 1)
        delays = sorted(changed - began[uid] for uid, _, changed in node.films("state = 'filed'") if uid in began)
    shutil.rmtree(scratch / "delay")
    p50, p95 = statistics.median(delays), delays[min(len(delays) - 1, int(0.95 * len(delays)))]
    checks = [judged("delay p50", p50, GOALS["delay p50"]), judged("delay p95", p95, GOALS["delay p95"])]
    return {"name": "delay", "films": len(delays), "seconds": spread(delays, 3), "checks": checks}


def hostile(scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure C-ECHO of a peer while another address holds silent connections."""
    result: dict[str, Any] = {"name": "hostile"}
    with running(scratch, args.by):
        ours = under_silence()
    result["node"] = ours
    for kind in ("plain", "storescp"):
        folder = scratch / "received"
        folder.mkdir()
        process = subprocess.Popen(receive.RECEIVERS[kind](folder), stderr=subprocess.DEVNULL)
        try:
            wait_for(PORT)
            result[kind] = under_silence()
        finally:
            process.kill()
            process.wait()
            shutil.rmtree(folder)
    worst = 60.0 if ours["unanswered"] else ours["seconds"]["max"]
    return {**result, "checks": [judged("echo", worst, GOALS["echo"])]}


def under_silence() -> dict[str, Any]:
    """Return the seconds of echoes while many silent connections are open."""
    with contextlib.ExitStack() as stack:
        opened = 0
        for _ in range(SILENT):
            with contextlib.suppress(OSError):  # a receiver may refuse some
                connection = socket.create_connection(("127.0.0.1", PORT), 5, ("127.0.0.9", 0))
                stack.enter_context(connection)
                opened += 1
        if not opened:
            raise SystemExit(f"no connection from 127.0.0.9 to port {PORT} could be opened: nothing was measured")
        times, unanswered = [], 0
        for _ in range(ECHOES):
            seconds = echo()
            unanswered += seconds is None
            times += [] if seconds is None else [seconds]
            if unanswered > 1:
                break
    return {"silent": opened, "seconds": spread(times, 3) if times else None, "unanswered": unanswered}


def soak(scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure the growth of memory and descriptors between a tenth and all of many films."""
    from pydicom import dcmread

    (film,) = make(scratch / "soak", 700, 1, 0.05, picture(0.05)).iterdir()
    template = dcmread(film)
    senders = 8
    points: list[tuple[int, float, int]] = []
    with running(scratch, args.by) as node:
        began, done = time.perf_counter(), 0
        for share in (0.1, 0.4, 0.7, 1.0):
            wanted = int(args.films * share)
            threads = [
                threading.Thread(target=stream, args=(template, range(done + k, wanted, senders)))
                for k in range(senders)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            node.settled()
            done = wanted
            time.sleep(5)  # associations without work end
            points.append((wanted, round(node.pss(), 1), node.descriptors()))
        seconds = time.perf_counter() - began
        lost = args.films - len({uid for uid, _, _ in node.films("state = 'filed'")})
    checks = [
        judged("soak memory", points[-1][1] / points[0][1], GOALS["soak memory"]),
        judged("soak descriptors", points[-1][2] / points[0][2], GOALS["soak descriptors"]),
        judged("acknowledged and lost", lost, 0),
    ]
    keys = ("films", "pss_mib", "descriptors")
    at = [dict(zip(keys, point, strict=True)) for point in points]
    return {"name": "soak", "films_per_s": round(args.films / seconds, 2), "points": at, "checks": checks}


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
            answer: Any = association.send_c_store(film) if association.is_established else {}
            if answer.get("Status") == 0:
                break
            time.sleep(0.5)
    if association is not None and association.is_established:
        association.release()


if __name__ == "__main__":
    sys.exit(main())
