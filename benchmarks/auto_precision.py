"""Whether `--precision auto` is ever slower than FP32, with and without INT8 instructions.

    python benchmarks/auto_precision.py --out benchmarks/results/cpu-2core/auto_precision.json

For the bundle that comes with edgecxr, or others given with --model, and each engine, a process of its own chooses a
precision as `edgecxr infer --precision auto` does, and then runs the chosen model and the FP32 one in turns. OpenVINO
does so once more with no more than AVX2 (ONEDNN_MAX_CPU_ISA), as on a CPU without VNNI; ONNX Runtime
has no such switch. The whole is done several times, since a choice depends on a measurement. Ends with 6 if a chosen
model takes more than 1.03 times as long as FP32.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ratios import finish, judged, record

LIMIT = 1.03
WAYS = (("onnxruntime", ""), ("openvino", ""), ("openvino", "AVX2"))
SHIPPED = Path(__file__).parents[1] / "export" / "bundles" / "research-28"
ROUNDS = 400


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--model", type=Path, action="append", help="a bundle with FP32 and INT8; several times")
    parser.add_argument("--choices", type=int, default=5, help="how often a precision is chosen")
    parser.add_argument("--threads", type=int, default=1, help="of the engine")
    parser.add_argument("--alone", nargs=2, metavar=("BUNDLE", "ENGINE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(measured(Path(args.alone[0]), args.alone[1], args.threads)))
        return 0
    rows = []
    for model in args.model or [SHIPPED]:
        for engine, instructions in WAYS:
            results = [in_a_process(model, engine, instructions, args.threads) for _ in range(args.choices)]
            worst = max(results, key=lambda each: each["ratio"])
            name = f"{model.name}, {engine}{f', no more than {instructions}' if instructions else ''}"
            rows.append({
                "name": name,
                "chosen": [each["chosen"] for each in results],
                "ms": worst["ms"],
                "ratio": worst["ratio"],
                "int8_over_fp32": round(statistics.median(each["int8_over_fp32"] for each in results), 4),
                "checks": [judged("auto-fp32", worst["ratio"], LIMIT)],
            })  # fmt: skip
    return finish(record("auto_precision", {"choices": args.choices, "threads": args.threads}, rows), args.out)


def in_a_process(model: Path, engine: str, instructions: str, threads: int) -> dict[str, Any]:
    """Return what `measured` does in a process that keeps nothing and is kept to some instructions."""
    with tempfile.TemporaryDirectory() as state:
        environment = os.environ | {"EDGECXR_STATE": state}
        if instructions:
            environment["ONEDNN_MAX_CPU_ISA"] = instructions
        command = [sys.executable, __file__, "--alone", str(model), engine, "--threads", str(threads)]
        ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(ended.stdout.splitlines()[-1])


def measured(model: Path, engine: str, threads: int) -> dict[str, Any]:
    """Return the chosen precision, and the smallest times of an image by both models and the chosen one."""
    from edgecxr.bundle.bundle import Bundle
    from edgecxr.engines.backend import open_backend
    from edgecxr.engines.fastest_precision import CHOICES, fastest_precision

    bundle = Bundle.open(model)
    chosen = fastest_precision(bundle, engine, threads)
    models = {name: open_backend(engine, bundle.model(name), threads=threads) for name in CHOICES}
    image = np.random.default_rng(0).random((1, 1, bundle.card.size, bundle.card.size), np.float32)
    seconds: dict[str, list[float]] = {name: [] for name in CHOICES}
    for _ in range(ROUNDS):
        for name in CHOICES:
            start = time.perf_counter()
            models[name].run(image)
            seconds[name].append(time.perf_counter() - start)
    ms = {name: round(1000 * min(values), 4) for name, values in seconds.items()}
    return {
        "chosen": chosen,
        "ms": ms,
        "ratio": round(ms[chosen] / ms["fp32"], 4),
        "int8_over_fp32": round(ms["int8"] / ms["fp32"], 4),
    }


if __name__ == "__main__":
    sys.exit(main())
