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
from threading import Thread
from typing import Any

import numpy as np

from edgecxr import NOTICE
from edgecxr.benchmark import aurocs, conditions, turns
from edgecxr.benchmark.candidates import Candidate, Model
from edgecxr.benchmark.energy import Meter, find, gpu_memory
from edgecxr.benchmark.model_process import Refused, Worker
from edgecxr.benchmark.record import NAME, VERSION, Record, percentiles, write
from edgecxr.benchmark.turns import Samples
from edgecxr.bundle.bundle import sha256_of
from edgecxr.data.prepared import Prepared
from edgecxr.doctor.machine_rows import gpu_rows
from edgecxr.errors import ModelError, brief
from edgecxr.machine.gpu import gpus
from edgecxr.machine.load import Others
from edgecxr.machine.memory import memory

_SCORE_BATCH = 16
_ROOM = 1 << 30
"""Bytes of memory that must be free for one more model to be opened beside the others."""
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
    # Skip the steps of missing backends.
    while steps := [step for step in steps if step.backend not in run.absent]:
        step = steps.pop(0)
        update(done, done + step.size + sum(later.size for later in steps), step.note)
        step.do()
        done += step.size
        write(run.record(False), out)
    run.look("after")
    update(done, done)
    record = run.record(True)
    if not any(row["status"] == "ok" for row in record["rows"]):
        reasons = dict.fromkeys([*record["absent"].values(), *(row.get("reason", "") for row in record["rows"])])
        raise ModelError(f"nothing could be measured: {'; '.join(filter(None, reasons))}")
    write(record, out)
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
        self._unscored: dict[str, str] = {}
        self._conditions: list[dict[str, Any]] = []
        self._meters, self._no_meter = find(root)
        self._idle: dict[str, float] = {}
        self._head: dict[str, Any] = {
            "schema": NAME, "version": VERSION, "notice": NOTICE,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "command": command, "device": conditions.device(root), "versions": conditions.versions(),
        }  # fmt: skip
        there = gpus(root)
        rows = [row for row in gpu_rows(there, root) if row.status != "ok"]
        why = "; ".join(": ".join(filter(None, (row.value, row.remedy))) for row in rows)
        unwanted = [one.backend for one in candidates if one.gpu and not (try_gpu or there.found)]
        self.absent = dict.fromkeys(unwanted, why)
        self._files: dict[Path, dict[str, Any]] = {}
        self._gpu_memory = gpu_memory() if any(one.gpu for one in candidates) else None

        models = self._models()
        self._teachers = {model.name: aurocs.teacher_of(model, models) for model in models}
        self._scores = (
            None if data is None else aurocs.Scores(self.candidates, data, settings.split, settings.replicates)
        )
        # A record is sent away: what stands for a person's folders and files in a message is left out.
        places = {one.file.parent: "" for one in candidates if one.file} | ({film.path.parent: ""} if film else {})
        places |= {data.path.parent: ""} if data else {}
        self._hidden = {str(film.path): "FILM"} if film else {}
        self._hidden |= {f"{place}/": "" for place in sorted(map(str, places), key=len, reverse=True)}
        self._hidden |= {f"{Path.cwd()}/": "", f"{Path.home()}/": "~/"}

    def begin(self) -> None:
        """Look at the machine before it has anything to do."""
        self.look("before")
        for kind, meter in list(self._meters.items()):
            try:
                meter.start()
                time.sleep(_IDLE_S)
                self._idle[kind] = meter.stop() / _IDLE_S
            except Exception as error:  # a sensor that cannot be read, by whatever library
                del self._meters[kind]
                self._no_meter[kind] = f"{meter.name}: {brief(error)}"

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

    def look(self, when: str, **more: Any) -> None:
        """Note the conditions of this moment."""
        self._conditions.append({"when": when, **conditions.sample(self._root), **more})

    def measure(self, group: list[Candidate], first: bool, note: str) -> None:
        """Measure the candidates of one engine and precision; energy only if it is the `first` pass."""
        meter = self._meter(group[0])
        left = group
        while left:
            with turns.opened(left, self._samples, self.absent, self._gpu_memory, self._room) as (opened, left):
                if not opened:
                    continue
                others = Others([lane.worker.pid for lane in opened], self._root)
                turns.take_turns(opened)
                busy = others.busy()
                # At work, or a clock would have fallen asleep already.
                looking = Thread(
                    target=self.look, args=(note,), kwargs={"group": " ".join(group[0].group), "others": busy}
                )
                looking.start()
                turns.each(opened, "memory", turns.peak_memory)
                largest = partial(turns.batches, largest=self._settings.max_batch, used=self._gpu_memory)
                turns.each(opened, "throughput", largest)
                looking.join()
                if self._film:
                    turns.each(opened, "film", partial(turns.from_film, film=self._film.path))
                if first and meter:
                    seconds = self._settings.energy_s
                    turns.each(opened, "energy", partial(turns.energy, meter=meter[1], seconds=seconds))

    def _room(self) -> bool:
        return memory(self._root).available_bytes > _ROOM

    def score(self, one: Candidate) -> None:
        """Let a candidate look at all films of the split."""
        assert self._data is not None and self._scores is not None
        if not self._samples[one.id].runs:
            return
        if one.model.weights == "random":
            self._unscored[one.id] = "its weights are random"
        elif one.model.labels != self._data.labels:
            self._unscored[one.id] = (
                f"it answers {', '.join(one.model.labels) or 'other questions'}, and {self._data.name} asks for "
                f"{', '.join(self._data.labels)}: prepare data with its findings"
            )
        else:
            try:
                worker = Worker(one.opener, one.arguments, one.model.shape)
                try:
                    outputs = worker.score(self._data.path, self._data.hash, self._settings.split, _SCORE_BATCH)
                finally:
                    worker.close()
                self._scores.add(one, outputs)
            except Refused as refused:
                self._unscored[one.id] = str(refused)

    def record(self, complete: bool) -> Record:
        """Return the record of what is there so far."""
        return {
            **self._head,
            "command": self._local(self._head["command"]),
            "complete": complete,
            "settings": asdict(self._settings) | {"turns": turns.TURNS},
            "data": self._described_data(),
            "film": self._film.name if self._film else None,
            "conditions": self._conditions,
            "models": {model.name: self._described(model) for model in self._models()},
            "rows": [self._row(one) for one in self.candidates if one.backend not in self.absent],
            "absent": {backend: brief(self._local(why), 400) for backend, why in self.absent.items()},
            "warnings": conditions.warnings(self._conditions),
        }

    def _described(self, model: Model) -> dict[str, Any]:
        teacher = self._teachers[model.name]
        known = self._data is None or model.facts.get("data_hash") in (None, *self._data.hashes)
        return {
            "role": model.role,
            "size": model.shape[-1],
            "weights": model.weights,
            "labels": list(model.labels),
            "sha256": model.sha256,
            "teacher_sha256": model.teacher_sha256,
            **model.facts,
            "compared_with": teacher.name if teacher else None,
            "trained_on_other_data": not known,
        }

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
            "threads": one.arguments.get("threads"), "gpu": one.gpu,
            "status": "ok" if own.runs else "failed" if own.problems else "pending",
        }  # fmt: skip
        problems = {stage: brief(self._local(why), 400) for stage, why in own.problems.items()}
        if row["status"] == "failed":
            row["reason"] = "; ".join(problems.values())
        elif problems:
            row["problems"] = problems
        if one.file:
            row["artefact"] = self._described_file(one.file)
        if own.engine:
            row["engine"] = self._described_file(own.engine)
        if own.starts:
            row["start_s"] = _start(own.starts)
        if own.runs:
            row["latency_ms"] = percentiles(own.runs)
            row["throughput"] = self._throughput(own)
            row["memory_mib"] = {
                "host": _rounded(own.host), "host_largest_batch": _rounded(own.host_largest),
                "device": _rounded(own.device), "device_largest_batch": _rounded(own.device_largest),
            }  # fmt: skip
            row["energy"] = self._energy(one, own)
        if own.film:
            stages = dict(own.film)
            stages["total"] = [sum(parts) for parts in zip(*own.film.values(), strict=True)]
            row["film_ms"] = {stage: percentiles(seconds) for stage, seconds in stages.items()}
        if one.id in self._unscored:
            row["no_auroc"] = brief(self._local(self._unscored[one.id]), 400)
        return row | (self._scores.row(one) if self._scores else {})

    def _described_file(self, path: Path) -> dict[str, Any]:
        if path not in self._files:
            self._files[path] = {"file": path.name, "sha256": sha256_of(path), "bytes": path.stat().st_size}
        return self._files[path]

    def _throughput(self, own: Samples) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for batch, seconds in {1: own.runs, **own.batches}.items():
            median = statistics.median(seconds)
            rate = round(batch / median, 3)
            rows.append({"batch": batch, "images_per_s": rate, "ms": round(1000 * median, 4), "runs": len(seconds)})
        left = {batch: why for batch, why in own.skipped.items() if batch not in own.batches}
        return [*rows, *({"batch": batch, "skipped": self._local(why)} for batch, why in left.items())]

    def _local(self, text: str) -> str:
        """Return a text without this machine's folders, nor the name of the film, which may name persons."""
        for found, replacement in self._hidden.items():
            text = text.replace(found, replacement)
        return re.sub(r"(?<![\w.~/])/(?:[^\s/:;,'\"()]+/)+", "", text)

    def _energy(self, one: Candidate, own: Samples) -> dict[str, Any]:
        meter = self._meter(one)
        if meter is None:
            why = [self._no_meter.get(kind, "") for kind in ("gpu" if one.gpu else "cpu", "board")]
            return {"absent": "; ".join(filter(None, why))}
        kind, found = meter
        idle = round(self._idle.get(kind, 0.0), 3)
        return {"meter": found.name, "scope": found.scope, "idle_watts": idle, "batches": own.energy}


def _start(starts: list[dict[str, float]]) -> dict[str, float]:
    """Return the start whose total is the median one: its parts add up."""
    totals = [sum(start.values()) for start in starts]
    start = starts[totals.index(statistics.median_low(totals))]
    return {key: round(value, 4) for key, value in (start | {"total": sum(start.values())}).items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
