"""How much slower training is beside other work that takes half of the cores.

    python benchmarks/beside.py --out benchmarks/results/cpu-2core/beside.json

Runs `edgecxr distill` as a process of its own, alone and beside processes that compute without pause, one for every two
cores: as it is typed, and with threads that spin at barriers as GNU's OpenMP does by itself. All four take turns; a
speed is the median of a run's epochs but the first, and a ratio that of two runs of one round. The work of other
programs on the machine is in the record, in cores. Ends with 6 if training beside other work takes more than 2.5 times
as long as alone.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from noise_films import films
from ratios import finish, judged, record, spread

from edgecxr.machine.cores import cores
from edgecxr.machine.load import OtherProcesses
from edgecxr.workspace import Workspace

LIMIT = 2.5
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
WAYS: dict[str, dict[str, str]] = {"as typed": {}, "spinning": {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}}
BUSY = "import os, threading; threading.Thread(target=lambda: (os.read(0, 1), os._exit(0))).start()\nwhile True: pass"
"""Busy until its standard input ends, that is, until its parent does."""


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of each training, the first of which does not count")
    parser.add_argument("--steps", type=int, default=8, help="of an epoch")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--depth", type=int, default=12, help="blocks")
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS], help="how threads wait; all by default")
    parser.add_argument("--limit", type=float, default=LIMIT, help="largest ratio")
    args = parser.parse_args()
    busy = max(1, cores() // 2)
    runs: dict[tuple[str, int], list[dict[str, float]]] = {(way, work): [] for way in args.ways for work in (0, busy)}
    with tempfile.TemporaryDirectory(prefix="edgecxr-beside-") as folder:
        workspace = Workspace(Path(folder, "runs"))
        films(Path(folder, "films"), workspace, args.steps * args.batch)
        for _ in range(args.rounds):
            for (way, work), results in runs.items():
                results.append(trained(workspace, WAYS[way], work, args))
                print(f"{way}, beside {work} processes: {results[-1]}", file=sys.stderr, flush=True)
    results = [compared(way, runs[way, 0], runs[way, busy], args.limit) for way in args.ways]
    settings = {key: value for key, value in vars(args).items() if key != "out"}
    return finish(record("beside", settings | {"cores": cores(), "busy_processes": busy}, results), args.out)


def compared(way: str, alone: list[dict[str, float]], beside: list[dict[str, float]], limit: float) -> dict[str, Any]:
    """Return speeds and ratios; only the way that edgecxr takes has a limit."""
    ratios = [one["images_per_s"] / other["images_per_s"] for one, other in zip(alone, beside, strict=True)]
    return {
        "name": way,
        **{
            f"{key}_{name}": spread([run[key] for run in group], 2)
            for name, group in (("alone", alone), ("beside", beside))
            for key in ("images_per_s", "cores_of_other_programs")
        },
        "alone_over_beside": spread(ratios, 3),
        "checks": [judged("training beside other work", statistics.median(ratios), limit)] if way == "as typed" else [],
    }


def trained(workspace: Workspace, variables: dict[str, str], busy: int, args: argparse.Namespace) -> dict[str, float]:
    """Train once, and return its speed and how many cores other programs had meanwhile."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
    command = [
        sys.executable, "-m", "edgecxr", "distill", "--res", "28", "--method", "none", "--init", "random", "--arch",
        "tiny", "--fresh", "--precision", "fp32", "--device", "cpu",
        *(f"--{name}={getattr(args, name)}" for name in ("depth", "epochs", "batch")),
    ]  # fmt: skip
    others: float | None = 0
    with working(busy) as pids:
        process = subprocess.Popen(
            command,
            env=environment | {"EDGECXR_RUNS": str(workspace.root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        load = OtherProcesses([process.pid, *pids], Path("/"))
        while process.poll() is None:
            others = load.busy()
            time.sleep(0.2)
    if process.returncode or process.stdout is None:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    with Path(process.stdout.read().strip(), "history.csv").open() as file:
        speeds = [float(row["images_per_s"]) for row in csv.DictReader(file)]
    return {"images_per_s": statistics.median(speeds[1:]), "cores_of_other_programs": others or 0}


@contextlib.contextmanager
def working(count: int) -> Iterator[list[int]]:
    """Keep processes busy during the block, and yield their numbers."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE) for _ in range(count)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
