"""Whole processes of `edgecxr`, each against the least that could do the same, in one run.

    python benchmarks/startup.py --out benchmarks/results/cpu-2core/startup.json

`edgecxr infer FILM` against bare.py, on three synthetic films (uncompressed, JPEG lossless, JPEG 2000) and an untrained
Tiny model at 28 px, or on --film and --model; `edgecxr --version` and `--help` against `python -c "import typer"`. The
two processes of a pair run in turn, after one of each that does not count; a ratio is the median of the pairs' ratios.
Wall time, CPU time and peak resident memory are the system's own account of the child (wait4). Ends with 6 if a limit
is exceeded, 1 if a process failed. Making the model needs torch (edgecxr[export]); with --model nothing does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ratios import finish, judged, record, spread

HERE = Path(__file__).resolve().parent
# Peak memory of a child is at least that of its parent: this process imports nothing large.
LIMITS = {"infer-wall": 1.3, "infer-memory": 1.25, "version-wall": 1.5, "help-wall": 2.5}
SIZE = (2500, 2048)
MODEL_FILE = "model.onnx"

Command = list[str]


@dataclass(frozen=True)
class Run:
    """One finished process: seconds, seconds, MiB."""

    wall: float
    cpu: float
    memory: float


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--runs", type=int, default=21, help="counted runs of each command")
    parser.add_argument("--film", type=Path, action="append", help="a DICOM file instead of the synthetic ones")
    parser.add_argument("--model", type=Path, help="a bundle instead of an untrained one")
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, metavar=("ROWS", "COLUMNS"), help="of made films")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=RATIO", help=f"one of {', '.join(LIMITS)}"
    )
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make(args.make, args.size, not args.film, not args.model)
        return 0
    limits = LIMITS | {name: float(value) for name, _, value in (text.partition("=") for text in args.limit)}
    if unknown := set(limits) - set(LIMITS):
        parser.error(f"--limit {', '.join(unknown)}: there are {', '.join(LIMITS)}")
    with tempfile.TemporaryDirectory(prefix="edgecxr-startup-") as folder:
        if not (args.film and args.model):
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--make", folder], check=True)
        films = [path.resolve() for path in args.film or sorted(Path(folder).glob("*.dcm"))]
        bundle = args.model.resolve() if args.model else Path(folder, "bundle")
        results = [infer(film, bundle, args.runs, limits) for film in films]
    typer = [sys.executable, "-c", "import typer"]
    for name in ("version", "help"):
        runs = in_turn(name, [*edgecxr(), f"--{name}"], typer, args.runs)
        results.append(
            {"name": f"edgecxr --{name}", "against": "python -c 'import typer'"} | compared(name, runs, limits)
        )
    settings = {"runs": args.runs, "made": not args.film, "size": list(args.size) if not args.film else None}
    return finish(record("startup", settings, results), args.out)


def infer(film: Path, bundle: Path, runs: int, limits: dict[str, float]) -> dict[str, Any]:
    """Hold `edgecxr infer` on one film against bare.py."""
    card = json.loads((bundle / "card.json").read_text())
    ours = [*edgecxr(), "infer", str(film), "--model", str(bundle)]
    theirs = [sys.executable, str(HERE / "bare.py"), str(bundle / MODEL_FILE), str(card["size"]), str(film)]
    answer = json.loads(output([*ours, "--json"]))["abnormal"]["probability"]
    bare = float(output(theirs).split()[-1])
    costs = compared("infer", in_turn(film.stem, ours, theirs, runs), limits)
    same = {"abnormal": answer, "abnormal_bare": bare}
    return (
        {"name": f"edgecxr infer, {film.stem}", "against": "bare.py", "file_bytes": film.stat().st_size} | same | costs
    )


def compared(name: str, runs: list[tuple[Run, Run]], limits: dict[str, float]) -> dict[str, Any]:
    """Return both commands' figures, their ratios, and the verdict on each limit that begins with `name`."""
    ratios: dict[str, dict[str, float]] = {}
    figures: dict[str, Any] = {"ratio": ratios}
    for side, which in (("ours", 0), ("theirs", 1)):
        figures[side] = {
            f"{quantity}_{unit}": spread([getattr(pair[which], quantity) for pair in runs])
            for quantity, unit in (("wall", "s"), ("cpu", "s"), ("memory", "mib"))
        }
    for quantity in ("wall", "cpu", "memory"):
        ratios[quantity] = spread([getattr(a, quantity) / getattr(b, quantity) for a, b in runs])
        best = [min(getattr(pair[which], quantity) for pair in runs) for which in (0, 1)]
        ratios[quantity]["of_minima"] = round(best[0] / best[1], 4)
    figures["checks"] = [
        judged(limit, ratios[limit.partition("-")[2]]["median"], value)
        for limit, value in limits.items()
        if limit.partition("-")[0] == name
    ]
    return figures


def in_turn(name: str, ours: Command, theirs: Command, runs: int) -> list[tuple[Run, Run]]:
    """Run two commands in turn, each first in every second round, after one round that does not count."""
    pairs = []
    for number in range(runs + 1):
        if number % 2:
            b, a = measured(theirs), measured(ours)
        else:
            a, b = measured(ours), measured(theirs)
        pairs.append((a, b))
    wall = statistics.median(a.wall / b.wall for a, b in pairs[1:])
    print(f"{name}: {wall:.2f} x wall time", file=sys.stderr, flush=True)
    return pairs[1:]


def measured(command: Command) -> Run:
    """Run a command and return what the system says of it; ends this program if it fails."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment())
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            output.seek(0)
            sys.exit(
                f"{' '.join(command)} ended with {child.returncode}: {output.read()[-500:].decode(errors='replace')}"
            )
    scale = 1 if sys.platform == "darwin" else 1024
    return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * scale / 2**20)


def environment() -> dict[str, str]:
    """Return what a measured process finds: no ban on writing bytecode, or ours would be compiled each time."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def output(command: Command) -> str:
    """Run a command and return what it prints; ends this program if it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def edgecxr() -> Command:
    """Return how this Python's edgecxr is started: the installed command, or the module where there is none."""
    script = shutil.which("edgecxr", path=str(Path(sys.executable).parent))
    return [script] if script else [sys.executable, "-m", "edgecxr"]


def make(folder: Path, size: tuple[int, int], films: bool, model: bool) -> None:
    """Make what is measured on; in a process of its own, for the sake of `LIMITS` of memory."""
    if films:
        from edgecxr.benchmark.synthetic_film import write_films

        write_films(folder, *size)
    if model:
        make_bundle(folder / "bundle")


def make_bundle(folder: Path) -> None:
    """Export an untrained Tiny student: 28 px, 49 tokens, 14 findings. Its answers mean nothing."""
    import numpy as np
    import torch

    from edgecxr.bundle.bundle import write_bundle
    from edgecxr.bundle.card import ModelCard
    from edgecxr.bundle.gate import FILE
    from edgecxr.engines.onnxruntime import OnnxRuntimeBackend
    from edgecxr.export.fit_gate import fit, written
    from edgecxr.export.onnx import export_fp32
    from edgecxr.models.vit import TwoHeadViT

    torch.manual_seed(0)
    labels = tuple(f"Finding {number}" for number in range(1, 15))
    artefacts = {MODEL_FILE: {"precision": "fp32"}}
    points = {"youden": {name: 0.5 for name in (*labels, "abnormal")}}
    card = ModelCard(
        "untrained", labels, 28, 49, 4, "tiny", 12, "none", operating_points=points, artefacts=artefacts
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, MODEL_FILE)
        export_fp32(TwoHeadViT("tiny", 28, 4, len(labels)).eval(), card, file)
        features = OnnxRuntimeBackend(file).run(np.random.default_rng(0).random((256, 1, 28, 28), np.float32)).features
        assert features is not None
        far = {"fp32": 1e6}  # it has learnt from nothing, so it lets all films by
        facts = written(fit(features), Path(scratch)) | {"thresholds": far, "usual": far, "rates": {}}
        card = replace(card, gate=facts)
        write_bundle(folder, card, {MODEL_FILE: file, FILE: Path(scratch, FILE)})


if __name__ == "__main__":
    sys.exit(main())
