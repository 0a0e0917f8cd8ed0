"""Decoding and resizing of images in worker processes.

A process that ends does not affect other images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgecxr.data.dataset import Dataset
from edgecxr.data.prepare.journal import Journal, Outcome
from edgecxr.errors import AGAIN, REASONS, InputError
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import warnings_at
from edgecxr.films.resize import to_base
from edgecxr.vocabulary import RENDERINGS
from edgecxr.workers.cluster import check_seen
from edgecxr.workers.pool import Pool
from edgecxr.workers.work import AnyPool, Limits, Work, WorkerEnd, run

TIME_LIMIT = 120.0
"""Seconds for one film; more than for a prediction, since an archive may be on a busy server."""

_ENDED = {
    "crash": f"ended the process that read it: {AGAIN}",
    "memory": f"needs more memory than there is: {AGAIN}",
    "killed": "was read when its process was killed, twice: is there too little memory? Give fewer --workers, with "
    "--retry where the set is finished",
    "too-slow": f"was not read within {{limit:g}} s: {AGAIN}, or raise --time-limit, with --retry where the set is "
    "finished",
}
"""Messages about films whose process ended."""

_REFUSED = "it is taken, but `edgecxr infer` refuses such films"

_PRELOAD = ("edgecxr.workers.pydicom_without_requests", "numpy", "pydicom.pixels", "PIL.Image")

Decoded = tuple[Outcome, bytes | None]


@dataclass(frozen=True)
class Film:
    """An image to be decoded by any worker process.

    Attributes:
        index: index of the image in its data set.
        file: its file.
        read: returns the image, or raises.
    """

    index: int
    file: Path
    read: Callable[[], Radiograph]

    def __str__(self) -> str:
        return str(self.file)


def decode_all(
    dataset: Dataset,
    journal: Journal,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    executor: str = "processes",
    strict: bool = False,
    time_limit: float = TIME_LIMIT,
) -> None:
    """Decode the images that the journal does not have yet.

    Args:
        dataset: the data set with the images.
        journal: journal of this data set.
        workers: number of processes.
        progress: called with (images done, images in all).
        executor: "processes" (on this machine) or "ray" (a cluster that sees the same files).
        strict: stop at the first image that cannot be used.
        time_limit: seconds for one image.

    Raises:
        InputError: an image cannot be used, and `strict` is set; images decoded before it are kept.
        MissingPackage: Ray is not installed.
        EdgeCxrError: processes are killed one after the other or cannot be started, or the Ray cluster fails.
    """
    todo = [index for index in range(len(dataset)) if index not in journal.outcomes]
    films = (Film(index, dataset.files[index], dataset.reader(index)) for index in todo)
    done = len(dataset) - len(todo)
    if progress:
        progress(done, len(dataset))
    with contextlib.closing(_pool(journal.sizes, workers, executor, time_limit)) as pool:
        for film, (outcome, pixels) in run(pool, films):
            if executor == "ray":
                check_seen(outcome.reason, film.file)
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


def _pool(sizes: tuple[int, ...], workers: int, executor: str, time_limit: float) -> AnyPool[Film, Decoded]:
    """Return a pool that decodes images to all `sizes`."""

    def ended(film: Film, ended: WorkerEnd) -> Decoded:
        reason = ended.reason if ended.reason == "too-slow" else "crash"
        return Outcome(film.index, reason, f"{film} {_ENDED[ended.reason].format(limit=time_limit)}"), None

    limits = Limits(time_limit, tries=2)
    expected = sum(size**2 for size in sizes)
    accept = partial(_decoded, expected=expected)
    work = Work(partial(decode_one, sizes=sizes), accept, ended, _PRELOAD, largest=expected, confined=True)
    if executor == "ray":
        from edgecxr.workers.ray_pool import RayPool

        return RayPool(work, limits)
    return Pool(work, workers, limits)


def _decoded(film: Film, reply: Any, pixels: bytes, expected: int) -> Decoded:
    """Return what a worker has decoded, after checking it.

    Args:
        film: the film.
        reply: what `decode_one` returned; a broken worker may send anything.
        pixels: those of all sizes.
        expected: their number.

    Raises:
        Exception: the answer is not one of an intact worker.
    """
    reason, message, warnings, shape, rendering = reply
    if reason:
        if reason not in REASONS or pixels:
            raise ValueError("an unknown reason, or pixels of a film that was rejected")
        return Outcome(film.index, reason, str(message)), None
    rows, columns = (int(side) for side in shape)
    if len(pixels) != expected or min(rows, columns) < 1:
        raise ValueError("another number of pixels")
    if rendering not in (None, *RENDERINGS):
        raise ValueError("an unknown rendering")
    return Outcome(film.index, "", "", tuple(map(str, warnings)), (rows, columns), rendering), pixels


def decode_one(film: Film, sizes: tuple[int, ...]) -> tuple[list[Any], bytes]:
    """Decode one image in a worker; errors become outcomes.

    Returns:
        [reason, message, warnings, (rows, columns), rendering] and the pixels of all `sizes`. Reason and message are
        empty unless the image is rejected; a rejected image has no warnings, None for the rest, and no pixels.
    """
    try:
        radiograph = film.read()
        pixels = b"".join(to_base(radiograph.held, size).tobytes() for size in sizes)
        # Whoever labelled the film may know better than its header, and --any-view wants laterals: warn only.
        objections = [f"{objection.message}; {_REFUSED}" for objection in radiograph.objections]
        warnings = [*objections, *warnings_at(radiograph, max(sizes))]
        return ["", "", warnings, radiograph.shape, radiograph.rendering], pixels
    except InputError as error:
        return [error.reason, str(error), [], None, None], b""
    except Exception as error:  # one bad file must not stop hours of work
        first = (str(error).strip().splitlines() or ["no details"])[0]
        return ["undecodable", f"{film}: {type(error).__name__}: {first}", [], None, None], b""
