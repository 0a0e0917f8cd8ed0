"""Everything that wants a GPU, in order of worth: for whoever gets one for half an hour.

    python benchmarks/gpu.py --data DIR --out DIR --minutes 30

DIR holds folders with a labels.csv and images, such as nih_dev and kermany_pneumonia. Each step runs in a process of
its own under a time limit and writes OUT/<step>.json at once; a step that has its record is skipped, and a training
that was cut off goes on from its last epoch. Needs torch, torchvision, timm, lightning-fabric, safetensors and
matplotlib, and no pydicom. It runs on a CPU too, slowly; the records say on what they were made.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a bare machine runs the checkout as it is

METHODS = ("none", "mlcak", "vanilla", "last-block", "one-to-one")
RESOLUTIONS = (28, 56, 112)
SMALLEST_LIMIT = 15  # seconds; with less left, no step is begun

Step = Callable[[argparse.Namespace], dict[str, Any]]


def steps(args: argparse.Namespace) -> Iterator[tuple[str, int, Step]]:
    """Yield (name, limit in seconds, what to do), the most valuable first."""
    yield "probe", 120, probe
    yield "smoke", 180, smoke
    yield "throughput", 300, throughput
    for name in args.names:
        yield f"{name}-teacher", 600, partial(teacher, name=name)
        yield f"{name}-teacher-engines", 300, partial(engines, name=name, step=f"{name}-teacher")
    for size in args.res:
        for seed in range(args.seeds):
            for name in args.names:
                for method in args.methods:
                    do = partial(student, name=name, method=method, size=size, seed=seed)
                    yield student_step(name, method, size, seed), 600, do
                if size == args.res[0] and seed == 0:
                    step = student_step(name, "mlcak", size, seed)
                    yield f"{step}-engines", 240, partial(engines, name=name, step=step)
                    yield f"{name}-benchmark", 300, partial(benchmark, name=name)
                    yield f"{name}-looks", 120, partial(looks, name=name)
                    yield f"{name}-choices", 600, partial(choices, name=name)


def student_step(name: str, method: str, size: int, seed: int) -> str:
    """Return the name of the step that trains a student."""
    return f"{name}-{size}-{method}-seed{seed}"


def main() -> None:
    """Run the steps that are not done yet, until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "gpu", help="prepared data and checkpoints")
    parser.add_argument("--minutes", type=float, default=30, help="time for everything")
    parser.add_argument("--names", nargs="+", default=["kermany_pneumonia", "nih_dev"], help="folders in --data")
    parser.add_argument("--epochs", type=int, default=30, help="of teachers and students")
    parser.add_argument("--seeds", type=int, default=3, help="students of each kind")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, help="none comes first")
    parser.add_argument("--res", nargs="+", type=int, default=RESOLUTIONS, choices=RESOLUTIONS, help="of students, px")
    parser.add_argument("--patch", type=int, default=16, help="of the teacher")
    parser.add_argument("--pretrained", type=Path, help="ImageNet weights for the teacher; random without")
    parser.add_argument("--rounds", type=int, default=30, help="timed runs of each engine and batch size")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        run_here(args)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + args.minutes * 60
    for name, limit, _ in steps(args):
        record = args.out / f"{name}.json"
        if record.exists() and json.loads(record.read_text())["status"] == "ok":
            print(f"{name}: done before", flush=True)
            continue
        left = deadline - time.monotonic()
        if left < SMALLEST_LIMIT:
            print(f"{name}: no time left", flush=True)
            break
        print(f"{name}: {run_child(name, min(limit, left), args.out)}", flush=True)


def run_child(name: str, limit: float, out: Path) -> str:
    """Run one step in a process of its own; a failure gets a record too. Returns what became of it."""
    started = time.monotonic()
    log = out / f"{name}.log"
    try:
        with log.open("w") as file:
            command = [sys.executable, __file__, *sys.argv[1:], "--step", name]
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=limit).returncode
        status = "ok" if code == 0 else f"failed with exit code {code}"
    except subprocess.TimeoutExpired:
        status = f"cut off after {limit:.0f} s"
    if status != "ok":
        tail = log.read_text(errors="replace").splitlines()[-20:]
        write(out / f"{name}.json", {"step": name, "status": status, "log": tail})
    return f"{status}, {time.monotonic() - started:.0f} s"


def run_here(args: argparse.Namespace) -> None:
    """Run the step that --step names and write its record."""
    actions = {name: do for name, _, do in steps(args)}[args.step]
    started = time.perf_counter()
    result = actions(args)
    record = {"step": args.step, "status": "ok", "machine": machine() | {"device": args.device}, "result": result}
    write(args.out / f"{args.step}.json", record | {"seconds": round(time.perf_counter() - started, 1)})


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a record under a temporary name first: a cut-off run leaves none that is half there."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    temporary.replace(path)


def machine() -> dict[str, Any]:
    """Say on what a record was made."""
    import torch

    gpu = torch.cuda.is_available()
    return {
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "capability": list(torch.cuda.get_device_capability()) if gpu else None,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def probe(args: argparse.Namespace) -> dict[str, Any]:
    """Which packages are there, whether the GPU multiplies, and what the driver says."""
    import torch

    versions: dict[str, str | None] = {}
    for name in ("torch", "timm", "onnx", "onnxruntime", "tensorrt", "tensorrt-rtx-cu13-bindings", "pycuda", "pydicom"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    result: dict[str, Any] = {"packages": versions}
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm", "--format=csv"]
        result["nvidia_smi"] = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired) as error:
        result["nvidia_smi"] = str(error)
    if torch.cuda.is_available():
        dtype = torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
        a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
        for _ in range(3):
            a @ a
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            a @ a
        torch.cuda.synchronize()
        result[f"{str(dtype).removeprefix('torch.')}_tflops"] = round(
            10 * 2 * 8192**3 / (time.perf_counter() - start) / 1e12, 1
        )
    return result


def smoke(args: argparse.Namespace) -> dict[str, Any]:
    """One epoch of teacher and student on the first data set: does training run here, and how fast?"""
    prepared, workspace = opened(args, args.names[0])
    first = trained(args, workspace, prepared, None, "teacher", 1, 0)
    return {"teacher": speed(first), "student": speed(trained(args, workspace, prepared, first, "mlcak", 1, 0))}


def throughput(args: argparse.Namespace) -> dict[str, Any]:
    """How fast `edgecxr distill` trains, against other loops and the matrix peak: what throughput.py records."""
    from throughput import measured, options

    flags = {"patch": args.patch, "device": args.device, "rounds": min(5, args.rounds)}
    flags["steps"] = min(100, 4 * args.epochs)  # as short as whatever else was asked for
    return measured(options([f"--{name}={value}" for name, value in flags.items()]))


def teacher(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Train the teacher of a data set and evaluate it on the test split."""
    prepared, workspace = opened(args, name)
    run = trained(args, workspace, prepared, None, "teacher", args.epochs, 0)
    return speed(run) | {"data": name, "run": run.name, "test": evaluated(workspace, run)}


def student(args: argparse.Namespace, name: str, method: str, size: int, seed: int) -> dict[str, Any]:
    """Train one student and evaluate it on the test split, paired with the undistilled one of its kind.

    The tables of what is there so far are written to OUT/tables-NAME.
    """
    first = run_of(args, f"{name}-teacher")
    prepared, workspace = opened(args, name)
    run = trained(args, workspace, prepared, first, method, args.epochs, seed, size)
    against = None if method == "none" else run_of(args, student_step(name, "none", size, seed)).name
    result = speed(run) | {"data": name, "run": run.name, "test": evaluated(workspace, run, against)}
    from gpu_grid import tabulate

    tabulate(args, name, prepared, workspace, first, students_there(args, name) | {(method, size, seed): run})
    return result


def students_there(args: argparse.Namespace, name: str) -> dict[tuple[str, int, int], Path]:
    """Return (method, px, seed) -> run of the students that have a record."""
    kinds = product(METHODS, RESOLUTIONS, range(args.seeds))
    records = {kind: args.out / f"{student_step(name, *kind)}.json" for kind in kinds}
    there = [kind for kind, path in records.items() if path.exists() and json.loads(path.read_text())["status"] == "ok"]
    return {kind: run_of(args, records[kind].stem) for kind in there}


def looks(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Draw where teacher and students look; where there are boxes, measure by the size of findings."""
    from gpu_grid import drawn

    prepared, workspace = opened(args, name)
    steps = [f"{name}-teacher", *(student_step(name, method, args.res[0], 0) for method in ("none", "mlcak"))]
    return drawn(prepared, workspace, [run_of(args, step).name for step in steps], args.out / f"explain-{name}.png")


def choices(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Measure each option of `edgecxr distill` against the default."""
    from choices import measured, options

    prepared, workspace = opened(args, name)
    teacher = run_of(args, f"{name}-teacher").name
    arguments = [f"--data={name}", f"--teacher={teacher}", f"--epochs={args.epochs}", f"--device={args.device}"]
    if args.rounds < 10:  # as short as whatever else was asked for
        arguments += ["--only", "depth 4"]
    return measured(options(arguments), workspace, prepared)


def engines(args: argparse.Namespace, name: str, step: str) -> dict[str, Any]:
    """Export what an earlier step trained, and build and compare its engines."""
    from gpu_engines import built

    run = run_of(args, step)
    prepared, workspace = opened(args, name)
    return {"data": name, "run": run.name} | built(run, prepared, workspace.export_dir(run.name))


def benchmark(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Measure teacher and students on every engine for GPUs, into OUT/benchmark-NAME/record.json."""
    from gpu_engines import benchmarked

    prepared, workspace = opened(args, name)
    steps = [f"{name}-teacher", *(student_step(name, method, args.res[0], 0) for method in ("none", "mlcak"))]
    runs = [run_of(args, step) for step in steps]
    record = args.out / f"benchmark-{name}" / "record.json"
    results = benchmarked(workspace, prepared, runs, record, quick=args.rounds < 10)
    return {"record": str(record.relative_to(args.out)), "rows": {row["id"]: row["status"] for row in results["rows"]}}


def opened(args: argparse.Namespace, name: str) -> tuple[Any, Any]:
    """Prepare a data set, or open it where that is done, in a workspace of its own."""
    from edgecxr.data.adapters.folder import folder
    from edgecxr.data.prepare.prepare import prepare
    from edgecxr.workspace import Workspace

    workspace = Workspace(args.work / name)
    boxes = args.data / name / "bbox_256.csv"  # of nih_dev
    source = folder(args.data / name, name=name, boxes=boxes if boxes.exists() else None)
    return prepare(source, workspace.data_dir(name)), workspace


def run_of(args: argparse.Namespace, step: str) -> Path:
    """Return the run that an earlier step left, by its record."""
    record = args.out / f"{step}.json"
    if not record.exists() or json.loads(record.read_text())["status"] != "ok":
        raise SystemExit(f"step {step} has not succeeded, and this one needs it")
    result = json.loads(record.read_text())["result"]
    return args.work / result["data"] / result["run"]


def trained(
    args: argparse.Namespace,
    workspace: Any,
    prepared: Any,
    teacher: Path | None,
    method: str,
    epochs: int,
    seed: int,
    size: int = RESOLUTIONS[0],
) -> Path:
    """Train a teacher, or a student of `teacher`; one that was cut off goes on."""
    from edgecxr.train import run_training

    settings = {"epochs": epochs, "batch": 64, "lr": 5e-4, "augment": 1.0, "seed": seed, "precision": "auto"}
    if teacher is None:
        init = "pretrained" if args.pretrained else "random"
        settings |= {"arch": "tiny", "patch": args.patch, "depth": 12, "init": init}
        settings["pretrained"] = str(args.pretrained) if args.pretrained else None
        return run_training.train(workspace, prepared, settings, args.device)
    settings |= {"res": size, "method": method, "init": "teacher"}
    return run_training.distill(workspace, prepared, settings, teacher.name, args.device)


def speed(run: Path) -> dict[str, Any]:
    """Return the settings of a run and its images per second, epoch by epoch."""
    from edgecxr.bundle.epoch_history import kept_epoch, read_history

    history = read_history(run)
    return {
        "settings": json.loads((run / "config.json").read_text()),
        "images_per_s": [row["images_per_s"] for row in history],
        "best_val_score": kept_epoch(history)["score"],
    }


def evaluated(workspace: Any, run: Path, against: str | None = None) -> dict[str, Any]:
    """Return the record of `edgecxr evaluate` on the test split."""
    from edgecxr.evaluate.evaluation import evaluate_model

    return evaluate_model(workspace, run.name, None, "test", 1000, against=against)[1]


if __name__ == "__main__":
    main()
