"""Whether a node grows: its memory and descriptors while many small films come, and whether one of them is lost.

    python benchmarks/soak.py --films 20000 --out benchmarks/results/cpu-2core/soak.json

`edgecxr serve` with the bundle that comes with edgecxr gets --films films of one phantom by eight senders, each with
UIDs of its own, and files both results of each by STOW-RS (`--by stow`) or C-STORE at a stand-in that keeps nothing.
After a tenth of them and eight times more, the node settles; its memory is the PSS of all processes, the median of some
seconds, since workers come and go. Growth is from the first of these points to the last. All runs in a network of its
own (unshare). Ends with 6 if a goal is missed. Needs edgecxr[node], and DCMTK and util-linux of the system.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from ratios import finish, judged, record
from receive import inside, make
from running_node import DESTINATIONS, Node, archive, picture, running, stream

GOALS = {"memory": 1.05, "descriptors": 1.02, "not filed": 0}
SENDERS = 8
POINTS = 10
_SETTLING = 5.0  # seconds until associations without work end


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--films", type=int, default=20_000, help="to send")
    parser.add_argument("--by", choices=DESTINATIONS, default="stow", help="how results are filed")
    parser.add_argument("--seconds", type=int, default=20, help="over which the memory of a point is taken")
    args = parser.parse_args()
    inside()
    with tempfile.TemporaryDirectory(prefix="edgecxr-soak-") as scratch, archive(args.by):
        result = soak(Path(scratch), args.films, args.by, args.seconds)
    return finish(record("soak", {"films": args.films, "senders": SENDERS, "by": args.by}, [result]), args.out)


def soak(scratch: Path, films: int, by: str, seconds: int) -> dict[str, Any]:
    """Send films, and measure the growth between a tenth and all of them."""
    from pydicom import dcmread

    (film,) = make(scratch / "film", 700, 1, 0.05, picture(0.05)).iterdir()
    template = dcmread(film)
    points: list[dict[str, Any]] = []
    with running(scratch, by) as node:
        done, sending = 0, 0.0
        for part in range(1, POINTS + 1):
            began, target_count = time.perf_counter(), films * part // POINTS
            threads = [
                threading.Thread(target=stream, args=(template, range(done + number, target_count, SENDERS)))
                for number in range(SENDERS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            node.settled()
            done, sending = target_count, sending + time.perf_counter() - began
            points.append({"films": done, **memory(node, seconds), "descriptors": node.descriptors()})
            print(points[-1], file=sys.stderr, flush=True)
        lost = films - len({uid for uid, _, _ in node.films("state = 'filed'")})
    growth = {key: points[-1][key] / points[0][key] for key in ("pss_mib", "descriptors")}
    values = {"memory": growth["pss_mib"], "descriptors": growth["descriptors"], "not filed": lost}
    checks = [judged(name, values[name], goal) for name, goal in GOALS.items()]
    return {"name": "soak", "films_per_s": round(films / sending, 2), "points": points, "checks": checks}


def memory(node: Node, seconds: int) -> dict[str, Any]:
    """Return the median of a node's memory over some seconds, of all processes and by role, in MiB."""
    time.sleep(_SETTLING)
    samples = []
    for _ in range(seconds):
        samples.append(node.pss_of_roles())
        time.sleep(1)
    names = sorted({role for each in samples for role in each})
    roles = {role: round(statistics.median(each.get(role, 0.0) for each in samples), 1) for role in names}
    return {"pss_mib": round(statistics.median(sum(each.values()) for each in samples), 1), "roles": roles}


if __name__ == "__main__":
    sys.exit(main())
