"""What share of a training step on the CPU goes into data: reading the cache, augmentation, the view of each model.

    python benchmarks/training_step.py --out benchmarks/results/cpu-2core/training_step.json

Trains as `edgecxr train` and `edgecxr distill` do, on films of noise, for a few steps of each kind: teachers at 224 px,
and students at 28 px (the cheapest step there is) without and with a teacher. The ratio of a step is the time in the
data path over the time of the whole step, both from the same step; the first steps do not count. Ends with 6 if a limit
is exceeded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from noise_films import films
from ratios import finish, judged, record, spread

from edgecxr.data.prepared import Prepared
from edgecxr.films.resize import BASE_SIZE
from edgecxr.train import student, teacher
from edgecxr.train.batches import Batch, Batches, view
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.workspace import Workspace

LIMIT = 0.10
WARM = 2
CPU = Device(torch.device("cpu"), "fp32")

KINDS: dict[str, dict[str, Any]] = {
    "teacher-224-patch16": {},
    "teacher-224-patch32": {"patch": 32},
    "student-28-none": {"size": 28, "patch": 4, "method": "none"},
    "student-28-mlcak": {"size": 28, "patch": 4, "method": "mlcak"},
}


@dataclass
class Clock:
    """Seconds in the data path and in all, step by step."""

    data: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    spent: float = 0
    began: float = 0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `call` with its time counted as the data path's."""

        def counted(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args)
            finally:
                self.spent += time.perf_counter() - start

        return counted

    def batches(self, shuffled: Callable[..., Iterator[Batch]]) -> Callable[..., Iterator[Batch]]:
        """Return `Batches.shuffled` with each batch timed, as the beginning of a step."""

        def counted(*args: Any) -> Iterator[Batch]:
            following = self.timed(partial(next, shuffled(*args), None))
            while True:
                self.began, self.spent = time.perf_counter(), 0
                batch = following()
                if batch is None:
                    return
                yield batch

        return counted

    def step(self, done: int, steps: int, note: str) -> None:
        """Stand in for the progress bar: a step has ended. An epoch's end is reported too, and is no step."""
        if len(self.whole) < done:
            self.whole.append(time.perf_counter() - self.began)
            self.data.append(self.spent)


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--steps", type=int, default=12, help="counted steps of each kind")
    parser.add_argument("--batch", type=int, default=16, help="images per step")
    parser.add_argument("--depth", type=int, default=12, help="blocks")
    parser.add_argument("--limit", type=float, default=LIMIT, help="largest share of the data path")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgecxr-step-") as folder:
        workspace = Workspace(Path(folder, "runs"))
        prepared = films(Path(folder, "films"), workspace, (args.steps + WARM) * args.batch)
        common = {"depth": args.depth, "batch": args.batch, "epochs": 1}
        results = [measured(name, workspace, prepared, common, args.limit) for name in KINDS]
    settings = {"steps": args.steps, "batch": args.batch, "depth": args.depth, "threads": torch.get_num_threads()}
    return finish(record("training_step", settings, results), args.out)


def measured(
    name: str, workspace: Workspace, prepared: Prepared, common: dict[str, Any], limit: float
) -> dict[str, Any]:
    """Train one kind and return its times; a student learns from the teacher that was trained first."""
    clock = Clock()
    config = TrainConfig(prepared.name, prepared.hash, init="random", **KINDS[name] | common)
    with (
        patch.object(Batches, "shuffled", clock.batches(Batches.shuffled)),
        patch.object(teacher, "view", clock.timed(view)),
        patch.object(student, "view", clock.timed(view)),
    ):
        if config.method == "teacher":
            teacher.train_teacher(workspace, prepared, config, CPU, clock.step)
        else:
            taught = workspace.root / f"teacher-{config.arch}-{BASE_SIZE}-{prepared.name}"
            config = replace(config, teacher=taught.name)
            student.distil_student(workspace, prepared, config, taught, CPU, clock.step)
    shares = [data / whole for data, whole in zip(clock.data[WARM:], clock.whole[WARM:], strict=True)]
    share = spread(shares)
    print(f"{name}: {share['median']:.1%} of a step", file=sys.stderr, flush=True)
    return {
        "name": name,
        "step_ms": spread([1000 * value for value in clock.whole[WARM:]], 1),
        "data_ms": spread([1000 * value for value in clock.data[WARM:]], 1),
        "share": share,
        "checks": [judged(f"{name} data path", share["median"], limit)],
    }


if __name__ == "__main__":
    sys.exit(main())
