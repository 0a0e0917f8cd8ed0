"""How long one image takes on this CPU, by engine and precision, against what the arithmetic alone would take.

    python benchmarks/cpu_latency.py --out benchmarks/results/cpu-2core/cpu_latency.json

An untrained Tiny student (28 px, 49 tokens) and the Tiny teacher (224 px), or bundles given with --model, by ONNX
Runtime and OpenVINO, at FP32 and INT8, on one thread and on all cores. The floor is the operations of the model's
products (flops.py) over the fastest that numpy multiplied large float32 matrices in this run, with as many threads.
Every candidate, and numpy, is a process of its own that sleeps while the others have their turns, round after round. A
candidate's ratio is its time over the floor; the smallest is judged, of the engine that is best at FP32: smallest time
and fastest product are both what the machine does while nobody else wants it. Ends with 6 if a limit is exceeded.
Making the models needs torch (edgecxr[export]); with --model nothing does.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from flops import count
from ratios import finish, judged, record, spread

LIMIT = 1.6
BACKENDS = ("onnxruntime", "openvino")
PRECISIONS = ("fp32", "int8")
MODELS = (("student", 28, 4), ("teacher", 224, 16))
WARM, RUNS = 3, 7
SIDE = 1152


class Worker:
    """A process that measures one thing when it is its turn.

    Args:
        kind: a key of `KINDS`; the function there returns what is to be timed.
        arguments: what that function is given.
    """

    def __init__(self, kind: str, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, kind, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def turn(self, warm: int, runs: int) -> list[float]:
        """Return the seconds of `runs` runs, after `warm` ones that wake its threads; ends this program on an error."""
        try:
            self._pipe.send((warm, runs))
            answer = self._pipe.recv()
        except (EOFError, OSError):
            sys.exit("a process that measures has died")
        if isinstance(answer, str):
            sys.exit(answer)
        return answer

    def end(self) -> None:
        """Let the process end."""
        self._pipe.close()
        self._process.join()


def in_turns(workers: dict[str, Worker], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each worker's runs, taken in turns, and end the workers."""
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for number in range(rounds + 1):
        for name, worker in workers.items():
            turn = worker.turn(WARM, RUNS)
            if number:  # the first round wakes everything
                seconds[name] += turn
    for worker in workers.values():
        worker.end()
    return seconds


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--rounds", type=int, default=21, help="turns of each candidate")
    parser.add_argument("--threads", type=int, action="append", help="of every candidate; else 1, and all cores")
    parser.add_argument("--model", type=Path, action="append", help="a bundle instead of the untrained ones")
    parser.add_argument("--limit", type=float, default=LIMIT, help="largest ratio of the best engine at FP32")
    parser.add_argument("--depth", type=int, default=12, help="blocks of the untrained models")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make(args.make, args.depth)
        return 0
    engines = [name for name in BACKENDS if importlib.util.find_spec(name)]
    threads = args.threads or sorted({1, cores()})
    with tempfile.TemporaryDirectory(prefix="edgecxr-latency-") as folder:
        if not args.model:
            subprocess.run([sys.executable, __file__, "--make", folder, "--depth", str(args.depth)], check=True)
        bundles = [path.resolve() for path in args.model or [Path(folder, kind) for kind, _, _ in MODELS]]
        results = [
            measured(bundle, number, engines, args.rounds, args.limit) for bundle in bundles for number in threads
        ]
    settings = {"threads": threads, "rounds": args.rounds, "runs": RUNS, "made": not args.model}
    settings |= {} if args.model else {"depth": args.depth}
    return finish(record("cpu_latency", settings | {"absent": sorted({*BACKENDS} - {*engines})}, results), args.out)


def measured(bundle: Path, threads: int, engines: list[str], rounds: int, limit: float) -> dict[str, Any]:
    """Time one bundle's models with every engine, in turn with numpy's product, and hold them against the floor."""
    card = json.loads((bundle / "card.json").read_text())
    files = {entry["precision"]: bundle / name for name, entry in card["artefacts"].items()}
    operations = count(files["fp32"])
    flops = sum(operations.values())
    workers = {
        f"{precision} {engine}": Worker("inference", engine, files[precision], card["size"], threads)
        for precision in PRECISIONS
        if precision in files
        for engine in engines
    } | {"sgemm": Worker("product", SIDE, threads)}
    seconds = in_turns(workers, rounds)

    rates = [2 * SIDE**3 / value for value in seconds.pop("sgemm")]
    floor = flops / max(rates)
    candidates = {
        name: {
            "latency_ms": spread([1000 * value for value in values], 3),
            "ratio": spread([value / floor for value in values]),
        }
        for name, values in seconds.items()
    }
    name = f"{card['name']}, {threads} thread{'s' if threads > 1 else ''}"
    for candidate, figures in candidates.items():
        summary = f"{figures['latency_ms']['min']:.2f} ms, {figures['ratio']['min']:.2f} x the floor"
        print(f"{name}, {candidate}: {summary}", file=sys.stderr, flush=True)
    ratios = {name: figures["ratio"]["min"] for name, figures in candidates.items()}
    best = min((name for name in ratios if name.startswith("fp32")), key=ratios.__getitem__)
    return {
        "name": name,
        "size": card["size"],
        "tokens": card["tokens"],
        "threads": threads,
        "mflop": {kind: round(value / 1e6, 3) for kind, value in operations.items()},
        "sgemm_gflops": spread([rate / 1e9 for rate in rates], 1),
        "floor_ms": round(1000 * floor, 3),
        "candidates": candidates,
        "checks": [judged(f"{name}, {best}", ratios[best], limit)],
    }


def inference(engine: str, file: Path, size: int, threads: int) -> Callable[[], object]:
    """Return a call that runs one image through a model file."""
    import numpy as np

    from edgecxr.engines.backend import open_backend

    backend = open_backend(engine, file, threads=threads)
    image = np.random.default_rng(0).random((1, 1, size, size), np.float32)
    return lambda: backend.run(image)


def product(side: int, threads: int) -> Callable[[], object]:
    """Return a call that multiplies two matrices of side x side."""
    # numpy's libraries read these when they are loaded, which nobody has done in this process yet.
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "BLIS_NUM_THREADS"):
        os.environ[name] = str(threads)
    import numpy as np

    a, b = np.random.default_rng(0).random((2, side, side), np.float32)
    out = np.empty_like(a)
    return lambda: np.matmul(a, b, out=out)


KINDS: dict[str, Callable[..., Callable[[], object]]] = {"inference": inference, "product": product}


def _serve(pipe: Connection, kind: str, arguments: tuple[Any, ...]) -> None:
    """Answer each (warm, runs) with a list of seconds until the pipe is closed, an error with a sentence."""
    call: Callable[[], object] | None = None
    while True:
        try:
            warm, runs = pipe.recv()
        except EOFError:
            return
        try:
            call = call or KINDS[kind](*arguments)
            seconds = []
            for _ in range(warm + runs):
                start = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - start)
            pipe.send(seconds[warm:])
        except Exception as error:
            pipe.send(f"{kind} of {arguments} failed: {error}")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make(folder: Path, depth: int) -> None:
    """Write bundles of an untrained Tiny student and teacher, each with an INT8 model. Their answers mean nothing."""
    import numpy as np
    import torch

    from edgecxr.bundle.bundle import write_bundle
    from edgecxr.bundle.card import ModelCard
    from edgecxr.export.lower_precision import calibrate, to_int8
    from edgecxr.export.onnx import export_fp32
    from edgecxr.models.vit import TwoHeadViT

    torch.manual_seed(0)
    labels = tuple(f"Finding {number}" for number in range(1, 15))
    names = {precision: f"model.{precision}.onnx" for precision in PRECISIONS}
    artefacts = {name: {"precision": precision} for precision, name in names.items()}
    for kind, size, patch in MODELS:
        card = ModelCard(
            f"untrained-{kind}-{size}", labels, size, (size // patch) ** 2, patch, "tiny", depth, "none",
            artefacts=artefacts,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as scratch:
            files = {name: Path(scratch, name) for name in names.values()}
            fp32, int8 = files[names["fp32"]], files[names["int8"]]
            export_fp32(TwoHeadViT("tiny", size, patch, len(labels), depth).eval(), card, fp32)
            noise = np.random.default_rng(0).random((32, 1, size, size), np.float32)
            to_int8(fp32, int8, calibrate(fp32, noise, "minmax"))
            write_bundle(folder / kind, card, files)


if __name__ == "__main__":
    sys.exit(main())
