"""How a whole node does: films per second, delays, memory, start, and strangers, beside other receivers.

    python benchmarks/node.py --out benchmarks/results/cpu-2core/node.json

`edgecxr serve` with the bundle that comes with edgecxr gets films by DCMTK's dcmsend, and files both results of each by
STOW-RS (`--by stow`) or C-STORE (`--by store`, DCMTK's storescp) at a stand-in that keeps nothing. The films are one
phantom that its quality gate takes, enlarged, each with UIDs of its own. Parts: `start` (to the first C-ECHO and the
first prediction; memory and CPU while nothing comes), `sustained` (films of --mib and of 1 MiB, as fast as they go,
each filed; beside it a plain pynetdicom listener and storescp, which only receive), `delay` (from the first byte of a
film to both results filed, one film a second), `hostile` (C-ECHO while 200 silent connections of another address are
open, for all three receivers). Memory is the PSS of all processes of the node. All runs in a network of its own
(unshare). Limits are goals for two cores. Ends with 6 if one is missed. Needs edgecxr[node], and DCMTK and util-linux
of the system.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import receive
from ratios import finish, judged, record, spread
from receive import PORT, inside, make, wait_for
from running_node import DESTINATIONS, archive, echo, picture, running, send, warm

PARTS = ("start", "sustained", "delay", "hostile")
# Seconds, MiB and shares on two cores.
GOALS = {
    "sustained large": 1 / 4, "sustained 1 MiB": 1 / 8, "delay p50": 0.7, "delay p95": 1.5, "PSS idle": 500.0,
    "PSS peak": 900.0, "CPU idle": 0.01, "start to C-ECHO": 2.0, "start to prediction": 5.0, "echo": 1.0,
}  # fmt: skip
SILENT = 200
ECHOES = 20


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--films", type=int, default=96, help="of each part")
    parser.add_argument("--mib", type=float, default=15.0, help="of a large film")
    parser.add_argument("--senders", type=int, default=4, help="at one time")
    parser.add_argument("--by", choices=DESTINATIONS, default="stow", help="how results are filed")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds of nothing")
    args = parser.parse_args()
    inside()
    with tempfile.TemporaryDirectory(prefix="edgecxr-node-") as scratch, archive(args.by):
        results = [globals()[part](Path(scratch), args) for part in PARTS if part in args.parts]
    settings = {key: getattr(args, key) for key in ("films", "mib", "senders", "by", "idle")}
    return finish(record("node", settings, results), args.out)


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
        per_sender = max(1, args.films // args.senders)
        pixels = picture(mib)
        folders = [make(scratch / f"{name}-{n}", n + 1, per_sender, mib, pixels) for n in range(args.senders)]
        with running(scratch, args.by) as node:
            warm(scratch, node)
            began = time.perf_counter()
            sending = send(folders)
            node.filed(per_sender * args.senders + 1)
            seconds = time.perf_counter() - began
            peak = node.peak
        count = per_sender * args.senders
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


if __name__ == "__main__":
    sys.exit(main())
