"""Processes that read films, each of which can be killed and replaced: what a file does to one harms nothing else.

A template process is forked before engines and their threads exist. It loads the readers of films while this process
loads the model, and forks the workers, now and whenever one has died. Workers answer by JSON and pixels: nothing that
they send is executed here, whatever a file may have made of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
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

from edgecxr.errors import AGAIN, REASONS, EdgeCxrError, InputError, MissingPackage, brief
from edgecxr.runtime.dicom_header import HEADERS, checked_header, read_header
from edgecxr.runtime.read import FilmRead, read_film
from edgecxr.runtime.types import Rejection

TIME_LIMIT = 30.0
"""Seconds for one file. The slowest decoders need some two for a film of 3000 x 3000 pixels on a small board."""

MEMORY_MIB = 1024
"""What reading one file may add to a worker's memory; a film of the largest size that is taken needs 800."""

AHEAD = 2
"""Films that each worker may be ahead of what is asked for: bounds what lies waiting."""

_REQUEST = struct.Struct(">IH?B")  # length of the name, size, display, which of `_KINDS`
_KINDS = (None, *HEADERS)
_ANSWER = struct.Struct(">II")  # length of the JSON, and of the pixels
_LARGEST_ANSWER = 64 << 20
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
        if not _fork():
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
            header: a key of `edgecxr.runtime.dicom_header.HEADERS`, where films need one.

        Raises:
            EdgeCxrError: no worker can be started any more.
        """
        source = iter(paths)
        in_flight: deque[_Job] = deque()
        try:
            while True:
                while len(in_flight) < self._count * (1 + AHEAD) + most and (worker := self._free()) is not None:
                    path = next(source, None)
                    if path is None:
                        break
                    in_flight.append(_Job(path, size, display, header))
                    worker.begin(in_flight[-1], time.monotonic() + self._time_limit)
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
        self._control.close()  # the template ends by itself

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
            raise EdgeCxrError(f"no process can be started to read films ({brief(error)}): type it again") from error
        if not descriptors:
            raise EdgeCxrError("the process that starts readers of films was killed: type the same again")
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
                except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, struct.error):
                    self._lose(worker)
                    job.result = _rejected(job.path, "crash", "ended the process that read it")
            elif worker.deadline <= time.monotonic():
                self._lose(worker)
                job.result = _rejected(job.path, "too-slow", f"was not read within {self._time_limit:g} s")

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
    """

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self._pid, self.channel = pid, channel
        self.job: _Job | None = None
        self.deadline = 0.0

    def begin(self, job: _Job, deadline: float) -> None:
        """Give it a file; if it has died, that shows when it is to answer."""
        self.job, self.deadline = job, deadline
        name = os.fsencode(job.path)
        with contextlib.suppress(OSError):
            self.channel.sendall(_REQUEST.pack(len(name), job.size, job.display, _KINDS.index(job.header)) + name)

    def answer(self) -> Read:
        """Return its answer, which has begun to come; it is free then.

        Raises:
            OSError: it does not answer in time.
            ValueError, KeyError, TypeError, AttributeError: it answers what no worker would.
            EOFError: it has died.
        """
        job = self.job
        assert job is not None
        self.channel.settimeout(max(0.1, self.deadline - time.monotonic()))
        texts, pixels = _ANSWER.unpack(_exactly(self.channel, _ANSWER.size))
        if texts + pixels > _LARGEST_ANSWER:
            raise ValueError("an answer of that size")
        said = json.loads(_exactly(self.channel, texts))
        content = np.frombuffer(_exactly(self.channel, pixels), np.uint8)
        self.channel.settimeout(None)
        self.job = None
        if "reason" in said:
            if said["reason"] not in REASONS:
                raise ValueError("an unknown reason")
            return Rejection(str(job.path), said["reason"], str(said["message"]))
        shown, area = said["display"], job.size * job.size
        return FilmRead(
            str(job.path),
            content[:area].reshape(job.size, job.size),
            said["view"],
            tuple(map(str, said["warnings"])),
            {str(stage): float(ms) for stage, ms in said["timings_ms"].items()},
            content[area:].reshape(shown) if shown else None,
            None if job.header is None else checked_header(said["header"], job.header),
        )

    def kill(self) -> None:
        """End it, whatever it does."""
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
        self.channel.close()


def _rejected(path: Path, reason: str, what: str) -> Rejection:
    return Rejection(str(path), reason, f"{path} {what}: {AGAIN}")


def _exactly(channel: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = channel.recv(min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _fork() -> int:
    import warnings

    with warnings.catch_warnings():
        # Newer Pythons warn of threads: numpy's, which mind forks. The child runs nothing of this process.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _run_and_exit(work: Callable[[], None]) -> NoReturn:
    """Run the whole life of a forked process: it must not come back to what the parent was doing."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent answers it
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def _serve_template(others: socket.socket, control: socket.socket, memory_mib: int) -> None:
    others.close()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a worker ended
    # What every worker needs is loaded once; what is missing is said by the worker that needs it.
    with contextlib.suppress(Exception):
        importlib.import_module("edgecxr.runtime.dicom")
    while control.recv(1):
        ours, theirs = socket.socketpair()
        pid = _fork()
        if not pid:
            control.close()
            ours.close()
            _run_and_exit(lambda channel=theirs: _work(channel, memory_mib))  # type: ignore[misc]
        theirs.close()
        socket.send_fds(control, [pid.to_bytes(4, "big")], [ours.fileno()])
        ours.close()


def _work(channel: socket.socket, memory_mib: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = used + (memory_mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            length, size, display, kind = _REQUEST.unpack(_exactly(channel, _REQUEST.size))
            name = _exactly(channel, length)
        except (EOFError, OSError):
            return
        said, pixels = _answer(Path(os.fsdecode(name)), size, display, _KINDS[kind], memory_mib)
        text = json.dumps(said).encode()
        channel.sendall(_ANSWER.pack(len(text), len(pixels)) + text + pixels)


def _answer(path: Path, size: int, display: bool, header: str | None, memory_mib: int) -> tuple[dict[str, Any], bytes]:
    try:
        film = read_film(path, size, display)
        attributes = None if header is None else read_header(path, header)
    except MemoryError:
        return {"reason": "too-large", "message": f"{path} needs more than {memory_mib} MiB: {AGAIN}"}, b""
    except InputError as error:
        return {"reason": error.reason, "message": str(error)}, b""
    except MissingPackage as error:  # of nothing but this kind of file
        return {"reason": "undecodable", "message": f"{path}: {error}"}, b""
    shown = film.display
    said = {
        "view": film.view,
        "warnings": film.warnings,
        "timings_ms": film.timings_ms,
        "display": None if shown is None else shown.shape,
        "header": attributes,
    }
    return said, film.image.tobytes() + (b"" if shown is None else shown.tobytes())
