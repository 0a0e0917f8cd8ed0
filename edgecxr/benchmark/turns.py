"""The models of one engine and precision, each open in a process of its own, measured in turns."""

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

# A turn is short enough for all models to see the same conditions, and long enough for clocks and caches to be those of
# a model at work.
TURNS, TURN_S, FEWEST_RUNS, WARM = 12, 0.25, 3, 2
BATCH_S, LONGEST_BATCH_S = 0.4, 10.0
FILM_RUNS = 3

LATENCY = "latency"
"""The stage without which there is nothing to report."""


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
        device: GPU memory that the process took to start.
        device_largest: the same with the largest batch.
        energy: one dictionary for each batch.
        engine: the file that the engine made of the model file.
        problems: stage -> why it has no more than this, one line.
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
    """Open the candidates of a group one after the other, and close them at the end.

    Args:
        group: of one engine and precision.
        samples: id -> what was measured before; what could not be opened is not tried again.
        absent: engines that are not installed -> why; added to.
        used: returns the GPU memory in use in MiB; None where it is not known.
        room: whether there is memory for one more.

    Yields:
        The lanes, and the candidates for which there was no room.
    """
    lanes: list[Lane] = []
    left = list(group)
    try:
        while left and (not lanes or room()):
            one = left.pop(0)
            own = samples[one.id]
            if (own.problems and not own.runs) or one.backend in absent:
                continue
            before = used() if used and one.gpu else None
            try:
                worker = Worker(one.opener, one.arguments, one.model.shape)
            except Refused as refused:
                if refused.absent:
                    absent[one.backend] = str(refused)
                else:
                    own.problems["start"] = str(refused)
                continue
            lanes.append(Lane(one, own, worker))
            own.starts.append(worker.start)
            own.engine = worker.engine
            if used and before is not None:
                lanes[-1].device = max(0.0, used() - before)
                own.device = max(own.device or 0.0, lanes[-1].device)
        yield lanes, left
    finally:
        for lane in lanes:
            lane.worker.close()


def each(lanes: list[Lane], stage: str, do: Callable[[Lane], None]) -> None:
    """Do something with each lane; one that fails keeps what it has and says why.

    It is left out from then on where it has died, or has no latency.
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
    """Run a model for the first times, which do not count, and see how often it runs in a turn."""
    once = min(lane.worker.time(1, 2, WARM))
    lane.runs_per_turn = max(FEWEST_RUNS, round(TURN_S / once))


def take_turns(lanes: list[Lane]) -> None:
    """Time single images, each lane in turn; who is first changes from turn to turn."""
    each(lanes, LATENCY, warm_up)
    for turn in range(TURNS):
        first = turn % max(1, len(lanes))
        order = lanes[first:] + lanes[:first]
        each(order, LATENCY, take_turn)
        lanes[:] = [lane for lane in lanes if lane in order]


def take_turn(lane: Lane) -> None:
    """Time single images."""
    lane.samples.runs += lane.worker.time(1, lane.runs_per_turn, WARM)


def peak_memory(lane: Lane) -> None:
    """See how much memory the process needed for single images."""
    lane.samples.host = lane.worker.memory() or lane.samples.host


def batches(lane: Lane, largest: int, used: Callable[[], float] | None) -> None:
    """Time growing batches, as long as a run takes bearable time; and see how much memory the largest needed.

    A batch that failed, or ended the process, is not tried again.
    """
    own = lane.samples
    per_image = min(own.runs)
    before = used() if used and lane.candidate.gpu else None
    for batch in sizes(largest):
        if batch in own.skipped:
            break
        expected = per_image * batch
        if expected > LONGEST_BATCH_S:
            own.skipped[batch] = f"one run would take about {expected:.0f} s"
            break
        runs = max(2, min(20, round(BATCH_S / expected)))
        try:
            seconds = lane.worker.time(batch, runs, 1)
        except Refused as refused:
            own.skipped[batch] = str(refused)
            if not lane.worker.alive:
                raise Refused(f"batch {batch}: {refused}") from refused
            break
        own.batches.setdefault(batch, []).extend(seconds)
        per_image = min(seconds) / batch
    own.host_largest = lane.worker.memory() or own.host_largest
    if used and before is not None and lane.device is not None:
        own.device_largest = max(own.device_largest or 0.0, lane.device + max(0.0, used() - before))


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
        images, past, joules = _metered(lane, meter, batch, seconds)
        own.energy.append(
            {
                "batch": batch,
                "images": images,
                "seconds": round(past, 3),
                "joules_per_image": round(joules / images, 6),
                "watts": round(joules / past, 3),
            }
        )


def _metered(lane: Lane, meter: Meter, batch: int, seconds: float) -> tuple[int, float, float]:
    try:
        meter.start()
        images, past = lane.worker.busy(batch, seconds)
        return images, past, meter.stop()
    except Refused:
        with suppress(Exception):
            meter.stop()
        raise
    except Exception as error:  # a sensor that cannot be read, by whatever library
        raise Refused(f"the meter failed ({brief(error)})") from error
