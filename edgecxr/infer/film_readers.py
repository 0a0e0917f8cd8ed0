"""Read films in workers that can be killed and replaced.

A file that breaks its worker harms nothing else. Workers answer with JSON and pixels, which are checked on arrival.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edgecxr.errors import AGAIN, GATE_REASONS, REASONS, EdgeCxrError, InputError, brief
from edgecxr.films.find import holds_no_image
from edgecxr.films.header import checked_header, read_header
from edgecxr.films.radiograph import FilmRead, Objection
from edgecxr.films.read import read_film
from edgecxr.infer.prediction import Rejection
from edgecxr.vocabulary import RENDERINGS
from edgecxr.workers.cluster import check_seen
from edgecxr.workers.pool import Pool
from edgecxr.workers.work import AnyPool, Limits, Work, WorkerEnd

TIME_LIMIT = 30.0
"""Seconds for one file; the slowest decoders need about 2 for a film of 3000 x 3000 pixels on a small board."""

MEMORY_MIB = 1024
"""MiB that reading one file may add to a worker's memory; the largest accepted film needs 800."""

FILMS_PER_WORKER = 200
"""Films after which a worker is replaced, since decoders sometimes leak memory."""

_PRELOAD = ("edgecxr.workers.pydicom_without_requests", "edgecxr.films.dicom")
_LARGEST_DISPLAY = 1024  # pixels of a side
_LARGEST = 448**2 + _LARGEST_DISPLAY**2

Read = FilmRead | Rejection


@dataclass(frozen=True, eq=False)
class Request:
    """A file to read, and what to return of it.

    Attributes:
        path: of the file.
        size: side of the image, 224 or 448.
        display: whether a picture will be drawn.
        header: a key of `edgecxr.films.header.HEADERS`; None if no header is needed.
    """

    path: Path
    size: int
    display: bool = False
    header: str | None = None

    def __str__(self) -> str:
        return str(self.path)


class Readers:
    """A context manager of workers that read films.

    Only one thread may use it at a time.

    Args:
        count: number of workers.
        time_limit: seconds for one file.
        memory_mib: MiB that reading one file may use.
        executor: "processes" of this machine, or "ray", a cluster whose nodes see the same files.
        fork: start workers by a fork, which is quick but safe only before anything has started threads.
        tries: number of workers that a file may end until it is rejected.

    Raises:
        MissingPackage: Ray is not installed.
        EdgeCxrError: no process can be started, or the cluster cannot be reached.
    """

    def __init__(
        self,
        count: int,
        time_limit: float = TIME_LIMIT,
        memory_mib: int = MEMORY_MIB,
        executor: str = "processes",
        fork: bool = False,
        tries: int = 1,
    ) -> None:
        limits = Limits(time_limit, memory_mib, tries, renew_after=FILMS_PER_WORKER)

        def rejected(request: Request, ended: WorkerEnd) -> Read:
            path = request.path
            if ended.reason == "memory":
                needs = f"{path} needs more than {memory_mib} MiB of memory: {AGAIN}"
                return Rejection(str(path), "too-large", needs)
            if ended.reason == "too-slow":
                late = f"{path} was not read within {time_limit:g} s: raise --time-limit, or {AGAIN}"
                return Rejection(str(path), "too-slow", late)
            return Rejection(str(path), "crash", f"{path} ended the process that read it: {AGAIN}")

        work = Work(read_for, read_of, rejected, preload=_PRELOAD, largest=_LARGEST, confined=True)
        self._pool: AnyPool[Request, Read]
        if executor == "ray":
            from edgecxr.workers.ray_pool import RayPool

            self._pool = RayPool(work, limits)
        else:
            self._pool = Pool(work, count, limits, fork)
        self._elsewhere = executor == "ray"

    @property
    def window(self) -> int:
        """Number of outstanding files that keeps all workers busy."""
        return self._pool.window

    def submit(self, request: Request) -> None:
        """Queue a file."""
        self._pool.submit(request)

    def poll(self, seconds: float = 0.0) -> list[tuple[Request, Read]]:
        """Return newly finished files of `submit`, each with its result.

        Args:
            seconds: time to wait for the first result.

        Raises:
            EdgeCxrError: no worker can be started any more, or the cluster fails.
        """
        return self._pool.poll(seconds)

    def read(
        self, paths: Iterable[Path], size: int, display: bool = False, most: int = 1, header: str | None = None
    ) -> Iterator[list[Read]]:
        """Read files and yield their results in order.

        A few files are read ahead.

        Args:
            paths: consumed as workers become free.
            size: side of the images, 224 or 448.
            display: whether pictures will be drawn.
            most: the largest number of results in a yielded list; it has those that are ready, without waiting.
            header: a key of `edgecxr.films.header.HEADERS`; None if no headers are needed.

        Raises:
            EdgeCxrError: no worker can be started any more, or the cluster fails.
        """
        source = iter(paths)
        more = True
        typed: deque[Path] = deque()
        requests: deque[Request] = deque()
        done: dict[Request, Read] = {}
        room = self._pool.window + most
        try:
            while True:
                ready: list[Read] = []
                while requests and len(ready) < most and requests[0] in done:
                    ready.append(self._as_typed(typed.popleft(), done.pop(requests.popleft())))
                if ready:
                    yield ready
                    continue
                if more and len(requests) < room:
                    path = next(source, None)
                    more = path is not None
                    if path is not None:
                        # On a cluster's node a relative path may mean another place.
                        requests.append(Request(path.absolute() if self._elsewhere else path, size, display, header))
                        typed.append(path)
                        self._pool.submit(requests[-1])
                    done.update(self._pool.poll())
                    continue
                if not requests:
                    return
                done.update(self._pool.poll(math.inf))
        finally:
            self._pool.cancel()  # the caller may stop early

    def _as_typed(self, path: Path, read: Read) -> Read:
        """Return the result of a file under the path that was typed."""
        if not self._elsewhere:
            return read
        if isinstance(read, Rejection):
            check_seen(read.reason, path)
        return renamed(read, os.fspath(path.absolute()), str(path))

    def close(self) -> None:
        """End the workers."""
        self._pool.close()

    def __enter__(self) -> Readers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def renamed(read: Read, before: str, after: str) -> Read:
    """Return a result that calls its file by another name."""
    if isinstance(read, Rejection):
        return replace(read, source=after, message=read.message.replace(before, after))
    return replace(read, source=after, warnings=tuple(text.replace(before, after) for text in read.warnings))


def read_for(request: Request) -> tuple[dict[str, Any], bytes]:
    """Read a film in a worker.

    Returns:
        The film's data for JSON, and its pixels; or "reason" and "message", and no pixels.

    Raises:
        MemoryError: the film needs more memory than is allowed.
    """
    path = request.path
    try:
        film = read_film(path, request.size, request.display)
        header = None if request.header is None else read_header(path, request.header)
    except MemoryError:
        raise
    except InputError as error:
        if error.reason == "too-large":
            raise MemoryError from error
        no_image = error.reason == "no-pixels" and holds_no_image(path)
        refused = {"reason": error.reason, "message": str(error), "no_image": no_image}
        with suppress(Exception):  # a film whose pixels are lost may still say which it is
            refused["header"] = None if request.header is None else read_header(path, request.header)
        return refused, b""
    except EdgeCxrError as error:  # a package is missing that only this kind of file needs
        return {"reason": "undecodable", "message": f"{path}: {error}"}, b""
    except Exception as error:
        cause = f"{type(error).__name__}, {brief(error)}"
        return {"reason": "undecodable", "message": f"{path} cannot be read ({cause}): {AGAIN}"}, b""
    display = film.display
    answer = {
        "view": film.view,
        "warnings": film.warnings,
        "objections": [[objection.reason, objection.message] for objection in film.objections],
        "timings_ms": film.timings_ms,
        "display": None if display is None else display.shape,
        "header": header,
        "rendering": film.rendering,
    }
    return answer, film.image.tobytes() + (b"" if display is None else display.tobytes())


def read_of(request: Request, answer: Any, pixels: bytes) -> Read:
    """Return what a worker has read, after checking it.

    Args:
        request: for the film.
        answer: what `read_for` returned; a broken worker may send anything.
        pixels: those of the image, then those of the picture.

    Raises:
        Exception: the answer is not one of an intact worker.
    """
    source, area = str(request.path), request.size**2
    if "reason" in answer:
        if answer["reason"] not in REASONS:
            raise ValueError("an unknown reason")
        if pixels:
            raise ValueError("pixels of a film that was rejected")
        header = None if not answer.get("header") else checked_header(answer["header"], str(request.header))
        return Rejection(source, answer["reason"], str(answer["message"]), None, header, bool(answer.get("no_image")))
    rows, columns = answer["display"] or (0, 0)
    if bool(rows) is not request.display or not (0 <= rows <= _LARGEST_DISPLAY and 0 <= columns <= _LARGEST_DISPLAY):
        raise ValueError("another picture than was asked for")
    if len(pixels) != area + rows * columns:
        raise ValueError("another number of pixels")
    timings = {stage: float(answer["timings_ms"][stage]) for stage in ("read", "preprocess")}
    if not all(map(math.isfinite, timings.values())) or answer["view"] not in (None, "PA", "AP", "LL"):
        raise ValueError("no time, or no view")
    if answer["rendering"] not in (None, *RENDERINGS):
        raise ValueError("an unknown rendering")
    objections = tuple(Objection(str(reason), str(message)) for reason, message in answer["objections"])
    if not {objection.reason for objection in objections} <= set(GATE_REASONS):
        raise ValueError("an unknown reason")
    content = np.frombuffer(pixels, np.uint8)
    return FilmRead(
        source,
        content[:area].reshape(request.size, request.size),
        answer["view"],
        tuple(map(str, answer["warnings"])),
        timings,
        content[area:].reshape(rows, columns) if request.display else None,
        None if request.header is None else checked_header(answer["header"], request.header),
        objections,
        answer["rendering"],
    )
