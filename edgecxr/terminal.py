"""Everything that is printed: results, messages, progress.

Standard output is for results, standard error for messages. No other module prints, because what is printed may hold
text of strangers: names of files, headers of films, cards, records. It must move no cursor and pass for no other line.
"""

from __future__ import annotations

import itertools
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from edgecxr.launcher import number_of_several

Progress = Callable[..., None]
"""Called as update(done, total, note="")."""

Spans = Sequence[tuple[str, str]]
"""Pieces of text, each with a style of rich."""

_SECONDS_BETWEEN_LINES = 15
_MOST_DIGITS = 7

# Letters and marks without ink, which `str.isprintable` lets pass: fillers, joiners and variation selectors.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")

_quiet = False


def beside(value: float, threshold: float, reached: bool) -> str:
    """Return a value beside its threshold, such as "0.62 >= 0.30".

    There are as many digits as it takes to see which one is larger; `reached` is whether the value is not below.
    """
    for digits in range(2, _MOST_DIGITS + 1):
        left, right = f"{value:.{digits}f}", f"{threshold:.{digits}f}"
        if value == threshold or (left != right and (float(right) > 0 or threshold == 0)):
            break
    return f"{left} {'>=' if reached else '<'} {right}"


@contextmanager
def quieted(quiet: bool) -> Iterator[None]:
    """Leave out messages and progress during the block, not errors, if `quiet`."""
    global _quiet
    before, _quiet = _quiet, quiet
    try:
        yield
    finally:
        _quiet = before


def speaks() -> bool:
    """Return whether this process prints messages.

    Of several processes that train together, only the first does.
    """
    return not _quiet and not number_of_several()


def say(text: str) -> None:
    """Print one line on standard error, unless the user wants none.

    Of several processes that train together, only the first prints it.
    """
    if speaks():
        complain(text)


def complain(text: str) -> None:
    """Print one line on standard error, whichever process this is.

    A full disk under a log costs its lines and not the work.

    Raises:
        BrokenPipeError: the reader has ended.
    """
    try:
        show(text, sys.stderr)
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:
        pass


def show(text: str, stream: TextIO | None = None) -> None:
    """Print one line, by default on standard output.

    Line breaks in it are escaped, too.
    """
    stream = sys.stdout if stream is None else stream
    print(printable(text, stream.encoding or "utf-8"), file=stream)


def show_text(text: str) -> None:
    """Print lines that `joined` has joined on standard output."""
    for line in text.split("\n"):
        show(line)


def show_json(text: str) -> None:
    """Print JSON in ASCII on standard output at once.

    The only control character that `json.dumps` leaves as it is, is DEL.
    """
    for line in text.replace("\x7f", "\\u007f").split("\n"):
        show(line)
    sys.stdout.flush()


def joined(lines: Iterable[str]) -> str:
    """Return a text of several lines, each of them `printable`."""
    return "\n".join(map(printable, lines))


def printable(text: str, encoding: str | None = "utf-8") -> str:
    """Return `text` with everything escaped that is unsafe on a terminal.

    That is what `encoding` cannot represent, what a terminal would obey as a command, and what cannot be seen or
    changes the order of what can: names may contain line breaks, escape sequences and bytes that are not valid text.
    """
    if not text.isprintable() or _INVISIBLE.search(text):
        hidden = (not c.isprintable() or _INVISIBLE.match(c) for c in text)
        text = "".join(
            c.encode("unicode_escape").decode() if escaped else c for c, escaped in zip(text, hidden, strict=True)
        )
    return text.encode(encoding or "ascii", "backslashreplace").decode(encoding or "ascii")


@contextmanager
def guarded() -> Iterator[None]:
    """Escape what libraries print from Python during the block.

    They may quote a file's text in warnings, logs and tracebacks. What native code prints does not come by here.
    """
    streams, form = (sys.stdout, sys.stderr), warnings.formatwarning
    sys.stdout, sys.stderr = _Guarded(sys.stdout), _Guarded(sys.stderr)
    warnings.formatwarning = _one_line
    try:
        yield
    finally:
        (sys.stdout, sys.stderr), warnings.formatwarning = streams, form


class _Guarded:
    """A stream whose text is escaped but for line breaks and tabs.

    A carriage return at the beginning stays, by which progress bars of libraries begin.
    """

    def __init__(self, stream: Any) -> None:
        self.raw = raw(stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def write(self, text: str) -> int:
        if not text.isprintable() or not text.isascii():
            start = "\r" if text.startswith("\r") else ""
            parts = re.split(r"([\n\t])", text[len(start) :])
            self.raw.write(start + "".join(part if part in ("\n", "\t") else printable(part) for part in parts))
        else:
            self.raw.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


def raw(stream: Any) -> Any:
    """Return the stream behind a guarded one."""
    return stream.raw if isinstance(stream, _Guarded) else stream


def show_traceback() -> None:
    """Print the traceback of the exception being handled on standard error."""
    for line in traceback.format_exc().removesuffix("\n").split("\n"):
        complain(line)


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"warning: {printable(str(message))} ({category.__name__})\n"


def aligned(rows: Iterable[Sequence[str]], right: bool = False) -> list[str]:
    """Return the lines of a table with aligned columns.

    Args:
        rows: rows of cells; some may have fewer cells than others.
        right: whether to align all columns but the first to the right.
    """
    rows = [list(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in itertools.zip_longest(*rows, fillvalue="")]
    return [
        "  ".join(
            f"{cell:{'>' if right and place else '<'}{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]


@contextmanager
def progress(task: str) -> Iterator[Progress]:
    """Show the progress of a long task.

    It is a bar on a terminal, and a line now and then in a log.

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


def with_rate(update: Progress, unit: str) -> Progress:
    """Return `update` with a rate in its note.

    The rate is the number of `unit` per second since the first call.
    """
    began: list[tuple[float, int]] = []

    def counted(done: int, total: int) -> None:
        now = time.monotonic()
        if not began:
            began.append((now, done))  # a resumed task starts with some of it done
        elapsed, first = now - began[0][0], began[0][1]
        update(done, total, f"{(done - first) / elapsed:.1f} {unit}/s" if elapsed > 1 else "")

    return counted


@contextmanager
def _bar(task: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=raw(sys.stderr), stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=max(3, min(24, console.width - 56))),  # the rest fits 57 columns
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left {task.fields[note]}", markup=False),
    )
    # Results that go to a file must not be drawn above the bar instead.
    with Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty()) as bar:
        row = bar.add_task(task, total=None, note="")

        def update(done: int, total: int, note: str = "") -> None:
            bar.update(row, completed=done, total=total, note=printable(note))

        yield update


class _Lines:
    """Progress as lines in a log.

    The last step's line is held back until the end, because its note may still change.
    """

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
        say(f"{self._task}: {done}/{total}, about {_duration(left)} left{remark}")

    def end(self) -> None:
        if self._waiting:
            say(self._waiting)


def _duration(seconds: float) -> str:
    """Return a time such as "48 s", "12 min" or "3.4 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


class Screen:
    """A terminal that shows coloured rows of a table and lines.

    Column widths depend on the terminal, since later rows are not known yet.

    Args:
        stream: the terminal.

    Attributes:
        width: its columns.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console, self._encoding = Console(file=raw(stream)), stream.encoding
        self.width = self._console.width

    def row(self, widths: Sequence[int | None], cells: Sequence[Spans]) -> None:
        """Print cells that are folded to widths; None takes what is left."""
        from rich.table import Table

        table = Table(box=None, show_header=False, pad_edge=False)
        for width in widths:
            table.add_column(width=width, overflow="fold")
        table.add_row(*map(self._text, cells))
        self._console.print(table)

    def line(self, *spans: tuple[str, str]) -> None:
        """Print one line, which the terminal may break."""
        self._console.print(self._text(spans), soft_wrap=True)

    def _text(self, spans: Spans) -> Any:
        from rich.text import Text

        # A Text, not a str: rich would read [brackets] in a file's name as markup.
        return Text.assemble(*((printable(text, self._encoding), style) for text, style in spans))
