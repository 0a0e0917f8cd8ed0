"""`edgecxr prepare` on DICOM films with one process and with two, against a plain loop; and its memory for many films.

    python benchmarks/decode.py --out benchmarks/results/cpu-2core/decode.json

A folder of synthetic DICOM films of 14 bits (a third each uncompressed, JPEG lossless and JPEG 2000; the same three
films again and again under other names), prepared by `edgecxr prepare folder` with --workers 1 and 2, in turn with
bare_prepare.py. Then the largest memory of all processes of `prepare` with two workers, for --few and for ten times as
many smaller films, sampled ten times a second. Ends with 6 if a limit is exceeded.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from folder import peak
from ratios import finish, judged, record, spread
from startup import HERE, edgecxr

# At least as fast as the bare loop; two processes 1.8 times as fast as one; ten times the films in 1.2 the memory.
LIMITS = {"one": 1.0, "two": 1 / 1.8, "memory": 1.2}
SIDE, SMALL = 2500, 512


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--films", type=int, default=200, help="in the folder that is timed")
    parser.add_argument("--side", type=int, default=SIDE, help="of its films, in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each program")
    parser.add_argument("--few", type=int, default=200, help="smaller films, for the memory")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgecxr-decode-") as scratch:
        place = Path(scratch)
        films = make(place / "films", args.films, args.side)
        results = [speed(place, films, args.films, args.rounds), memory(place, args.few)]
    return finish(
        record("decode", {key: getattr(args, key) for key in ("films", "side", "rounds", "few")}, results), args.out
    )


def make(folder: Path, count: int, side: int) -> Path:
    """Write films of three transfer syntaxes under so many names, and a table of labels; in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from edgecxr.benchmark.synthetic_film import write_films\n"
        "folder, side = Path(sys.argv[1]), int(sys.argv[2]); folder.mkdir(); write_films(folder, side, side)"
    )
    originals = folder.with_name(f"{folder.name}-made")
    subprocess.run([sys.executable, "-c", code, str(originals), str(side)], check=True)
    kinds = sorted(originals.iterdir())
    folder.mkdir()
    lines = ["image,split,Opacity"]
    for index in range(count):
        name = f"{index:05}.dcm"
        (folder / name).hardlink_to(kinds[index % len(kinds)])
        lines.append(f"{name},{('train', 'train', 'val', 'test')[index % 4]},{index // 4 % 2}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def prepare(films: Path, workers: int) -> list[str]:
    """Return the command that prepares a folder."""
    return [*edgecxr(), "prepare", "folder", str(films), "--workers", str(workers), "--name", "films"]


def speed(place: Path, films: Path, count: int, rounds: int) -> dict[str, Any]:
    """Time `edgecxr prepare` with one and two processes, and bare_prepare.py, in turn."""
    bare = [sys.executable, str(HERE / "bare_prepare.py"), str(films), str(place / "bare.npy")]
    commands = {"one": prepare(films, 1), "two": prepare(films, 2), "bare": bare}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds):
        for name in sorted(commands, reverse=bool(number % 2)):
            seconds[name].append(timed(commands[name], place / "runs"))
    speeds = {name: {"films_per_s": spread([count / value for value in values])} for name, values in seconds.items()}
    ratios = {
        "one": [a / b for a, b in zip(seconds["one"], seconds["bare"], strict=True)],
        "two": [a / b for a, b in zip(seconds["two"], seconds["one"], strict=True)],
    }
    checks = [judged(f"decode-{name}", statistics.median(values), LIMITS[name]) for name, values in ratios.items()]
    return {
        "name": f"edgecxr prepare, {count} films", "against": "bare_prepare.py; two processes against one", **speeds,
        "ratio": {name: spread(values) for name, values in ratios.items()}, "checks": checks,
    }  # fmt: skip


def timed(command: list[str], runs: Path) -> float:
    """Return how long a command takes, from nothing prepared; ends this program if it fails."""
    shutil.rmtree(runs, ignore_errors=True)
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, env=os.environ | {"EDGECXR_RUNS": str(runs)})
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:].decode(errors='replace')}")
    return time.perf_counter() - start


def memory(place: Path, few: int) -> dict[str, Any]:
    """Compare the memory of `prepare` for few films and for ten times as many."""
    os.environ["EDGECXR_RUNS"] = str(place / "memory")
    peaks = {}
    for count in (few, 10 * few):
        shutil.rmtree(place / "memory", ignore_errors=True)
        peaks[str(count)] = peak(prepare(make(place / f"films-{count}", count, SMALL), 2))
    a, b = peaks[str(few)], peaks[str(10 * few)]
    ratios = {key: round(b[key] / a[key], 4) for key in a}
    return {
        "name": f"edgecxr prepare, {10 * few} films", "against": f"{few} films", "mib": peaks, "ratio": ratios,
        "checks": [judged("decode-memory", ratios["all_mib"], LIMITS["memory"])],
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
