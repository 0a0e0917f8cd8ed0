"""An end for engines that do not come back.

An engine computes in C, where neither Ctrl-C nor a limit of Python's reaches it. Only the command line asks for this
(`arm`): a program that uses edgecxr as a library is never ended.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NoReturn

from edgecxr.errors import ModelError

LOADING = 120.0
"""Seconds in which a CPU has loaded any model."""

RUNNING = 60.0
PER_IMAGE = 30.0
"""Seconds in which a CPU has run a batch: `RUNNING`, and this for each image."""

BUILDING = 3600.0
"""Seconds for a GPU, whose engine may compile itself at the first run."""

GRACE = 2.0
"""Seconds after Ctrl-C in which an engine may still come back."""

MOST_BYTES = 8 << 30
"""Memory that no model of edgecxr takes."""

_SHARE = 0.9  # of the memory that is free at the start
_EVERY = 0.05
_INTERRUPTED = 130

_armed = False


def arm() -> None:
    """Let `watched` end this process, which belongs to the command line."""
    global _armed
    _armed = True


def watched_run(path: Path, images: int, largest: int, slow: bool = False) -> AbstractContextManager[None]:
    """Watch a run, unless one of its size has come back before.

    Args:
        path: the model's file.
        images: in the batch.
        largest: number of images in the largest batch that has come back.
        slow: whether the engine may compile itself meanwhile.
    """
    if images <= largest:
        return nullcontext()
    return watched(path, BUILDING if slow else RUNNING + PER_IMAGE * images)


@contextmanager
def watched(path: Path, seconds: float) -> Iterator[None]:
    """End the process if the block neither returns nor can be interrupted.

    The process ends with one line: with the exit code of a bad model if the block takes longer or more memory than any
    model needs, and as interrupted if it does not come back soon after Ctrl-C.

    Args:
        path: the model's file, for the line.
        seconds: limit of the block.
    """
    if not _armed:
        yield
        return
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = None
    with suppress(ValueError):  # only the main thread hears signals
        before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(path, seconds, read, over), name="watchdog", daemon=True)
    try:
        thread.start()
        yield
    finally:
        over.set()
        if before is not None:
            signal.set_wakeup_fd(before)
        os.write(write, b"\0")  # wakes the thread
        thread.join()
        os.close(read)
        os.close(write)


def _watch(path: Path, seconds: float, signals: int, over: threading.Event) -> None:
    start, interrupted = time.monotonic(), None
    first = most = 0  # looked up when the block is not short
    while True:
        ready, _, _ = select.select([signals], [], [], _EVERY)
        if over.is_set():
            return
        now = time.monotonic()
        if not most:
            first, most = _resident(), min(MOST_BYTES, _available())
        if ready and signal.SIGINT in os.read(signals, 4096):
            interrupted = interrupted or now
        if interrupted is not None and now - interrupted > GRACE:
            _end("interrupted", _INTERRUPTED)
        if now - start > seconds:
            _refuse(f"{path} has not come back after {seconds:.0f} s")
        if _resident() - first > most:
            _refuse(f"{path} takes more than {most / 1e9:.1f} GB of memory")


def _refuse(problem: str) -> NoReturn:
    remedy = "do not use this model, or if it is yours, try another backend or fewer images"
    _end(f"error: {problem}, and was ended: {remedy}", ModelError.exit_code)


def _end(line: str, code: int) -> NoReturn:
    from edgecxr.terminal import printable, say

    with suppress(Exception):
        sys.stdout.flush()
        say(printable(line))
    os._exit(code)  # the engine holds the main thread


def _resident() -> int:
    """Return the bytes of memory that this process holds."""
    from edgecxr.machine.system import text_of

    return int(text_of(Path("/proc/self/statm")).split()[1]) * os.sysconf("SC_PAGESIZE")


def _available() -> int:
    from edgecxr.machine.memory import memory

    try:
        return int(memory().available_bytes * _SHARE)
    except (KeyError, ValueError):
        return MOST_BYTES
