"""What each choice of `edgecxr distill` is worth: one student for each, AUROC against the default's, latency beside it.

    python benchmarks/choices.py --data kermany --res 28 --epochs 3 --batch 64
    python benchmarks/choices.py --data vindr --seeds 3 --teacher teacher-tiny-224 --also teacher-tiny-448

Every student differs from the default (MLCAK, 49 tokens, started from the teacher, alpha = beta = gamma = 1, full
augmentation, all blocks) in one thing. AUROCs are those of the validation split, since the defaults are chosen by them,
paired with the default's on the same films; the latency is that of the FP32 ONNX file by ONNX Runtime on one thread of
this CPU, batch 1, in turns. What is trained already is taken as it is. Writes OUT/choices.json and .md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gap import Sample, over_seeds
from paper import TASKS
from ratios import machine

from edgecxr import NOTICE, metrics, resolve
from edgecxr.bundle.card import read_card
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Backend, open_backend
from edgecxr.errors import EdgeCxrError
from edgecxr.evaluate.comparison import aurocs
from edgecxr.evaluate.evaluation import answer
from edgecxr.export.export_bundle import export_bundle
from edgecxr.export.recipe import Recipe
from edgecxr.metrics import with_interval
from edgecxr.storage.atomic import atomic_write
from edgecxr.terminal import progress, say
from edgecxr.train import run_training
from edgecxr.train.config import patch_of
from edgecxr.workspace import Workspace

DEFAULT = "default"
VARIANTS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "method none": {"method": "none"},
    "alpha 0.3, beta 0.3": {"alpha": 0.3, "beta": 0.3},
    "alpha 3, beta 3": {"alpha": 3.0, "beta": 3.0},
    "gamma 0": {"gamma": 0.0},
    "gamma 0.1": {"gamma": 0.1},
    "gamma 10": {"gamma": 10.0},
    "augment 0": {"augment": 0.0},
    "augment 0.5": {"augment": 0.5},
    "augment 2": {"augment": 2.0},
    "init random": {"init": "random"},
    "tokens 196": {"tokens": 196},
    "tokens 16": {"tokens": 16},
    "depth 6": {"depth": 6},
    "depth 4": {"depth": 4},
    "tokens 16, depth 6": {"tokens": 16, "depth": 6},
}
ROUNDS, WARM, RUNS = 15, 3, 5


def main() -> int:
    """Train what is missing, measure, write and print; return the exit code."""
    try:
        print(run(options()))
    except EdgeCxrError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="prepared data set; the latest by default")
    parser.add_argument("--res", type=int, default=28)
    parser.add_argument("--teacher", help="run; the latest that fits by default")
    parser.add_argument("--also", nargs="*", default=[], metavar="TEACHER", help="more teachers, such as a 448 px one")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, help="some of the choices; the default always runs")
    parser.add_argument("--pretrained", type=Path, help="ImageNet weights: also measures --init pretrained")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="folder; by default choices-DATA in the workspace")
    args = parser.parse_args(arguments)
    if args.also and not args.teacher:
        parser.error("--also compares with a teacher that is named: add --teacher RUN")
    return args


def run(args: argparse.Namespace) -> str:
    """Measure every choice, write the record and the table, and return the table as markdown."""
    workspace = Workspace.default()
    prepared = resolve.dataset(workspace, args.data)
    record = measured(args, workspace, prepared)
    out = args.out or workspace.root / f"choices-{prepared.name}"
    atomic_write(out / "choices.json", json.dumps(record, indent=1) + "\n")
    text = markdown(prepared, args, record["rows"])
    atomic_write(out / "choices.md", text + "\n")
    return text


def measured(args: argparse.Namespace, workspace: Workspace, prepared: Prepared) -> dict[str, Any]:
    """Train what is missing and return the record."""
    variants = {name: VARIANTS[name] for name in VARIANTS if not args.only or name in (DEFAULT, *args.only)}
    if args.pretrained:
        variants["init pretrained"] = {"init": "pretrained", "pretrained": str(args.pretrained)}
    variants |= {f"teacher {name}": {"teacher": name} for name in args.also}
    weights = metrics.patient_weights(prepared.patients[prepared.rows("val")], args.replicates)
    runs: dict[str, list[Path]] = {}
    rows: dict[str, dict[str, Any]] = {}
    scores: dict[str, dict[str, Sample]] = {}
    for name, changes in variants.items():
        runs[name] = [student(args, workspace, prepared, changes, seed) for seed in range(args.seeds)]
        scores[name] = scored(workspace, prepared, runs[name], weights, len(scores))
        rows[name] = compared(scores[name], scores[DEFAULT]) | {"run": runs[name][0].name}
        say(f"{name}: {cell(rows[name], 'findings')}, {cell(rows[name], 'abnormal')}")
    for name, latency in latencies(prepared, {name: each[0] for name, each in runs.items()}).items():
        rows[name] |= latency
    settings = {key: value for key, value in vars(args).items() if key not in ("out", "pretrained")}
    return {
        "benchmark": "choices",
        "machine": machine(),
        "data": prepared.summary(),
        "settings": settings,
        "rows": rows,
        "notice": NOTICE,
    }


def student(
    args: argparse.Namespace, workspace: Workspace, prepared: Prepared, changes: dict[str, Any], seed: int
) -> Path:
    """Return the student of one choice, trained if need be."""
    teacher = resolve.teacher(workspace, changes.get("teacher", args.teacher), prepared)
    card = read_card(teacher)
    settings = {
        "method": "mlcak", "init": "teacher", "augment": 1.0, "depth": card.depth, "seed": seed, "epochs": args.epochs,
        "batch": args.batch, "lr": args.lr, "precision": args.precision,
    } | changes  # fmt: skip
    settings.pop("teacher", None)
    tokens = settings.pop("tokens", 49)
    weights = {} if settings["method"] == "none" else {"alpha": 1.0, "beta": 1.0, "gamma": 1.0}
    run_settings = weights | settings | {
        "stem": card.stem, "size": args.res, "patch": patch_of(args.res, tokens), "teacher_sha256": card.sha256,
    }  # fmt: skip
    typed = settings | {"res": args.res, "tokens": tokens}
    make = partial(run_training.distill, workspace, prepared, typed, teacher.name, args.device)
    return run_training.once(workspace, prepared, run_settings, make)


def scored(
    workspace: Workspace, prepared: Prepared, runs: list[Path], weights: metrics.Array, number: int
) -> dict[str, Sample]:
    """Return the mean AUROC over the seeds, of both tasks, on the validation split; `number` is the choice's."""
    by_task: dict[str, list[Sample]] = {task: [] for task in TASKS}
    for folder in runs:
        outputs = answer(workspace, folder.name, prepared.name, "val").outputs
        for task, areas in aurocs(prepared, "val", outputs.logits, weights).items():
            by_task[task].append(Sample(areas.macro.value, areas.macro_replicates))
    return {task: over_seeds(samples, seed=number) for task, samples in by_task.items()}


def compared(ours: dict[str, Sample], default: dict[str, Sample]) -> dict[str, Any]:
    """Return AUROC and paired difference to the default of both tasks."""
    row = {}
    for task in TASKS:
        difference = metrics.interval(
            ours[task].value - default[task].value, ours[task].replicates - default[task].replicates
        )
        row[task] = {
            "auroc": ours[task].value, "difference": difference.value, "low": difference.low, "high": difference.high,
        }  # fmt: skip
    return row


def latencies(prepared: Prepared, runs: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Time one image by every student's FP32 file on one thread, round by round, and count its megabytes."""
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="edgecxr-choices-") as folder, progress("latency") as update:
        backends: dict[str, tuple[Backend, Any]] = {}
        for number, (name, run) in enumerate(runs.items()):
            bundle = export_bundle(run, prepared, Path(folder, str(number)), Recipe(precisions=("fp32",)))
            path = bundle.artefact("fp32")
            images = prepared.inputs(np.arange(1), bundle.card.size)
            backends[name] = (open_backend("onnxruntime", path, threads=1), images)
            figures[name] = {"megabytes": round(path.stat().st_size / 1e6, 2)}
        times: dict[str, list[float]] = {name: [] for name in backends}
        for turn in range(ROUNDS):
            update(turn + 1, ROUNDS)
            for name, (backend, images) in backends.items():
                for once in range(WARM + RUNS):
                    start = time.perf_counter()
                    backend.run(images)
                    if once >= WARM:
                        times[name].append(1000 * (time.perf_counter() - start))
    for name, values in times.items():
        # The smallest beside the median: the machine may be shared.
        figures[name] |= {"ms_min": round(min(values), 3), "ms_median": round(statistics.median(values), 3)}
    for name in figures:
        figures[name]["time_ratio"] = round(figures[name]["ms_min"] / figures[DEFAULT]["ms_min"], 3)
    return figures


def cell(row: dict[str, Any], task: str) -> str:
    """Return AUROC and difference as text."""
    figures = row[task]
    return f"{figures['auroc']:.3f}, {with_interval(figures['difference'], figures['low'], figures['high'], '+.3f')}"


def markdown(prepared: Prepared, args: argparse.Namespace, rows: dict[str, dict[str, Any]]) -> str:
    """Return the table."""
    made_up = " (synthetic phantom films)" if prepared.phantom else ""
    val = len(prepared.rows("val"))
    lines = [
        f"{prepared.name}{made_up}, {args.res} px, {args.epochs} epochs, {args.seeds} seed(s), {val} validation films: "
        "AUROC, and its paired difference to the default with 95 % interval; ONNX Runtime, FP32, one thread, batch 1.",
        "",
        "| choice | findings (macro) | normal/abnormal | ms | of the default's time | MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        cells = [cell(row, task) if name != DEFAULT else f"{row[task]['auroc']:.3f}" for task in TASKS]
        size = f"{row['ms_min']:.2f} | {row['time_ratio']:.2f} | {row['megabytes']:.1f}"
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {size} |")
    return "\n".join([*lines, "", NOTICE])


if __name__ == "__main__":
    sys.exit(main())
