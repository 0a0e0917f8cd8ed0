"""`edgecxr benchmark`: accuracy, latency, memory, energy and size of models on this machine, as one record.

The models of one engine and precision take turns, so that they are compared under the same conditions. All of it
happens in several passes: what a pass measured first, the next one measures again later. After each step the record is
written, marked incomplete.
"""

from __future__ import annotations

import datetime
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr import NOTICE
from edgecxr.bench import conditions, lanes, scores
from edgecxr.bench.candidates import Candidate, Model
from edgecxr.bench.energy import Meter, Nvml, find
from edgecxr.bench.lanes import Samples
from edgecxr.bench.record import NAME, VERSION, Record, percentiles, write
from edgecxr.bench.worker import Refused, Worker
from edgecxr.data.prepared import Prepared
from edgecxr.errors import InputError, ModelError, brief
from edgecxr.runtime.bundle import sha256_of
from edgecxr.runtime.types import Outputs

_SCORE_BATCH = 16
_IDLE_S = 3.0

Update = Callable[..., None]


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        threads: of the CPU, of each engine.
        max_batch: largest batch whose throughput is measured.
        passes: over everything.
        energy_s: seconds of work whose energy is measured.
        replicates: of the bootstrap.
        split: of the data set that AUROCs are of.
    """

    threads: int
    max_batch: int = 64
    passes: int = 3
    energy_s: float = 5.0
    replicates: int = 1000
    split: str = "test"


@dataclass(frozen=True)
class Film:
    """A file for the way from a file to an answer, and what the record calls it."""

    path: Path
    name: str


def benchmark(
    candidates: Sequence[Candidate],
    settings: Settings,
    data: Prepared | None,
    film: Film | None,
    command: str,
    out: Path,
    update: Update,
    try_gpu: bool = True,
    root: Path = Path("/"),
) -> Record:
    """Measure everything.

    Args:
        candidates: what to measure, sorted by engine and precision.
        settings: how.
        data: whose films the AUROCs are of; None measures none.
        film: a DICOM file or image; None leaves the way from a file to an answer out.
        command: what was typed, for the record.
        out: file of the record, which is written after each step.
        update: called with (steps done, steps in all, note).
        try_gpu: try engines for GPUs even where no GPU is found.
        root: "/", but for tests.

    Returns:
        The record, as record.schema.json has it.

    Raises:
        ModelError: nothing could be measured.
        UsageError: the record cannot be written.
    """
    run = _Run(list(candidates), settings, data, film, command, try_gpu, root)
    write(run.record(False), out)  # who may not write there shall know it now
    run.begin()
    done = 0
    steps = run.steps()
    while steps:
        # What has turned out to be absent is no work that is still to come.
        steps = [step for step in steps if step.backend not in run.absent]
        if not steps:
            break
        step = steps.pop(0)
        update(done, done + step.size + sum(later.size for later in steps), step.note)
        step.do()
        done += step.size
        write(run.record(False), out)
    run.look("after")
    record = run.record(True)
    write(record, out)
    update(done, done)
    if not any(row["status"] == "ok" for row in record["rows"]):
        reasons = dict.fromkeys([*record["absent"].values(), *(row.get("reason", "") for row in record["rows"])])
        raise ModelError(f"nothing could be measured: {'; '.join(filter(None, reasons))}")
    return record


@dataclass(frozen=True)
class _Step:
    """A part of the work, after which the record is written; `size` is in candidates."""

    backend: str
    note: str
    size: int
    do: Callable[[], None]


class _Run:
    """A benchmark while it runs."""

    def __init__(
        self,
        candidates: list[Candidate],
        settings: Settings,
        data: Prepared | None,
        film: Film | None,
        command: str,
        try_gpu: bool,
        root: Path,
    ) -> None:
        self.candidates = candidates
        self._settings, self._data, self._film, self._root = settings, data, film, root
        self._samples = {one.id: Samples() for one in candidates}
        self._outputs: dict[str, Outputs] = {}
        self._unscored: dict[str, str] = {}
        self._conditions: list[dict[str, Any]] = []
        self._meters, self._no_meter = find(root)
        self._idle: dict[str, float] = {}
        self._head: dict[str, Any] = {
            "schema": NAME, "version": VERSION, "notice": NOTICE,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "command": _local(command), "device": conditions.device(root), "versions": conditions.versions(),
        }  # fmt: skip
        gpus = self._head["device"]["gpus"]
        unwanted = [one.backend for one in candidates if one.gpu and not (try_gpu or gpus)]
        self.absent = dict.fromkeys(unwanted, "no NVIDIA GPU was found here")
        self._files = {
            path: {"file": path.name, "sha256": sha256_of(path), "bytes": path.stat().st_size}
            for path in dict.fromkeys(one.file for one in candidates if one.file)
        }
        self._teachers = {
            model.name: scores.teacher_of(model, [one.model for one in candidates]) for model in self._models()
        }

    def begin(self) -> None:
        """Look at the machine before it has anything to do."""
        self.look("before")
        for kind, meter in self._meters.items():
            meter.start()
            time.sleep(_IDLE_S)
            self._idle[kind] = meter.stop() / _IDLE_S

    def steps(self) -> list[_Step]:
        """Return what is to be done, in order."""
        groups = [list(group) for _, group in groupby(self.candidates, key=lambda one: one.group)]
        found = []
        for number in range(self._settings.passes):
            for group in groups:
                note = f"pass {number + 1}, {' '.join(group[0].group)}"
                found.append(_Step(group[0].backend, note, len(group), partial(self.measure, group, number == 0, note)))
        if self._data is not None:
            found += [_Step(one.backend, f"AUROC of {one.id}", 1, partial(self.score, one)) for one in self.candidates]
        return found

    def look(self, when: str) -> None:
        """Note the conditions of this moment."""
        self._conditions.append({"when": when, **conditions.sample(self._root)})

    def measure(self, group: list[Candidate], first: bool, note: str) -> None:
        """Measure the candidates of one engine and precision; energy only if it is the `first` pass."""
        gpu = self._meters.get("gpu")
        used = gpu.used_mib if isinstance(gpu, Nvml) else None
        with lanes.opened(group, self._samples, self.absent, used) as open_lanes:
            lanes.each(open_lanes, lanes.warm_up)
            for _ in range(lanes.TURNS):
                lanes.each(open_lanes, lanes.take_turn)
            lanes.each(open_lanes, lanes.peak_memory)
            lanes.each(open_lanes, partial(lanes.batches, largest=self._settings.max_batch, used=used))
            if self._film:
                lanes.each(open_lanes, partial(lanes.from_film, film=self._film.path))
            meter = self._meter(group[0])
            if first and meter:
                lanes.each(open_lanes, partial(lanes.energy, meter=meter[1], seconds=self._settings.energy_s))
            if open_lanes:
                self.look(note)

    def score(self, one: Candidate) -> None:
        """Let a candidate look at all films of the split."""
        own = self._samples[one.id]
        assert self._data is not None
        if not own.runs or own.problem:
            return
        if one.model.weights == "random":
            self._unscored[one.id] = "its weights are random"
            return
        try:
            _check_labels(one.model, self._data, self._settings.split)
            worker = Worker(one.opener, one.arguments, one.model.shape)
            try:
                self._outputs[one.id] = worker.score(self._data.path, self._settings.split, _SCORE_BATCH)
            finally:
                worker.close()
        except (InputError, Refused) as error:
            self._unscored[one.id] = str(error)

    def record(self, complete: bool) -> Record:
        """Return the record of what is there so far; AUROCs come with a complete one."""
        scored = {}
        if complete and self._data is not None:
            scored = scores.rows(
                self.candidates, self._outputs, self._data, self._settings.split, self._settings.replicates
            )
        return {
            **self._head,
            "complete": complete,
            "settings": asdict(self._settings) | {"turns": lanes.TURNS},
            "data": self._described_data(),
            "film": self._film.name if self._film else None,
            "conditions": self._conditions,
            "models": {
                model.name: {
                    "role": model.role, "size": model.shape[-1], "weights": model.weights, "labels": list(model.labels),
                    "sha256": model.sha256, "teacher_sha256": model.teacher_sha256, **model.facts,
                    "compared_with": teacher.name if (teacher := self._teachers[model.name]) else None,
                }
                for model in self._models()
            },
            "rows": [
                self._row(one) | scored.get(one.id, {}) for one in self.candidates if one.backend not in self.absent
            ],
            "absent": {backend: brief(_local(why), 400) for backend, why in self.absent.items()},
            "warnings": conditions.warnings(
                self._conditions, self._head["device"]["cpu"]["allowed"], self._settings.threads
            ),
        }  # fmt: skip

    def _models(self) -> list[Model]:
        return list({one.model.name: one.model for one in self.candidates}.values())

    def _described_data(self) -> dict[str, Any] | None:
        if self._data is None:
            return None
        rows = self._data.rows(self._settings.split)
        return {
            "name": self._data.name, "hash": self._data.hash, "split": self._settings.split, "images": len(rows),
            "patients": len(np.unique(self._data.patients[rows])), "phantom": self._data.phantom,
            "replicates": self._settings.replicates,
        }  # fmt: skip

    def _meter(self, one: Candidate) -> tuple[str, Meter] | None:
        for kind in ("gpu" if one.gpu else "cpu", "board"):
            if kind in self._meters:
                return kind, self._meters[kind]
        return None

    def _row(self, one: Candidate) -> dict[str, Any]:
        own = self._samples[one.id]
        row: dict[str, Any] = {
            "id": one.id, "model": one.model.name, "backend": one.backend, "precision": one.precision,
            "threads": one.arguments.get("threads"), "gpu": one.gpu, "status": "failed" if own.problem else "ok",
        }  # fmt: skip
        if own.problem:
            row["reason"] = _local(own.problem)
        if one.file:
            row["artefact"] = self._files[one.file]
        if own.starts:
            row["cold_start_s"] = _start(own.starts)
        if own.runs:
            row["latency_ms"] = percentiles(own.runs)
            row["throughput"] = _throughput(own)
            row["memory_mib"] = {
                "host": _rounded(own.host), "host_largest_batch": _rounded(own.host_largest),
                "device": _rounded(own.device),
            }  # fmt: skip
            row["energy"] = self._energy(one, own)
        if own.film:
            stages = dict(own.film)
            stages["total"] = [sum(parts) for parts in zip(*own.film.values(), strict=True)]
            row["film_ms"] = {stage: percentiles(seconds) for stage, seconds in stages.items()}
        if one.id in self._unscored:
            row["no_auroc"] = _local(self._unscored[one.id])
        return row

    def _energy(self, one: Candidate, own: Samples) -> dict[str, Any]:
        meter = self._meter(one)
        if meter is None:
            why = [self._no_meter.get(kind, "") for kind in ("gpu" if one.gpu else "cpu", "board")]
            return {"absent": "; ".join(filter(None, why))}
        kind, found = meter
        idle = round(self._idle.get(kind, 0.0), 3)
        return {"meter": found.name, "scope": found.scope, "idle_watts": idle, "batches": own.energy}


def _check_labels(model: Model, data: Prepared, split: str) -> None:
    if model.labels != data.labels:
        raise InputError(
            f"it answers {', '.join(model.labels) or 'other questions'}, and {data.name} asks for "
            f"{', '.join(data.labels)}",
            "dataset",
        )


def _local(text: str) -> str:
    """Return a text without the folders of absolute paths: a record is sent away, and they may name persons."""
    return re.sub(r"(?<![\w.~/])/(?:[^\s/:;,'\"()]+/)+", "", text)


def _start(starts: list[dict[str, float]]) -> dict[str, float]:
    """Return the start whose total is the median one: its parts add up."""
    totals = [sum(start.values()) for start in starts]
    start = starts[totals.index(statistics.median_low(totals))]
    return {key: round(value, 4) for key, value in (start | {"total": sum(start.values())}).items()}


def _throughput(own: Samples) -> list[dict[str, Any]]:
    rows = []
    for batch, seconds in {1: own.runs, **own.batches}.items():
        median = statistics.median(seconds)
        rows.append(
            {
                "batch": batch,
                "images_per_s": round(batch / median, 3),
                "ms": round(1000 * median, 4),
                "runs": len(seconds),
            }
        )
    left = {batch: why for batch, why in own.skipped.items() if batch not in own.batches}
    return [*rows, *({"batch": batch, "skipped": why} for batch, why in left.items())]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
