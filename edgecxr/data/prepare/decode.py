"""Reads and resizes the images of a data set, each in a process that may end without harm to the others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgecxr.data.dataset import CxrDataset
from edgecxr.data.prepare.journal import Journal, Outcome
from edgecxr.errors import AGAIN, InputError
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import warnings_at
from edgecxr.films.resize import to_base
from edgecxr.workers.processes import Ended, Processes

TIME_LIMIT = 120.0
"""Seconds for one film: more than for a prediction, since an archive may be read from a busy server."""

_ENDED = {
    "crash": f"ended the process that read it: {AGAIN}",
    "killed": "was read when its process was killed, twice: is there too little memory? Give fewer --workers, with "
    "--retry where the set is finished",
    "too-slow": f"was not read within {{limit:g}} s: {AGAIN}, or raise --time-limit, with --retry where the set is "
    "finished",
}
"""What is said of a film whose process has ended."""

Decoded = tuple[Outcome, bytes | None]


@dataclass(frozen=True)
class Film:
    """An image that is to be decoded, for whichever process gets it.

    Attributes:
        index: in its data set.
        file: its file.
        read: returns it, or raises.
    """

    index: int
    file: Path
    read: Callable[[], Radiograph]

    def __str__(self) -> str:
        return str(self.file)


def decode_all(
    dataset: CxrDataset,
    journal: Journal,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    executor: str = "processes",
    strict: bool = False,
    time_limit: float = TIME_LIMIT,
) -> None:
    """Decode what the journal does not have yet.

    Args:
        dataset: its images.
        journal: made for this data set.
        workers: processes.
        progress: called with (images done, images in all).
        executor: "processes" of this machine, or "ray", a cluster that sees the same files.
        strict: stop at the first image that cannot be used.
        time_limit: seconds for one image.

    Raises:
        InputError: an image cannot be used, and `strict` is set; what was decoded before is kept.
        MissingPackage: Ray is not installed.
        EdgeCxrError: processes are killed one after the other, or cannot be started, or Ray's cluster fails.
    """
    todo = [index for index in range(len(dataset)) if index not in journal.outcomes]
    films = (Film(index, dataset.files[index], dataset.reader(index)) for index in todo)
    done = len(dataset) - len(todo)
    if progress:
        progress(done, len(dataset))
    # Closed at once when this is left by an exception, so that the processes end.
    with contextlib.closing(_decoded(films, journal.sizes, workers, executor, time_limit)) as results:
        for outcome, pixels in results:
            journal.add(outcome, pixels)
            done += 1
            if progress:
                progress(done, len(dataset))
            if strict and outcome.reason:
                journal.commit()
                raise InputError(
                    f"{outcome.message} (--strict stops here; without it such films are listed)", outcome.reason
                )
    journal.commit()


def _decoded(
    films: Iterable[Film], sizes: tuple[int, ...], workers: int, executor: str, time_limit: float
) -> Generator[Decoded, None, None]:
    if executor == "ray":
        from edgecxr.data.prepare.ray_executor import decoded

        yield from decoded(films, sizes, time_limit)
        return
    with Processes(workers, time_limit) as processes:
        yield from decode_in(processes, films, sizes, time_limit)


def decode_in(
    processes: Processes, films: Iterable[Film], sizes: tuple[int, ...], time_limit: float
) -> Generator[Decoded, None, None]:
    """Decode images in processes, in the order in which they get ready.

    Args:
        processes: with this `time_limit`.
        films: consumed as processes get free.
        sizes: sides of the images that are kept of each, in pixels.
        time_limit: seconds for one image, for the message.

    Raises:
        EdgeCxrError: processes are killed one after the other, or cannot be started.
    """
    for film, result in processes.run(partial(decode_one, sizes=sizes), films):
        if isinstance(result, Ended):
            reason = result.reason if result.reason == "too-slow" else "crash"
            said = _ENDED[result.reason].format(limit=time_limit)
            yield Outcome(film.index, reason, f"{film} {said}"), None
        else:
            yield result


def decode_one(film: Film, sizes: tuple[int, ...]) -> Decoded:
    """Decode one image in this process; whatever goes wrong with it is an outcome."""
    try:
        found = film.read()
        pixels = b"".join(to_base(found.pixels, size).tobytes() for size in sizes)
        # In `prepare`, the objections of the quality gate only warn.
        said = (*(objection.message for objection in found.objections), *warnings_at(found, max(sizes)))
        return Outcome(film.index, warnings=said, shape=found.shape), pixels
    except InputError as error:
        return Outcome(film.index, error.reason, str(error)), None
    except Exception as error:  # a decoder's fault in one file must not end hours of work on the others
        first = (str(error).strip().splitlines() or ["no details"])[0]
        return Outcome(film.index, "undecodable", f"{film}: {type(error).__name__}: {first}"), None
