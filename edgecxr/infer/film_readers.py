"""Processes that read films, each of which can be killed and replaced: what a file does to one harms nothing else.

A template process is forked before engines and their threads exist. It loads the readers of films while this process
loads the model, and forks the workers, now and whenever one has died. Workers answer by JSON and pixels, which are
checked on arrival. That contains crashes and excess, not an attacker: a worker has the rights of its user.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import math
import os
import resource
import select
import selectors
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

from edgecxr.errors import AGAIN, GATE_REASONS, REASONS, EdgeCxrError, InputError, brief
from edgecxr.films.header import HEADERS, checked_header, read_header
from edgecxr.films.radiograph import FilmRead, Objection
from edgecxr.films.read import read_film
from edgecxr.infer.prediction import Rejection

TIME_LIMIT = 30.0
"""Seconds for one file. The slowest decoders need some two for a film of 3000 x 3000 pixels on a small board."""

MEMORY_MIB = 1024
"""What reading one file may add to a worker's memory; a film of the largest size that is taken needs 800."""

AHEAD = 2
"""Films for each worker that may lie waiting to be looked at, beside those of one batch."""

FILMS_PER_WORKER = 200
"""After so many a worker is replaced: decoders lose memory now and then."""

_REQUEST = struct.Struct(">IH?B")  # length of the name, size, display, which of `_KINDS`
_KINDS = (None, *HEADERS)
_ANSWER = struct.Struct(">II")  # length of the JSON, and of the pixels
_LARGEST_TEXT, _LARGEST_DISPLAY = 256 << 10, 1024  # bytes, pixels of a side
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


Read = FilmRead | Rejection


class Readers:
    """Workers that read films; used as a context manager, by one thread.

    Open it before anything that starts threads.

    Args:
        count: of workers.
        time_limit: seconds for one file.
        memory_mib: that reading one file may take.
    """

    def __init__(self, count: int, time_limit: float = TIME_LIMIT, memory_mib: int = MEMORY_MIB) -> None:
        self._count, self._time_limit = count, time_limit
        self._workers: list[_Worker] = []
        self._control, theirs = socket.socketpair()
        try:
            self._template = _fork()
        except OSError as error:
            raise _cannot_start(error) from error
        if not self._template:
            _run_and_exit(lambda: _serve_template(self._control, theirs, memory_mib))
        theirs.close()

    def read(
        self, paths: Iterable[Path], size: int, display: bool = False, most: int = 1, header: str | None = None
    ) -> Iterator[list[Read]]:
        """Read files and yield what became of them, in order; a few are read ahead.

        Args:
            paths: consumed as workers get free.
            size: of the images, 224 or 448.
            display: whether pictures will be drawn.
            most: how many of those that are ready are yielded at a time; nobody waits for them.
            header: a key of `edgecxr.films.header.HEADERS`, where films need one.

        Raises:
            EdgeCxrError: no worker can be started any more.
        """
        source = iter(paths)
        following = next(source, None)
        in_flight: deque[_Job] = deque()
        try:
            while True:
                room = self._count * (1 + AHEAD) + most
                while following is not None and len(in_flight) < room and (worker := self._free()) is not None:
                    in_flight.append(_Job(following, size, display, header))
                    worker.begin(in_flight[-1], time.monotonic() + self._time_limit)
                    following = next(source, None)
                if not in_flight:
                    return
                if in_flight[0].result is None:
                    self._wait()
                    continue  # whoever is free now gets the next file before anything else is done
                ready: list[Read] = []
                while in_flight and len(ready) < most and (result := in_flight[0].result) is not None:
                    in_flight.popleft()
                    ready.append(result)
                yield ready
        finally:
            for worker in [worker for worker in self._workers if worker.job is not None]:
                self._lose(worker)  # whoever asked has gone

    def close(self) -> None:
        """End the workers."""
        for worker in list(self._workers):
            self._lose(worker)
        self._control.close()
        with contextlib.suppress(OSError):
            os.kill(self._template, signal.SIGKILL)
            os.waitpid(self._template, 0)

    def __enter__(self) -> Readers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _free(self) -> _Worker | None:
        """Return a worker without a job, started if need be; None where all are at work."""
        for worker in self._workers:
            if worker.job is None:
                return worker
        if len(self._workers) == self._count:
            return None
        try:
            self._control.sendall(b"+")
            message, descriptors, _, _ = socket.recv_fds(self._control, 4, 1)
        except OSError as error:
            raise _cannot_start(error) from error
        if not message:
            raise EdgeCxrError("the process that starts readers of films has ended: type the same again")
        if not descriptors:  # no process can be started just now: those that there are go on
            if not self._workers:
                raise _cannot_start(OSError(int.from_bytes(message, "big"), os.strerror(message[-1])))
            return None
        self._workers.append(_Worker(int.from_bytes(message, "big"), socket.socket(fileno=descriptors[0])))
        return self._workers[-1]

    def _wait(self) -> None:
        """Wait until a worker has answered, has died or is overdue, and note what became of its file."""
        busy = [worker for worker in self._workers if worker.job is not None]
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.channel, selectors.EVENT_READ, worker)
            soonest = min(worker.deadline for worker in busy)
            ready = {key.data for key, _ in selector.select(max(0.0, soonest - time.monotonic()))}
        for worker in busy:
            job = worker.job
            assert job is not None
            if worker in ready:
                try:
                    job.result = worker.answer()
                except Exception:  # a broken worker may send anything
                    self._lose(worker)
                    job.result = _rejected(job.path, "crash", "ended the process that read it")
                    continue
                # One that has come to its limit of memory, or has read many films, may have lost some of it.
                if worker.films == FILMS_PER_WORKER or getattr(job.result, "reason", "") == "too-large":
                    self._lose(worker)
            elif worker.deadline <= time.monotonic() and not select.select([worker.channel], [], [], 0)[0]:
                self._lose(worker)
                limit = f"was not read within {self._time_limit:g} s: raise --time-limit, or"
                job.result = Rejection(str(job.path), "too-slow", f"{job.path} {limit} {AGAIN}")

    def _lose(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.kill()


@dataclass
class _Job:
    """A file, how it is wanted, and what became of it."""

    path: Path
    size: int
    display: bool
    header: str | None
    result: Read | None = None


class _Worker:
    """A process that reads one film at a time.

    Attributes:
        channel: to it.
        job: what it works on.
        deadline: when its file is overdue.
        films: how many it has answered.
    """

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self._pid, self.channel = pid, channel
        self.job: _Job | None = None
        self.deadline = 0.0
        self.films = 0

    def begin(self, job: _Job, deadline: float) -> None:
        """Give it a file; if it has died, that shows when it is to answer."""
        self.job, self.deadline = job, deadline
        name = os.fsencode(job.path)
        self.channel.settimeout(max(0.1, deadline - time.monotonic()))
        with contextlib.suppress(OSError):
            self.channel.sendall(_REQUEST.pack(len(name), job.size, job.display, _KINDS.index(job.header)) + name)

    def answer(self) -> Read:
        """Return its answer, which has begun to come; it is free then.

        Raises:
            Exception: it has died, does not answer in time, or answers what no worker would.
        """
        job = self.job
        assert job is not None
        texts, pixels = _ANSWER.unpack(self._exactly(_ANSWER.size))
        area = job.size * job.size
        if texts > _LARGEST_TEXT or pixels > area + _LARGEST_DISPLAY**2:
            raise ValueError("an answer of that size")
        said = json.loads(self._exactly(texts))
        content = np.frombuffer(self._exactly(pixels), np.uint8)
        self.job = None
        self.films += 1
        if "reason" in said:
            if said["reason"] not in REASONS:
                raise ValueError("an unknown reason")
            return Rejection(str(job.path), said["reason"], str(said["message"]))
        rows, columns = said["display"] or (0, 0)
        if bool(rows) is not job.display or not (0 <= rows <= _LARGEST_DISPLAY and 0 <= columns <= _LARGEST_DISPLAY):
            raise ValueError("another picture than was asked for")
        timings = {stage: float(said["timings_ms"][stage]) for stage in ("read", "preprocess")}
        if not all(map(math.isfinite, timings.values())) or said["view"] not in (None, "PA", "AP", "LL"):
            raise ValueError("no time, or no view")
        objections = tuple(Objection(str(reason), str(message)) for reason, message in said["objections"])
        if not {objection.reason for objection in objections} <= set(GATE_REASONS):
            raise ValueError("an unknown reason")
        return FilmRead(
            str(job.path),
            content[:area].reshape(job.size, job.size),
            said["view"],
            tuple(map(str, said["warnings"])),
            timings,
            content[area:].reshape(rows, columns) if job.display else None,
            None if job.header is None else checked_header(said["header"], job.header),
            objections,
        )

    def _exactly(self, count: int) -> bytes:
        """Return so many bytes of an answer, all of them before the deadline."""
        parts = bytearray()
        while len(parts) < count:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.channel.settimeout(left)
            part = self.channel.recv(min(count - len(parts), 1 << 20))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    def kill(self) -> None:
        """End it, whatever it does."""
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
        self.channel.close()


def _rejected(path: Path, reason: str, what: str) -> Rejection:
    return Rejection(str(path), reason, f"{path} {what}: {AGAIN}")


def _cannot_start(error: OSError) -> EdgeCxrError:
    return EdgeCxrError(
        f"no process can be started to read films ({brief(error)}): close other programs, or give fewer --workers"
    )


def _fork() -> int:
    """Fork; the child does not hear of Ctrl-C, which goes to all of a terminal's processes: the parent answers it.

    Raises:
        OSError: the system has no room for a process.
    """
    import warnings

    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    child = True
    try:
        with warnings.catch_warnings():
            # Newer Pythons warn of threads: numpy's, which mind forks. The child runs nothing of this process.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        child = not pid
        return pid
    finally:
        if child:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def _run_and_exit(work: Callable[[], None]) -> NoReturn:
    """Run the whole life of a forked process: it must not come back to what the parent was doing."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def _serve_template(others: socket.socket, control: socket.socket, memory_mib: int) -> None:
    others.close()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a worker ended
    # Results go to standard output, and decoders print what they like.
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    # What every worker needs is loaded once; what is missing is said by the worker that needs it.
    with contextlib.suppress(Exception):
        importlib.import_module("edgecxr.films.dicom")
    while control.recv(1):
        ours, theirs = socket.socketpair()
        try:
            pid = _fork()
        except OSError as error:
            ours.close()
            theirs.close()
            control.sendall((error.errno or 0).to_bytes(4, "big"))
            continue
        if not pid:
            control.close()
            ours.close()
            _run_and_exit(lambda channel=theirs: _work(channel, memory_mib))  # type: ignore[misc]
        theirs.close()
        socket.send_fds(control, [pid.to_bytes(4, "big")], [ours.fileno()])
        ours.close()


def _work(channel: socket.socket, memory_mib: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = used + (memory_mib << 20)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # where memory runs out, this is the process to end
        Path("/proc/self/oom_score_adj").write_text("1000")
    while head := channel.recv(_REQUEST.size, socket.MSG_WAITALL):
        length, size, display, kind = _REQUEST.unpack(head)
        name = channel.recv(length, socket.MSG_WAITALL)
        said, pixels = _answer(Path(os.fsdecode(name)), size, display, _KINDS[kind], memory_mib)
        text = json.dumps(said).encode()
        channel.sendall(_ANSWER.pack(len(text), len(pixels)) + text + pixels)


def _answer(path: Path, size: int, display: bool, header: str | None, memory_mib: int) -> tuple[dict[str, Any], bytes]:
    too_large = {"reason": "too-large", "message": f"{path} needs more than {memory_mib} MiB of memory: {AGAIN}"}
    try:
        film = read_film(path, size, display)
        attributes = None if header is None else read_header(path, header)
    except MemoryError:
        return too_large, b""
    except InputError as error:
        return too_large if error.reason == "too-large" else {"reason": error.reason, "message": str(error)}, b""
    except EdgeCxrError as error:  # a package is missing, for nothing but this kind of file
        return {"reason": "undecodable", "message": f"{path}: {error}"}, b""
    except Exception as error:
        what = f"{type(error).__name__}, {brief(error)}"
        return {"reason": "undecodable", "message": f"{path} cannot be read ({what}): {AGAIN}"}, b""
    shown = film.display
    said = {
        "view": film.view,
        "warnings": film.warnings,
        "objections": [[objection.reason, objection.message] for objection in film.objections],
        "timings_ms": film.timings_ms,
        "display": None if shown is None else shown.shape,
        "header": attributes,
    }
    return said, film.image.tobytes() + (b"" if shown is None else shown.tobytes())
