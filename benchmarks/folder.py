"""`edgecxr infer FOLDER` on many films, against a plain loop; and what memory it takes for few and for many of them.

    python benchmarks/folder.py --out benchmarks/results/cpu-2core/folder.json

A folder of synthetic DICOM films of 2000 x 2000 pixels (a third each uncompressed, JPEG lossless and JPEG 2000; the
same three films again and again under other names), read by `edgecxr infer --json` with a process for each core, in
turn with bare.py, one process that does the same without checks. Then `infer` alone on --few and on --many films of
--memory-side pixels: the largest memory of the main process, and of all its processes together, sampled ten times a
second. Ends with 6 if a limit is exceeded. Making the model needs torch (edgecxr[export]); with --model nothing does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ratios import finish, judged, record, spread
from startup import HERE, MODEL_FILE, edgecxr, environment

LIMITS = {"folder-wall": 1 / 1.7, "folder-memory": 1.1}
SIDE = 2000


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--films", type=int, default=1000, help="in the folder that is timed")
    parser.add_argument("--side", type=int, default=SIDE, help="of its films, in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each program")
    parser.add_argument("--few", type=int, default=100, help="films, for the memory")
    parser.add_argument("--many", type=int, default=5000, help="films, for the memory")
    parser.add_argument(
        "--memory-side", type=int, default=512, help="of these films; as large as the others takes long"
    )
    parser.add_argument("--model", type=Path, help="a bundle instead of an untrained one")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make(args.make, args.side, args.films, args.memory_side, not args.model)
        return 0
    with tempfile.TemporaryDirectory(prefix="edgecxr-folder-") as scratch:
        place = Path(scratch)
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--make", scratch], check=True)
        bundle = args.model.resolve() if args.model else place / "bundle"
        results = [speed(place / "films", bundle, args.rounds), memory(place, bundle, args.few, args.many)]
    settings = {key: getattr(args, key) for key in ("films", "side", "rounds", "few", "many", "memory_side")}
    return finish(record("folder", settings, results), args.out)


def speed(films: Path, bundle: Path, rounds: int) -> dict[str, Any]:
    """Time `edgecxr infer` and bare.py on a folder, in turn."""
    card = json.loads((bundle / "card.json").read_text())
    count = len(list(films.iterdir()))
    ours = [*edgecxr(), "infer", str(films), "--model", str(bundle), "--json"]
    theirs = [sys.executable, str(HERE / "bare.py"), str(bundle / MODEL_FILE), str(card["size"]), str(films)]
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(rounds):
        for name, command in sorted({"ours": ours, "theirs": theirs}.items(), reverse=bool(number % 2)):
            seconds[name].append(timed(command))
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
    speeds = {name: {"films_per_s": spread([count / value for value in values])} for name, values in seconds.items()}
    checks = [judged("folder-wall", statistics.median(ratios), LIMITS["folder-wall"])]
    name = f"edgecxr infer, {count} films"
    return {"name": name, "against": "bare.py", **speeds, "ratio": {"wall": spread(ratios)}, "checks": checks}


def memory(place: Path, bundle: Path, few: int, many: int) -> dict[str, Any]:
    """Compare the memory that `infer` takes for few films and for many, of the three kinds in turn."""
    films = sorted((place / "memory").iterdir())
    peaks: dict[str, dict[str, float]] = {}
    for number in (few, many):
        folder = place / f"memory-{number}"
        folder.mkdir()
        for index in range(number):
            (folder / f"{index:05}.dcm").hardlink_to(films[index % len(films)])
        peaks[str(number)] = peak([*edgecxr(), "infer", str(folder), "--model", str(bundle), "--json"])
    a, b = peaks[str(few)], peaks[str(many)]
    ratios = {key: round(b[key] / a[key], 4) for key in a}
    checks = [judged("folder-memory", ratios["all_mib"], LIMITS["folder-memory"])]
    return {"name": f"edgecxr infer, {many} films", "against": f"{few} films", "mib": peaks, "ratio": ratios,
            "checks": checks}  # fmt: skip


def timed(command: list[str]) -> float:
    """Return how long a command takes; ends this program if it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment())
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:].decode(errors='replace')}")
    return time.perf_counter() - start


def peak(command: list[str]) -> dict[str, float]:
    """Return the largest proportional memory in MiB of a command's main process, and of all its processes."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    main = together = 0.0
    while child.poll() is None:
        shares = [_share(pid) for pid in [child.pid, *_below(child.pid)]]
        main, together = max(main, shares[0]), max(together, sum(shares))
        time.sleep(0.1)
    if child.returncode:
        sys.exit(f"{' '.join(command)} ended with {child.returncode}")
    return {"main_mib": round(main, 1), "all_mib": round(together, 1)}


def _share(pid: int) -> float:
    """Return a process's memory, of what it shares with others its part only."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _below(pid: int) -> list[int]:
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(below for child in children for below in _below(child))]


def make(folder: Path, side: int, films: int, memory_side: int, model: bool) -> None:
    """Make films and model; in a process of its own, so that this one stays small."""
    from startup import make_bundle

    from edgecxr.benchmark.synthetic_film import write_films

    for name in ("made", "films", "memory"):
        (folder / name).mkdir()
    originals = write_films(folder / "made", side, side)
    for index in range(films):
        (folder / "films" / f"{index:05}.dcm").hardlink_to(originals[index % len(originals)])
    write_films(folder / "memory", memory_side, memory_side)
    if model:
        make_bundle(folder / "bundle")


if __name__ == "__main__":
    sys.exit(main())
