"""What the command line says on standard error: plain lines and progress. Standard output is for results."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[..., None]
"""(done, total, note="")."""

_SECONDS_BETWEEN_LINES = 15


def say(text: str) -> None:
    """Print one line on standard error."""
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
    if sys.stderr.isatty():
        with _bar(task) as update:
            yield update
    else:
        yield _lines(task)


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


def _lines(task: str) -> Progress:
    started = last = time.monotonic()
    first: int | None = None

    def update(done: int, total: int, note: str = "") -> None:
        nonlocal last, first
        first = done if first is None else first  # a resumed task starts with some of it done
        now = time.monotonic()
        if done < total and now - last < _SECONDS_BETWEEN_LINES:
            return
        last = now
        left = (now - started) / max(1, done - first) * (total - done)
        say(
            f"{task}: {done}/{total}"
            + (f", about {left:.0f} s left" if done < total else "")
            + (f", {note}" if note else "")
        )

    return update
