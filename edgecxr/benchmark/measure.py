"""The benchmark of models on this machine.

It records their accuracy, latency, memory, energy and size. The models of one engine and precision take turns, so that
they are compared under the same conditions. Every such group is measured once in each of several passes. After each
step the record is written, marked incomplete.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from threading import Thread
from typing import Any

from edgecxr import NOTICE
from edgecxr.benchmark import aurocs, conditions, rows, turns
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
from edgecxr.machine.load import OtherProcesses
from edgecxr.machine.memory import memory

_SCORE_BATCH = 16
_ROOM = 1 << 30
"""Bytes of free memory needed to open one more model beside the others."""
_IDLE_S = 3.0

Update = Callable[..., None]


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        threads: CPU threads per engine.
        max_batch: largest batch size to measure the throughput of.
        passes: over all engines and precisions.
        energy_s: seconds to measure the energy of each batch size for.
        replicates: number of bootstrap replicates.
        split: of the data set, to measure AUROCs on.
    """

    threads: int
    max_batch: int = 64
    passes: int = 3
    energy_s: float = 5.0
    replicates: int = 1000
    split: str = "test"


@dataclass(frozen=True)
class Film:
    """A film to time the way from its file to the answer.

    Attributes:
        path: its file.
        name: its description in the record.
    """

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
    """Measure the candidates and write their record.

    Args:
        candidates: what to measure, sorted by engine and precision.
        settings: how to measure.
        data: films to measure AUROCs on; None measures none.
        film: a DICOM file or image; None skips the times from file to answer.
        command: the command line, for the record.
        out: file of the record, written after each step.
        update: called with (steps done, steps in total, note).
        try_gpu: whether to try GPU engines even if no GPU is found.
        root: "/", except in tests.

    Returns:
        The record, see record.schema.json.

    Raises:
        ModelError: nothing could be measured.
        UsageError: the record cannot be written.
    """
    run = _Run(list(candidates), settings, data, film, command, try_gpu, root)
    write(run.record(False), out)  # fails early if the file cannot be written
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
    """A step of the benchmark, after which the record is written.

    Its `size` is a number of candidates.
    """

    backend: str
    note: str
    size: int
    do: Callable[[], None]


class _Run:
    """A running benchmark."""

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
        self._samples = {candidate.id: Samples() for candidate in candidates}
        self._unscored: dict[str, str] = {}
        self._conditions: list[dict[str, Any]] = []
        self._meters, self._no_meter = find(root)
        self._idle: dict[str, float] = {}
        self._head: dict[str, Any] = {
            "schema": NAME, "version": VERSION, "notice": NOTICE,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "command": command, "device": conditions.device(root), "versions": conditions.versions(),
        }  # fmt: skip
        detected = gpus(root)
        trouble = [row for row in gpu_rows(detected, root) if row.status != "ok"]
        why = "; ".join(": ".join(filter(None, (row.value, row.remedy))) for row in trouble)
        unwanted = [candidate.backend for candidate in candidates if candidate.gpu and not (try_gpu or detected.usable)]
        self.absent = dict.fromkeys(unwanted, why)
        self._files: dict[Path, dict[str, Any]] = {}
        self._gpu_memory = gpu_memory() if any(candidate.gpu for candidate in candidates) else None

        models = self._models()
        self._teachers = {model.name: aurocs.teacher_of(model, models) for model in models}
        self._scores = (
            None if data is None else aurocs.Scores(self.candidates, data, settings.split, settings.replicates)
        )
        # Records are shared with others, so paths that may identify a person are removed from messages.
        places = {candidate.file.parent: "" for candidate in candidates if candidate.file} | (
            {film.path.parent: ""} if film else {}
        )
        places |= {data.path.parent: ""} if data else {}
        hidden = {str(film.path): "FILM"} if film else {}
        hidden |= {f"{place}/": "" for place in sorted(map(str, places), key=len, reverse=True)}
        hidden |= {f"{Path.cwd()}/": "", f"{Path.home()}/": "~/"}
        self._local = partial(rows.without_names, hidden=hidden)

    def begin(self) -> None:
        """Note the conditions and the idle power before any load."""
        self.look("before")
        for kind, meter in list(self._meters.items()):
            try:
                meter.start()
                time.sleep(_IDLE_S)
                self._idle[kind] = meter.stop() / _IDLE_S
            except Exception as error:  # libraries of sensors have their own exceptions
                del self._meters[kind]
                self._no_meter[kind] = f"{meter.name}: {brief(error)}"

    def steps(self) -> list[_Step]:
        """Return all steps, in order."""
        groups = [list(group) for _, group in groupby(self.candidates, key=lambda candidate: candidate.group)]
        pending = []
        for number in range(self._settings.passes):
            for group in groups:
                note = f"pass {number + 1}, {' '.join(group[0].group)}"
                pending.append(
                    _Step(group[0].backend, note, len(group), partial(self.measure, group, number == 0, note))
                )
        if self._data is not None:
            pending += [
                _Step(candidate.backend, f"AUROC of {candidate.id}", 1, partial(self.score, candidate))
                for candidate in self.candidates
            ]
        return pending

    def look(self, when: str, **more: Any) -> None:
        """Note the current conditions."""
        self._conditions.append({"when": when, **conditions.sample(self._root), **more})

    def measure(self, group: list[Candidate], first: bool, note: str) -> None:
        """Measure the candidates of one engine and precision.

        Energy is measured only in the `first` pass.
        """
        meter = self._meter(group[0])
        left = group
        while left:
            with turns.opened(left, self._samples, self.absent, self._gpu_memory, self._room) as (opened, left):
                if not opened:
                    continue
                others = OtherProcesses([lane.worker.pid for lane in opened], self._root)
                turns.take_turns(opened)
                busy = others.busy()
                # Sample under load, since idle clocks drop at once.
                sampling = Thread(
                    target=self.look, args=(note,), kwargs={"group": " ".join(group[0].group), "others": busy}
                )
                sampling.start()
                turns.for_each_lane(opened, "memory", turns.peak_memory)
                largest = partial(turns.batches, largest=self._settings.max_batch, used=self._gpu_memory)
                turns.for_each_lane(opened, "throughput", largest)
                sampling.join()
                if self._film:
                    turns.for_each_lane(opened, "film", partial(turns.from_film, film=self._film.path))
                if first and meter:
                    seconds = self._settings.energy_s
                    turns.for_each_lane(opened, "energy", partial(turns.energy, meter=meter[1], seconds=seconds))

    def _room(self) -> bool:
        return memory(self._root).available_bytes > _ROOM

    def score(self, candidate: Candidate) -> None:
        """Score a candidate on all films of the split."""
        assert self._data is not None and self._scores is not None
        if not self._samples[candidate.id].runs:
            return
        if candidate.model.weights == "random":
            self._unscored[candidate.id] = "its weights are random"
        elif candidate.model.labels != self._data.labels:
            self._unscored[candidate.id] = (
                f"its findings are {', '.join(candidate.model.labels) or 'unknown'}, and those of {self._data.name} "
                f"are {', '.join(self._data.labels)}: prepare data with the findings of the model"
            )
        else:
            try:
                worker = Worker(candidate.opener, candidate.arguments, candidate.model.shape)
                try:
                    outputs = worker.score(self._data.path, self._data.hash, self._settings.split, _SCORE_BATCH)
                finally:
                    worker.close()
                self._scores.add(candidate, outputs)
            except Refused as refused:
                self._unscored[candidate.id] = str(refused)

    def record(self, complete: bool) -> Record:
        """Return the record of the measurements so far."""
        return {
            **self._head,
            "command": self._local(self._head["command"]),
            "complete": complete,
            "settings": asdict(self._settings) | {"turns": turns.TURNS},
            "data": rows.described_data(self._data, self._settings),
            "film": self._film.name if self._film else None,
            "conditions": self._conditions,
            "models": {
                model.name: rows.described_model(model, self._teachers[model.name], self._data)
                for model in self._models()
            },
            "rows": [self._row(candidate) for candidate in self.candidates if candidate.backend not in self.absent],
            "absent": {backend: brief(self._local(why), 400) for backend, why in self.absent.items()},
            "warnings": conditions.warnings(self._conditions),
        }

    def _models(self) -> list[Model]:
        return list({candidate.model.name: candidate.model for candidate in self.candidates}.values())

    def _meter(self, candidate: Candidate) -> tuple[str, Meter] | None:
        kinds = ("gpu" if candidate.gpu else "cpu", "board")
        return next(((kind, self._meters[kind]) for kind in kinds if kind in self._meters), None)

    def _row(self, candidate: Candidate) -> dict[str, Any]:
        samples = self._samples[candidate.id]
        row: dict[str, Any] = {
            "id": candidate.id, "model": candidate.model.name, "backend": candidate.backend,
            "precision": candidate.precision,
            "threads": candidate.arguments.get("threads"), "gpu": candidate.gpu,
            "status": "ok" if samples.runs else "failed" if samples.problems else "pending",
        }  # fmt: skip
        problems = {stage: brief(self._local(why), 400) for stage, why in samples.problems.items()}
        if row["status"] == "failed":
            row["reason"] = "; ".join(problems.values())
        elif problems:
            row["problems"] = problems
        if candidate.file:
            row["artefact"] = self._described_file(candidate.file)
        if samples.engine:
            row["engine"] = self._described_file(samples.engine)
        if samples.starts:
            row["start_s"] = rows.median_start(samples.starts)
        if samples.runs:
            row["latency_ms"] = percentiles(samples.runs)
            row["throughput"] = rows.throughput(samples, self._local)
            row["memory_mib"] = rows.memory_of(samples)
            row["energy"] = self._energy(candidate, samples)
        if samples.film:
            row["film_ms"] = rows.film_times(samples)
        if candidate.id in self._unscored:
            row["no_auroc"] = brief(self._local(self._unscored[candidate.id]), 400)
        return row | (self._scores.row(candidate) if self._scores else {})

    def _described_file(self, path: Path) -> dict[str, Any]:
        if path not in self._files:
            self._files[path] = {"file": path.name, "sha256": sha256_of(path), "bytes": path.stat().st_size}
        return self._files[path]

    def _energy(self, candidate: Candidate, samples: Samples) -> dict[str, Any]:
        entry = self._meter(candidate)
        if entry is None:
            why = [self._no_meter.get(kind, "") for kind in ("gpu" if candidate.gpu else "cpu", "board")]
            return {"absent": "; ".join(filter(None, why))}
        kind, meter = entry
        idle = round(self._idle.get(kind, 0.0), 3)
        return {"meter": meter.name, "scope": meter.scope, "idle_watts": idle, "batches": samples.energy}
