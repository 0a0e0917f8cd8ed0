"""Measurements of models in turns, each model in its own process.

The models share an engine and a precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecxr.benchmark.candidates import Candidate
from edgecxr.benchmark.energy import Meter
from edgecxr.benchmark.model_process import Refused, Worker
from edgecxr.errors import brief

# Turns are short enough for all models to meet the same conditions, and long enough for clocks and caches to settle.
TURNS, TURN_S, FEWEST_RUNS, WARM = 12, 0.25, 3, 2
BATCH_S, LONGEST_BATCH_S = 0.4, 10.0
FILM_RUNS = 3

LATENCY = "latency"
"""The stage that a row cannot do without."""


@dataclass
class Samples:
    """Measurements of a candidate so far, in seconds and MiB.

    Attributes:
        starts: `Worker.start` of each start.
        runs: seconds of each run with one image.
        batches: batch size -> seconds of each run.
        skipped: batch size -> why it was not run.
        film: stage -> seconds of each run.
        host: peak memory with one image.
        host_largest: peak memory with the largest batch.
        device: GPU memory in use after the start of the process, minus that before it.
        device_largest: the same with the largest batch.
        energy: one dictionary for each batch size.
        engine: the file that the engine built from the model file.
        problems: stage -> why it was not completed, one line.
    """

    starts: list[dict[str, float]] = field(default_factory=list)
    runs: list[float] = field(default_factory=list)
    batches: dict[int, list[float]] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    film: dict[str, list[float]] = field(default_factory=dict)
    host: float | None = None
    host_largest: float | None = None
    device: float | None = None
    device_largest: float | None = None
    energy: list[dict[str, Any]] = field(default_factory=list)
    engine: Path | None = None
    problems: dict[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class Lane:
    """A candidate whose model is open."""

    candidate: Candidate
    samples: Samples
    worker: Worker
    runs_per_turn: int = 1
    device: float | None = None


@contextmanager
def opened(
    group: list[Candidate],
    samples: dict[str, Samples],
    absent: dict[str, str],
    used: Callable[[], float] | None,
    room: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[list[Lane], list[Candidate]]]:
    """Open candidates one after the other, and close them at the end.

    Args:
        group: candidates of one engine and precision.
        samples: id -> earlier measurements; candidates that failed to open before are not tried again.
        absent: engines that are not installed -> why; further ones are added.
        used: returns the GPU memory in use in MiB; None if it is unknown.
        room: returns whether there is memory for one more candidate; the first is always opened.

    Yields:
        The lanes, and the candidates that did not fit into memory.
    """
    lanes: list[Lane] = []
    left = list(group)
    try:
        while left and (not lanes or room()):
            candidate = left.pop(0)
            measured = samples[candidate.id]
            if (measured.problems and not measured.runs) or candidate.backend in absent:
                continue
            before = used() if used and candidate.gpu else None
            try:
                worker = Worker(candidate.opener, candidate.arguments, candidate.model.shape)
            except Refused as refused:
                if refused.absent:
                    absent[candidate.backend] = str(refused)
                else:
                    measured.problems["start"] = str(refused)
                continue
            lanes.append(Lane(candidate, measured, worker))
            measured.starts.append(worker.start)
            measured.engine = worker.engine
            if used and before is not None:
                lanes[-1].device = max(0.0, used() - before)
                measured.device = max(measured.device or 0.0, lanes[-1].device)
        yield lanes, left
    finally:
        for lane in lanes:
            lane.worker.close()


def for_each_lane(lanes: list[Lane], stage: str, do: Callable[[Lane], None]) -> None:
    """Run one stage on each lane.

    A lane that fails keeps its measurements, and the reason is noted in its samples. It is closed and removed from
    `lanes` if its process died, or if the stage was the latency.
    """
    for lane in list(lanes):
        try:
            do(lane)
        except Refused as refused:
            lane.samples.problems[stage] = str(refused)
            if stage == LATENCY or not lane.worker.alive:
                lane.worker.close()
                lanes.remove(lane)


def warm_up(lane: Lane) -> None:
    """Run a model untimed, then choose its number of runs per turn."""
    once = min(lane.worker.time(1, 2, WARM))
    lane.runs_per_turn = max(FEWEST_RUNS, round(TURN_S / once))


def take_turns(lanes: list[Lane]) -> None:
    """Time single images, each lane in turn.

    A different lane is first in each turn.
    """
    for_each_lane(lanes, LATENCY, warm_up)
    for turn in range(TURNS):
        first = turn % max(1, len(lanes))
        order = lanes[first:] + lanes[:first]
        for_each_lane(order, LATENCY, take_turn)
        lanes[:] = [lane for lane in lanes if lane in order]


def take_turn(lane: Lane) -> None:
    """Time single images."""
    lane.samples.runs += lane.worker.time(1, lane.runs_per_turn, WARM)


def peak_memory(lane: Lane) -> None:
    """Measure the peak memory of the process with single images."""
    lane.samples.host = lane.worker.memory() or lane.samples.host


def batches(lane: Lane, largest: int, used: Callable[[], float] | None) -> None:
    """Time growing batches, and measure the memory of the largest.

    It stops before a batch whose run would take more than `LONGEST_BATCH_S` seconds. A batch size that failed, or that
    ended the process, is not tried again.
    """
    samples = lane.samples
    per_image = min(samples.runs)
    before = used() if used and lane.candidate.gpu else None
    for batch in sizes(largest):
        if batch in samples.skipped:
            break
        expected = per_image * batch
        if expected > LONGEST_BATCH_S:
            samples.skipped[batch] = f"one run would take about {expected:.0f} s"
            break
        runs = max(2, min(20, round(BATCH_S / expected)))
        try:
            seconds = lane.worker.time(batch, runs, 1)
        except Refused as refused:
            samples.skipped[batch] = str(refused)
            if not lane.worker.alive:
                raise Refused(f"batch {batch}: {refused}") from refused
            break
        samples.batches.setdefault(batch, []).extend(seconds)
        per_image = min(seconds) / batch
    samples.host_largest = lane.worker.memory() or samples.host_largest
    if used and before is not None and lane.device is not None:
        samples.device_largest = max(samples.device_largest or 0.0, lane.device + max(0.0, used() - before))


def sizes(largest: int) -> list[int]:
    """Return the batch sizes to time: powers of four, and the largest.

    Batch size 1 is not among them.
    """
    powers = [4**i for i in range(1, 9) if 4**i < largest]
    return [*powers, largest] if largest > 1 else []


def from_film(lane: Lane, film: Path) -> None:
    """Time the way from a film's file to the answer."""
    for stage, seconds in lane.worker.film(film, FILM_RUNS).items():
        lane.samples.film.setdefault(stage, []).extend(seconds)


def energy(lane: Lane, meter: Meter, seconds: float) -> None:
    """Measure the energy of single images and of the best batch.

    The best batch size is the one with the highest throughput.
    """
    samples = lane.samples
    best = min(samples.batches, key=lambda batch: min(samples.batches[batch]) / batch, default=1)
    for batch in dict.fromkeys((1, best)):
        images, elapsed, joules = _metered(lane, meter, batch, seconds)
        samples.energy.append(
            {
                "batch": batch,
                "images": images,
                "seconds": round(elapsed, 3),
                "joules_per_image": round(joules / images, 6),
                "watts": round(joules / elapsed, 3),
            }
        )


def _metered(lane: Lane, meter: Meter, batch: int, seconds: float) -> tuple[int, float, float]:
    try:
        meter.start()
        images, elapsed = lane.worker.busy(batch, seconds)
        return images, elapsed, meter.stop()
    except Refused:
        with suppress(Exception):
            meter.stop()
        raise
    except Exception as error:  # libraries of sensors have their own exceptions
        raise Refused(f"the meter failed ({brief(error)})") from error
