"""What the command line says on standard error: plain lines and progress. Standard output is for results."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[..., None]
"""(done, total, note="")."""

_SECONDS_BETWEEN_LINES = 15


def speaks() -> bool:
    """Whether this process speaks for all: of several that train together, the first one does."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Print one line on standard error; only one of several processes that train together does."""
    if speaks():
        print(text, file=sys.stderr, flush=True)


def printable(text: str, encoding: str | None = "utf-8") -> str:
    """Return `text` with everything escaped that a terminal could not show, or would obey as a command.

    File names may hold line breaks, escape sequences and bytes that are no characters.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown.encode(encoding or "ascii", "backslashreplace").decode(encoding or "ascii")


@contextmanager
def progress(task: str) -> Iterator[Progress]:
    """Show how far a long task is: a bar on a terminal, a line now and then in a log.

    Args:
        task: what is being done, such as "train".
    """
    if sys.stderr.isatty() and speaks():
        with _bar(task) as update:
            yield update
    else:
        lines = _Lines(task)
        try:
            yield lines.update
        finally:
            lines.end()


def with_rate(update: Progress, what: str) -> Progress:
    """Return `update` so that it also says how many of `what` are done in a second, since it was first told of one."""
    began: list[tuple[float, int]] = []

    def counted(done: int, total: int) -> None:
        now = time.monotonic()
        if not began:
            began.append((now, done))  # a resumed task starts with some of it done
        past, first = now - began[0][0], began[0][1]
        update(done, total, f"{(done - first) / past:.1f} {what}/s" if past > 1 else "")

    return counted


@contextmanager
def _bar(task: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        row = bar.add_task(task, total=None, note="")

        def update(done: int, total: int, note: str = "") -> None:
            bar.update(row, completed=done, total=total, note=note)

        yield update


class _Lines:
    """Progress in a log. The line of the last step waits for the end: its note may still change."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._started = self._last = time.monotonic()
        self._first: int | None = None
        self._waiting = ""

    def update(self, done: int, total: int, note: str = "") -> None:
        remark = f", {note}" if note else ""
        if self._first is None:
            self._first = done  # a resumed task starts with some of it done
        if done >= total:
            self._waiting = f"{self._task}: {done}/{total}{remark}"
            return
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        left = (now - self._started) / max(1, done - self._first) * (total - done)
        say(f"{self._task}: {done}/{total}, about {left:.0f} s left{remark}")

    def end(self) -> None:
        if self._waiting:
            say(self._waiting)
