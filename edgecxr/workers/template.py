"""The template process, from which workers are forked.

It has no threads, has loaded the workers' modules, and ends with its parent. It is either forked from a parent that has
no threads yet, or is a new Python with its parent's import path. Only this module forks processes and ties them to
their parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import edgecxr.errors
from edgecxr.errors import EdgeCxrError, brief
from edgecxr.terminal import guarded
from edgecxr.workers.channel import Channel, packed
from edgecxr.workers.confine import confine
from edgecxr.workers.conversation import failed_message, ready_message
from edgecxr.workers.new_python import command, environment

_REQUEST = struct.Struct(">cI")  # action and process id
_START, _STATUS, _KILL = b"+", b"?", b"!"
_ANSWER = struct.Struct(">i")
_UNKNOWN = 1 << 16  # outside the range of exit codes

_ANSWER_LIMIT = 60.0
"""Seconds in which a template must start or end a worker."""

_DYING = 1.0
"""Seconds to wait for a killed worker; one blocked on a disk ends only when the disk answers."""


@dataclass(frozen=True)
class Life:
    """Settings that a template passes to its workers.

    Attributes:
        work: a pickled function that turns an item into a JSON value and bytes.
        memory_mib: greatest growth of a worker's memory by an item, MiB; None is no limit.
        preload: modules that a template loads; a missing one is reported by the worker that needs it.
        confined: whether workers give up their rights before they see an item.
    """

    work: bytes
    memory_mib: int | None = None
    preload: tuple[str, ...] = ()
    confined: bool = False


class TemplateGone(Exception):
    """A template has ended, and its workers with it."""


class Template:
    """A handle of the process from which workers are forked.

    Args:
        life: settings of its workers.
        fork: start it by a fork, which is fast but safe only if this process has started no threads.

    Raises:
        OSError: the system has no room for a process.
    """

    def __init__(self, life: Life, fork: bool) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._pid = _fork() if fork else _spawn(theirs.fileno())
            if not self._pid:
                self._control.close()
                _run_and_exit(partial(_serve, theirs))
        self._control.settimeout(_ANSWER_LIMIT)
        with contextlib.suppress(OSError):  # the first request will raise
            Channel(self._control).send(packed(None, pickle.dumps(life)), _ANSWER_LIMIT)

    def start_worker(self) -> tuple[int, socket.socket]:
        """Start a worker; return its process id and the connection to it.

        Raises:
            TemplateGone: this template has ended.
            OSError: the system has no room for a process.
        """
        try:
            self._control.sendall(_REQUEST.pack(_START, 0))
            message, descriptors, _, _ = socket.recv_fds(self._control, _ANSWER.size, 1)
        except OSError as error:
            raise TemplateGone from error
        if len(message) != _ANSWER.size:
            raise TemplateGone
        (number,) = _ANSWER.unpack(message)
        if not descriptors:
            raise OSError(number, os.strerror(number))
        return number, socket.socket(fileno=descriptors[0])

    def end(self, pid: int, kill: bool) -> int | None:
        """Wait for a worker to end, or kill it first.

        Returns:
            Its exit code, or minus the number of the signal that ended it; None if unknown.
        """
        try:
            self._control.sendall(_REQUEST.pack(_KILL if kill else _STATUS, pid))
            message = self._control.recv(_ANSWER.size, socket.MSG_WAITALL)
        except OSError:
            return None
        if len(message) != _ANSWER.size:
            return None
        (code,) = _ANSWER.unpack(message)
        return None if code == _UNKNOWN else int(code)

    def close(self) -> None:
        """End the template process and all its workers."""
        self._control.close()
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.waitpid(self._pid, 0)


def end_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Send this process a signal when the thread that started it ends.

    This works only on Linux; elsewhere it does nothing.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, by)


def serve_descriptor() -> NoReturn:
    """Run a template that was started as a new Python.

    Its argument is the number of its descriptor.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    _run_and_exit(partial(_serve, control))


def _fork() -> int:
    """Fork this process; the child ignores Ctrl-C.

    A terminal sends Ctrl-C to all its processes; the parent handles it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    child = True
    try:
        with warnings.catch_warnings():
            # Newer Pythons warn of threads. These are numpy's, which are fork-safe, and the child does not use them.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        child = not pid
        return pid
    finally:
        if child:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _spawn(descriptor: int) -> int:
    """Start a new Python with one descriptor of this process.

    Ctrl-C is blocked in it until it ignores Ctrl-C.
    """
    os.set_inheritable(descriptor, True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    program = command("edgecxr.workers.template:serve_descriptor", str(descriptor))
    return os.posix_spawn(program[0], program, environment(), setsigmask=before | {signal.SIGINT})


def _run_and_exit(life: Callable[[], None]) -> NoReturn:
    """Run a forked process to its end.

    It must not return into the code that its parent was running.
    """
    gc.freeze()  # finalizing a parent's object here could wait forever for threads that exist only in the parent
    try:
        life()
    except BaseException:
        os._exit(1)
    os._exit(0)


def _serve(control: socket.socket) -> None:
    """Start and end workers until the parent ends."""
    with guarded():
        _serve_requests(control)


def _serve_requests(control: socket.socket) -> None:
    _, data = Channel(control).receive()
    life: Life = pickle.loads(data)
    control.settimeout(None)
    # Standard output is for results only, but decoders may print anything.
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 0)
    os.dup2(devnull, 1)
    for module in life.preload:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    with contextlib.suppress(Exception):  # loads the modules of the work once for all workers
        pickle.loads(life.work)
    while len(request := control.recv(_REQUEST.size, socket.MSG_WAITALL)) == _REQUEST.size:
        action, pid = _REQUEST.unpack(request)
        if action != _START:
            control.sendall(_ANSWER.pack(_end(pid, action == _KILL)))
            continue
        ours, theirs = socket.socketpair()
        try:
            pid = _fork()
        except OSError as error:
            control.sendall(_ANSWER.pack(error.errno or 0))
        else:
            if not pid:
                control.close()
                ours.close()
                _run_and_exit(partial(_work, Channel(theirs), life))
            socket.send_fds(control, [_ANSWER.pack(pid)], [ours.fileno()])
        ours.close()
        theirs.close()


def _end(pid: int, kill: bool) -> int:
    """Return the exit code of a worker, `_UNKNOWN` if there is none.

    The worker is killed at once if `kill`, and otherwise if it does not end within `_DYING` seconds.
    """
    until = time.monotonic() + _DYING
    try:
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if kill:
                os.kill(pid, signal.SIGKILL)
            late = time.monotonic() > until
            if late and kill:
                return _UNKNOWN
            kill, until = (True, time.monotonic() + _DYING) if late else (kill, until)
            time.sleep(0.001)
    except ChildProcessError:  # the worker belongs to an earlier template
        return _UNKNOWN


def _work(channel: Channel, life: Life) -> None:
    """Run a worker: process items from a channel until the parent ends."""
    end_with_parent()
    if life.memory_mib is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = used + (life.memory_mib << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # if memory runs out, the kernel should kill this process first
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        work = pickle.loads(life.work)
    except Exception as error:
        channel.send(failed_message(_described(error)))
        return
    if life.confined:
        _let_go(channel.fileno())
        confine()
    channel.send(ready_message())
    while True:
        try:
            number, item = channel.receive()
        except (EOFError, OSError):
            return
        channel.send(_answer(number, work, item))


def _let_go(kept: int) -> None:
    """Replace all descriptors but one by /dev/null.

    They stay open, since objects of the parent may close them yet, and their numbers must not come to mean others.
    """
    devnull = os.open(os.devnull, os.O_RDWR)
    with contextlib.suppress(FileNotFoundError):  # only Linux lists them
        for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
            with contextlib.suppress(OSError):  # that of the list itself is closed by now
                if descriptor not in (kept, devnull) and os.fstat(descriptor):
                    os.dup2(devnull, descriptor)


def _answer(number: int, work: Callable[[Any], tuple[Any, bytes]], item: bytes) -> bytes:
    try:
        value, data = work(pickle.loads(item))
        return packed([number, "done", value], data)
    except MemoryError:
        return packed([number, "memory", None])
    except Exception as error:
        return packed([number, "error", _described(error)])


def _described(error: Exception) -> tuple[str, list[Any]]:
    """Return an error as plain values, the arguments of `raised`."""
    plain = isinstance(error, EdgeCxrError) and all(isinstance(value, str | None) for value in error.args)
    name = type(error).__name__
    return (name, list(error.args)) if plain else ("EdgeCxrError", [f"{name}: {brief(error)}"])


def raised(name: str, arguments: list[str | None]) -> EdgeCxrError:
    """Return the error that a worker described."""
    kind = getattr(edgecxr.errors, name, None)
    if isinstance(kind, type) and issubclass(kind, EdgeCxrError):
        with contextlib.suppress(Exception):
            return kind(*arguments)
    return EdgeCxrError(brief(arguments))
