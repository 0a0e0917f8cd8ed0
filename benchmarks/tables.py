"""The paper's Tables 1 and 2 from your own data, beside the paper's numbers, and the share of the gap that is closed.

    python benchmarks/tables.py --data vindr --models tiny small base --seeds 3
    python benchmarks/tables.py --data kermany --res 28 --epochs 4 --patch 32 --init teacher --teacher-init random

Trains one teacher for each model, and students by {none, vanilla, last-block, one-to-one, mlcak} at 112, 56 and 28 px
with each seed; what is trained already, by this program or by `edgecxr distill`, is taken as it is, and a training that
was cut off goes on. Whatever is there so far is written after every student: OUT/tables.md, .csv, .json and .png.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gap import Sample
from paper import METHODS, RESOLUTIONS, TASKS
from tables_text import Grid, write

from edgecxr import resolve
from edgecxr.bundle.card import read_card
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Outputs
from edgecxr.errors import EdgeCxrError
from edgecxr.evaluate.comparison import aurocs
from edgecxr.evaluate.evaluation import answer
from edgecxr.metrics import patient_weights
from edgecxr.storage.atomic import atomic_write
from edgecxr.terminal import say
from edgecxr.train import run_training
from edgecxr.train.config import patch_of
from edgecxr.workspace import Workspace


@dataclass(frozen=True)
class Cell:
    """One student of the grid."""

    arch: str
    method: str
    size: int
    seed: int


def main() -> int:
    """Run what is missing of the grid, write the tables and print them; return the exit code."""
    args = parse()
    try:
        print(run(args))
    except EdgeCxrError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="prepared data set; the latest by default")
    parser.add_argument("--models", nargs="+", default=["tiny"], choices=("tiny", "small", "base"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--res", nargs="+", type=int, default=list(RESOLUTIONS), choices=RESOLUTIONS)
    parser.add_argument("--seeds", type=int, default=1, help="students of each kind")
    parser.add_argument("--tokens", type=int, default=49, choices=(196, 49, 16), help="the paper: 196")
    parser.add_argument("--init", default="pretrained", choices=("pretrained", "teacher", "random"), help="of students")
    parser.add_argument("--teacher-init", default="pretrained", choices=("pretrained", "random"))
    parser.add_argument("--patch", type=int, default=16, help="of the teacher")
    parser.add_argument("--depth", type=int, default=12, help="blocks of teachers and students")
    parser.add_argument("--pretrained", type=Path, help="ImageNet weights, for one model")
    parser.add_argument("--epochs", type=int, default=100, help="of students")
    parser.add_argument("--teacher-epochs", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--augment", type=float, default=1.0)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--replicates", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--report", action="store_true", help="train nothing: write what there is")
    parser.add_argument("--out", type=Path, help="folder of the tables; by default tables-DATA in the workspace")
    args = parser.parse_args(arguments)
    if len(args.models) > 1 and args.pretrained:
        parser.error("--pretrained holds the weights of one model: name one with --models")
    return args


def run(args: argparse.Namespace, workspace: Workspace | None = None) -> str:
    """Run the grid and return the tables as markdown."""
    workspace = workspace or Workspace.default()
    prepared = resolve.dataset(workspace, args.data)
    out = args.out or workspace.root / f"tables-{prepared.name}"
    facts = {key: value for key, value in vars(args).items() if key not in ("out", "report")}
    grid = Grid(prepared, facts | {"data": prepared.name, "pretrained": args.pretrained and args.pretrained.name})
    scores = Scores(workspace, prepared, args.replicates)
    for arch in args.models:
        teacher = _teacher(args, workspace, prepared, arch)
        if teacher is None:
            continue
        grid.teachers[arch] = scores.of(teacher)
        for cell in cells(args, arch):
            student = _student(args, workspace, prepared, cell, teacher)
            if student is not None:
                grid.students.setdefault((cell.arch, cell.method, cell.size), {})[cell.seed] = scores.of(student)
                write(grid, out)
    if not grid.students:
        raise EdgeCxrError("there is no student to report yet: leave out --report")
    return write(grid, out)


def cells(args: argparse.Namespace, arch: str) -> Iterator[Cell]:
    """Yield the students of a model, those of one seed first, the lowest resolution first."""
    for seed in range(args.seeds):
        for size in sorted(args.res):
            for method in args.methods:
                yield Cell(arch, method, size, seed)


def _teacher(args: argparse.Namespace, workspace: Workspace, prepared: Prepared, arch: str) -> Path | None:
    settings = _common(args) | {
        "arch": arch, "patch": args.patch, "depth": args.depth, "init": args.teacher_init, "seed": 0,
        "epochs": args.teacher_epochs,
    }  # fmt: skip
    if args.pretrained and args.teacher_init == "pretrained":
        settings["pretrained"] = str(args.pretrained)
    make = partial(run_training.train, workspace, prepared, settings, args.device)
    return _run_of(args, workspace, prepared, settings | {"method": "teacher"}, make)


def _student(
    args: argparse.Namespace, workspace: Workspace, prepared: Prepared, cell: Cell, teacher: Path
) -> Path | None:
    settings = _common(args) | {
        "arch": cell.arch, "method": cell.method, "init": args.init, "seed": cell.seed, "epochs": args.epochs,
    }  # fmt: skip
    if args.pretrained and args.init == "pretrained":
        settings["pretrained"] = str(args.pretrained)
    typed = settings | {"res": cell.size, "tokens": args.tokens}
    model_settings = {"size": cell.size, "patch": patch_of(cell.size, args.tokens), "depth": args.depth}
    # An undistilled student that starts from other weights knows no teacher.
    if cell.method != "none" or args.init == "teacher":
        model_settings["teacher_sha256"] = read_card(teacher).sha256
        make = partial(run_training.distill, workspace, prepared, typed, teacher.name, args.device)
    else:
        make = partial(run_training.distill, workspace, prepared, typed | {"depth": args.depth}, None, args.device)
    return _run_of(args, workspace, prepared, settings | model_settings, make)


def _common(args: argparse.Namespace) -> dict[str, Any]:
    return {key: getattr(args, key) for key in ("batch", "lr", "augment", "precision")}


def _run_of(
    args: argparse.Namespace, workspace: Workspace, prepared: Prepared, settings: dict[str, Any], make: Any
) -> Path | None:
    """Return a run of these settings: found, made, or None where nothing is to be made."""
    try:
        return run_training.once(workspace, prepared, settings, _nothing if args.report else make)
    except _NotThereError:
        return None


class _NotThereError(Exception):
    """A run of the grid is missing, and none is to be trained."""


def _nothing() -> Path:
    raise _NotThereError


@dataclass
class Scores:
    """AUROCs of runs on the test split, all on the same bootstrap replicates; what a run answers is kept."""

    workspace: Workspace
    prepared: Prepared
    replicates: int

    def __post_init__(self) -> None:
        patients = self.prepared.patients[self.prepared.rows("test")]
        self.weights = patient_weights(patients, self.replicates)

    def of(self, run: Path) -> dict[str, Sample]:
        """Return "findings" and "abnormal" of a run."""
        scored = aurocs(self.prepared, "test", self._answers(run).logits, self.weights)
        return {task: Sample(scored[task].macro.value, scored[task].macro_replicates) for task in TASKS}

    def _answers(self, run: Path) -> Outputs:
        kept = self.workspace.root / "answers" / f"{read_card(run).sha256[:16]}-{self.prepared.hash[:16]}.npz"
        if kept.exists():
            with np.load(kept) as file:
                return Outputs(file["findings"], file["abnormal"], file["attention"])
        outputs = answer(self.workspace, run.name, self.prepared.name, "test").outputs
        whole = io.BytesIO()
        np.savez(whole, findings=outputs.findings, abnormal=outputs.abnormal, attention=outputs.attention)
        atomic_write(kept, whole.getvalue())
        return outputs


if __name__ == "__main__":
    sys.exit(main())
