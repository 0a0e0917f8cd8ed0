"""The models of one engine and precision, each open in a process of its own, measured in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecxr.bench.candidates import Candidate
from edgecxr.bench.energy import Meter
from edgecxr.bench.worker import Refused, Worker

# A turn is short enough for all models to see the same conditions, and long enough to find the caches warm.
TURNS, TURN_S, MOST_RUNS, WARM = 12, 0.25, 25, 2
BATCH_S, LONGEST_BATCH_S = 0.4, 10.0
FILM_RUNS = 3


@dataclass
class Samples:
    """What was measured of a candidate so far; seconds and MiB.

    Attributes:
        starts: of each start, as `Worker.start` has it.
        runs: of one image.
        batches: batch -> of each run.
        skipped: batch -> why it was not run.
        film: stage -> of each run.
        host: peak memory with one image.
        host_largest: peak memory with the largest batch.
        device: GPU memory that the process took.
        energy: one dictionary for each batch.
        problem: why there is no more, one line.
    """

    starts: list[dict[str, float]] = field(default_factory=list)
    runs: list[float] = field(default_factory=list)
    batches: dict[int, list[float]] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    film: dict[str, list[float]] = field(default_factory=dict)
    host: float | None = None
    host_largest: float | None = None
    device: float | None = None
    energy: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""


@dataclass
class Lane:
    """A candidate whose model is open."""

    candidate: Candidate
    samples: Samples
    worker: Worker
    runs_per_turn: int = 1


@contextmanager
def opened(
    group: list[Candidate], samples: dict[str, Samples], absent: dict[str, str], used: Callable[[], float] | None
) -> Iterator[list[Lane]]:
    """Open the candidates of a group one after the other, and close them at the end.

    Args:
        group: of one engine and precision.
        samples: id -> what was measured before; those with a problem stay closed.
        absent: engines that are not installed -> why; added to.
        used: returns the GPU memory in use in MiB; None where it is not known.
    """
    lanes: list[Lane] = []
    try:
        for one in group:
            own = samples[one.id]
            if own.problem or one.backend in absent:
                continue
            before = used() if used and one.gpu else None
            try:
                worker = Worker(one.opener, one.arguments, one.model.shape)
            except Refused as refused:
                if refused.absent:
                    absent[one.backend] = str(refused)
                else:
                    own.problem = str(refused)
                continue
            lanes.append(Lane(one, own, worker))
            own.starts.append(worker.start)
            if used and before is not None:
                own.device = max(own.device or 0, used() - before)
        yield lanes
    finally:
        for lane in lanes:
            lane.worker.close()


def each(lanes: list[Lane], do: Callable[[Lane], None]) -> None:
    """Do something with each lane; one that fails keeps what it has, says why, and is left out from then on."""
    for lane in list(lanes):
        try:
            do(lane)
        except Refused as refused:
            lane.samples.problem = str(refused)
            lane.worker.close()
            lanes.remove(lane)


def warm_up(lane: Lane) -> None:
    """Run a model for the first times, which do not count, and see how often it runs in a turn."""
    once = min(lane.worker.time(1, 2, WARM))
    lane.runs_per_turn = max(3, min(MOST_RUNS, round(TURN_S / once)))


def take_turn(lane: Lane) -> None:
    """Time single images."""
    lane.samples.runs += lane.worker.time(1, lane.runs_per_turn, WARM)


def peak_memory(lane: Lane) -> None:
    """See how much memory the process needed for single images."""
    lane.samples.host = lane.worker.memory()


def batches(lane: Lane, largest: int, used: Callable[[], float] | None) -> None:
    """Time growing batches, as long as a run takes bearable time; and see how much memory the largest needed."""
    own = lane.samples
    per_image = min(own.runs)
    before = used() if used and lane.candidate.gpu else None
    for batch in sizes(largest):
        expected = per_image * batch
        if expected > LONGEST_BATCH_S:
            own.skipped[batch] = f"one run would take about {expected:.0f} s"
            break
        runs = max(2, min(20, round(BATCH_S / expected)))
        try:
            seconds = lane.worker.time(batch, runs, 1)
        except Refused as refused:  # an engine may take fewer at a time; a process that died says so next time
            own.skipped[batch] = str(refused)
            break
        own.batches.setdefault(batch, []).extend(seconds)
        per_image = min(seconds) / batch
    own.host_largest = lane.worker.memory()
    if used and before is not None:
        own.device = (own.device or 0) + max(0.0, used() - before)


def sizes(largest: int) -> list[int]:
    """Return the batches above 1 that are timed: powers of four, and the largest."""
    powers = [4**i for i in range(1, 9) if 4**i < largest]
    return [*powers, largest] if largest > 1 else []


def from_film(lane: Lane, film: Path) -> None:
    """Time the way from a file to an answer."""
    for stage, seconds in lane.worker.film(film, FILM_RUNS).items():
        lane.samples.film.setdefault(stage, []).extend(seconds)


def energy(lane: Lane, meter: Meter, seconds: float) -> None:
    """Count the energy of single images, and of the batch with the highest throughput."""
    own = lane.samples
    best = min(own.batches, key=lambda batch: min(own.batches[batch]) / batch, default=1)
    for batch in dict.fromkeys((1, best)):
        meter.start()
        try:
            images, past = lane.worker.busy(batch, seconds)
        finally:
            joules = meter.stop()
        own.energy.append(
            {
                "batch": batch,
                "images": images,
                "seconds": round(past, 3),
                "joules_per_image": round(joules / images, 6),
                "watts": round(joules / past, 3),
            }
        )
