"""How fast `edgecxr distill` trains, against the least and the usual that the same training takes on this device.

    python benchmarks/throughput.py --out benchmarks/results/h200/throughput.json
    python benchmarks/throughput.py --patch 32 --out benchmarks/results/cpu-2core/throughput.json

Four ratios, on films of noise (what is on them makes no difference to time) and a teacher of the student's size:

- time per image of `edgecxr distill` over that of a bare loop: the same student, teacher, losses, optimiser, precision
  and batch, on tensors that are on the device already; no data path, augmentation, progress, history or Fabric. This
  one has a limit, and the script ends with 6 if it is exceeded;
- the same over that of a plain loop around torch's DataLoader, whose workers read the same memory-mapped images and
  move and expose them with torchvision, over the same ranges;
- the share of the device's matrix peak: the operations of a step's products over the time of a step, over the most that
  a large product in the precision of the training reaches in this run;
- with --compile, which takes minutes, time per image with torch.compile over that without.

A figure is that of a whole epoch of --steps steps, after one that does not count. `edgecxr distill` runs as it is
typed, and its epoch is what history.csv says: from the first batch asked for to the last step done, without validation
and checkpoint. The loops take turns, round after round, and a ratio is the median of those of the rounds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from noise_films import films
from ratios import finish, judged, record, spread
from throughput_loops import Films, Loop, bare, distilled, operations, plain
from torch.utils.data import DataLoader

from edgecxr.data.prepared import Prepared
from edgecxr.errors import EdgeCxrError
from edgecxr.machine.cores import lacks_bfloat16
from edgecxr.train import run_training
from edgecxr.train.device import Device
from edgecxr.workspace import Workspace

LIMIT = 1.11
"""Nine tenths of the images per second of the bare loop."""

METHOD = "mlcak"
FILMS = 8
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRODUCTS = 5


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    args = options()
    try:
        return finish(measured(args), args.out)
    except EdgeCxrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def options(typed: list[str] | None = None) -> argparse.Namespace:
    """Parse what was typed, by default on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--arch", default="tiny", help="of student and teacher")
    parser.add_argument("--res", type=int, default=28, help="side of the student's images")
    parser.add_argument("--tokens", type=int, default=49, help="of the student")
    parser.add_argument("--patch", type=int, default=16, help="of the teacher, at 224 px; 32 is easier on a CPU")
    parser.add_argument("--depth", type=int, default=12, help="blocks of both")
    parser.add_argument("--batch", type=int, help="images per step; else 64 on a GPU, 16 on a CPU")
    parser.add_argument("--steps", type=int, help="steps of an epoch; else 100 on a GPU, 10 on a CPU")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each loop")
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1), help="of the DataLoader")
    parser.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile")
    parser.add_argument("--limit", type=float, default=LIMIT, help="largest time over that of the bare loop")
    return parser.parse_args(typed)


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Return the record."""
    device = Device.choose(args.device, args.precision)
    gpu = device.torch.type == "cuda"
    args.precision = device.precision
    args.batch, args.steps = args.batch or (64 if gpu else 16), args.steps or (100 if gpu else 10)
    with tempfile.TemporaryDirectory(prefix="edgecxr-throughput-") as folder:
        workspace = Workspace(Path(folder, "runs"))
        few = films(Path(folder, "films"), workspace, FILMS)
        common = {"arch": args.arch, "depth": args.depth, "precision": args.precision}
        settings = common | {"patch": args.patch, "init": "random", "batch": FILMS, "epochs": 1}
        teacher = run_training.train(workspace, few, settings, args.device)
        prepared = repeated(few, Path(folder), args.batch * args.steps)
        settings = common | {"res": args.res, "tokens": args.tokens, "batch": args.batch, "epochs": 2, "method": METHOD}
        loop = Loop(args, teacher, device)
        # The workers stay between epochs, and sleep while the others have their turns.
        workers = {"num_workers": args.workers, "persistent_workers": args.workers > 0, "pin_memory": gpu}
        loader: DataLoader[Any] = DataLoader(Films(prepared), args.batch, shuffle=True, **workers)
        shares: list[float] = []
        epochs: dict[str, Callable[[], float]] = {
            "distill": lambda: distilled(workspace, prepared, settings, args.device, shares),
            "bare": lambda: bare(loop, args),
            "dataloader": lambda: plain(loop, loader, args),
        }
        if args.compile:
            epochs["compiled"] = lambda: distilled(workspace, prepared, settings, args.device, [], compiled=True)
        seconds: dict[str, list[float]] = {name: [] for name in epochs}
        peaks = []
        for index in range(args.rounds):
            # Back and forth: what drifts, such as a clock that gets slower, is then nobody's advantage.
            for name in reversed(epochs) if index % 2 else epochs:
                seconds[name].append(epochs[name]())
            peaks.append(matrix_peak(device))
            line = ", ".join(f"{name} {args.batch * args.steps / times[-1]:.1f}" for name, times in seconds.items())
            print(f"round {index + 1}/{args.rounds}, images/s: {line}", file=sys.stderr, flush=True)
        flops = operations(loop, args)

    ours = seconds["distill"]
    share = [args.steps * flops / time_ / max(peaks) for time_ in ours]
    results = [
        compared("distill over bare loop", ours, seconds["bare"], args.limit),
        compared("distill over DataLoader loop", ours, seconds["dataloader"]),
        {"name": "share of matrix peak", "ratio": spread(share, 6), "checks": []},
    ]
    if args.compile:
        results.append(compared("compiled over eager", seconds["compiled"], ours))
    settings = {name: value for name, value in vars(args).items() if name != "out"} | {"method": METHOD}
    speeds = {name: [args.batch * args.steps / value for value in times] for name, times in seconds.items()}
    return record("throughput", settings, results) | {
        "device": {
            "type": device.torch.type,
            "gpu": torch.cuda.get_device_name(device.torch) if gpu else None,
            "precision": device.precision,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "threads": torch.get_num_threads(),
        },
        "images_per_s": {name: spread(values, 1) for name, values in speeds.items()},
        "data_share": spread(shares),
        "gflop_per_step": round(flops / 1e9, 3),
        "peak_tflops": spread([peak / 1e12 for peak in peaks]),
    }


def repeated(few: Prepared, folder: Path, count: int) -> Prepared:
    """Return a data set with `count` training films, the few over and over, in a file that is mapped as theirs is."""
    rows = np.concatenate([np.resize(few.rows("train"), count), few.rows("val")])
    np.save(folder / "images.npy", few.images[rows])
    return replace(
        few,
        path=folder,
        images=np.load(folder / "images.npy", mmap_mode="r"),
        **{name: getattr(few, name)[rows] for name in ("ids", "patients", "splits", "targets", "abnormal")},
    )


def matrix_peak(device: Device) -> float:
    """Return the operations per second of the fastest of a few products of large square matrices.

    Of float32 where a CPU lacks instructions for bfloat16, since training then uses those.
    """
    on_gpu = device.torch.type == "cuda"
    side = 8192 if on_gpu else 2048
    by_float32 = device.precision == "bf16" and not on_gpu and lacks_bfloat16()
    a = torch.randn(side, side, device=device.torch).to(torch.float32 if by_float32 else DTYPES[device.precision])
    seconds = []
    for _ in range(PRODUCTS):
        device.synchronize()
        start = time.perf_counter()
        a @ a
        device.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def compared(name: str, ours: list[float], theirs: list[float], limit: float | None = None) -> dict[str, Any]:
    """Return the ratio of times, round by round, judged by its median where there is a limit."""
    ratio = spread([one / other for one, other in zip(ours, theirs, strict=True)])
    return {"name": name, "ratio": ratio, "checks": [] if limit is None else [judged(name, ratio["median"], limit)]}


if __name__ == "__main__":
    sys.exit(main())
