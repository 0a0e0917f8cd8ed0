"""How fast INT8 files made for CPUs and for TensorRT are on this CPU, each with ONNX Runtime and OpenVINO.

    python benchmarks/int8_files.py --out benchmarks/results/cpu-2core/int8_files.json

Of the untrained Tiny student (28 px, 49 tokens), one image at a time on one thread: the file for CPUs (a joint product
of query, key and value, and a rest in FP32, as every INT8 file had before TensorRT got files of its own), the same with
a rest in FP16, and the file for TensorRT 10 (separate products, FP16 scales and rest). All files take turns, round
after round; a time is the smallest of its rounds. Ends with 6 if the file for CPUs takes more than 1.05 times as long
as another with the same engine.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cpu_latency import BACKENDS, RUNS, Worker, in_turns
from ratios import finish, judged, record, spread

from edgecxr.bundle.card import ModelCard
from edgecxr.export.lower_precision import calibrate, to_int8
from edgecxr.export.onnx import export_fp32
from edgecxr.models.vit import TwoHeadViT

LIMIT = 1.05
CPU = "for CPUs"
FILES = {
    CPU: ("modern", False, "fp32"),
    "joint product, FP16 rest": ("modern", False, "fp16"),
    "for TensorRT": ("recent", True, "fp16"),
}


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--rounds", type=int, default=21, help="turns of each file and engine")
    parser.add_argument("--depth", type=int, default=12, help="blocks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=LIMIT, help="largest ratio of the file for CPUs")
    args = parser.parse_args()
    engines = [name for name in BACKENDS if importlib.util.find_spec(name)]
    with tempfile.TemporaryDirectory(prefix="edgecxr-int8-") as folder:
        files = write_files(Path(folder), args.depth)
        results = [measured(engine, files, args) for engine in engines]
    settings = {key: value for key, value in vars(args).items() if key != "out"}
    return finish(record("int8_files", settings | {"runs": RUNS}, results), args.out)


def write_files(folder: Path, depth: int) -> dict[str, Path]:
    """Write each kind of file of one model."""
    torch.manual_seed(0)
    model = TwoHeadViT("tiny", 28, 4, labels=14, depth=depth).eval()
    labels = tuple(f"finding {number}" for number in range(14))
    card = ModelCard("student", labels, 28, 49, 4, "tiny", depth, "none")
    images = np.random.default_rng(0).random((50, 1, 28, 28), dtype=np.float32)
    files = {}
    for number, (name, (profile, split, rest)) in enumerate(FILES.items()):
        fp32 = folder / f"{number}-fp32.onnx"
        files[name] = folder / f"{number}-int8.onnx"
        export_fp32(model, card, fp32, profile, split_attention=split)
        to_int8(fp32, files[name], calibrate(fp32, images, "minmax"), rest)
    return files


def measured(engine: str, files: dict[str, Path], args: argparse.Namespace) -> dict[str, Any]:
    """Time every file with one engine, and hold the file for CPUs against the fastest of the others."""
    workers = {name: Worker("inference", engine, path, 28, args.threads) for name, path in files.items()}
    seconds = in_turns(workers, args.rounds)
    latency = {name: spread([1000 * value for value in values], 3) for name, values in seconds.items()}
    print(
        f"{engine}: " + ", ".join(f"{name} {v['min']} ms" for name, v in latency.items()), file=sys.stderr, flush=True
    )
    fastest = min(times["min"] for name, times in latency.items() if name != CPU)
    return {
        "name": engine,
        "latency_ms": latency,
        "over_the_file_for_cpus": {n: round(v["min"] / latency[CPU]["min"], 3) for n, v in latency.items()},
        "checks": [judged(f"{engine}, the file for CPUs", latency[CPU]["min"] / fastest, args.limit)],
    }


if __name__ == "__main__":
    sys.exit(main())
