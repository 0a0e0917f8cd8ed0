"""Results for people, as a table or plain lines.

A value stands beside its threshold: `0.62 >= 0.30`. Of many films, findings at or above their thresholds are listed,
in the order of the model's card, and the others are counted; of a film alone, all are listed. A question mark follows
the name of an output that is unreliable on test films. Warnings are counted and named once, at the end.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from edgecxr import NOTICE
from edgecxr.bundle.tested import marked
from edgecxr.infer.json_line import Result
from edgecxr.infer.prediction import NOT_TESTED, UNRELIABLE, Prediction, Rejection
from edgecxr.terminal import Screen, Spans, aligned, beside, show
from edgecxr.vocabulary import ABNORMAL, DOUBT

_TABLE_WIDTH = 80
_ABNORMAL_WIDTH = 14
_MOST_KINDS = 20  # of warnings at the end
_NAMED = 2  # films beside a warning
_NUMBER = re.compile(r"\d+(\.\d+)?")

_POSITIVE, _FAINT, _WARNING, _REFUSED = "bold yellow", "dim", "yellow", "bold red"


def compared(prediction: Prediction, name: str) -> str:
    """Return an output's value beside its threshold, such as "0.62 >= 0.30".

    There are as many digits as it takes to see which one is larger.
    """
    return beside(prediction.outputs[name], prediction.thresholds[name], prediction.decisions[name])


def notes_of(prediction: Prediction) -> list[str]:
    """Return what a reader needs to know of the model's decisions."""
    rule = prediction.operating_point
    chosen = f"chosen by the rule {rule}" if rule else "0.5, since its card has none"
    notes = [f"model {prediction.model} ({prediction.precision}); each value stands beside its threshold, {chosen}"]
    if any(prediction.unreliable(name) for name in prediction.outputs):
        notes.append(f"{DOUBT} {UNRELIABLE}")
    return notes if prediction.tested else [*notes, NOT_TESTED]


def new_warnings(result: Result, once: Collection[str], shown: set[str]) -> list[str]:
    """Return a result's warnings that are said once and have not been.

    Args:
        result: the result.
        once: warnings that are said once.
        shown: those said already; new ones are added.
    """
    warnings = result.warnings if isinstance(result, Prediction) else ()
    new = [warning for warning in warnings if warning in once and warning not in shown]
    shown.update(new)
    return new


@dataclass
class _Kind:
    """Warnings that differ in their numbers alone."""

    first: str
    count: int = 0
    same: bool = True
    films: list[str] = field(default_factory=list)


class _Warnings:
    """Warnings of films, counted by kind."""

    def __init__(self) -> None:
        self._films = 0
        self._kinds: dict[str, _Kind] = {}

    def add(self, prediction: Prediction) -> None:
        self._films += 1
        for warning in dict.fromkeys(prediction.warnings):
            kind = self._kinds.setdefault(_NUMBER.sub("0", warning), _Kind(warning))
            kind.count += 1
            kind.same &= warning == kind.first
            if len(kind.films) < _NAMED:
                kind.films.append(Path(prediction.source).name)

    def lines(self) -> list[str]:
        kinds = sorted(self._kinds.values(), key=lambda kind: -kind.count)
        lines = [f"warning: {self._where(kind)}{kind.first}" for kind in kinds[:_MOST_KINDS]]
        left = len(kinds) - _MOST_KINDS
        return lines if left <= 0 else [*lines, f"and {left} more kinds of warnings: --json has all of them"]

    def _where(self, kind: _Kind) -> str:
        if kind.count == self._films == 1:
            return ""
        more = f" and {kind.count - len(kind.films)} more" if kind.count > len(kind.films) else ""
        all_of = "all " if kind.count == self._films else ""
        named = "" if all_of else f" ({', '.join(kind.films)}{more})"
        first = "" if kind.same else ", of the first"
        return f"{all_of}{kind.count} film{'s' if kind.count > 1 else ''}{named}{first}: "


@contextmanager
def printed(stream: TextIO | None = None, alone: bool = False) -> Iterator[Callable[[Result], None]]:
    """Provide a function that prints a result for people.

    A terminal of 80 columns or more gets rows of a table, anything else plain lines. After the last result, or when an
    error or Ctrl-C ends them, follow the warnings, what the values mean, and the notice.

    Args:
        stream: where to print; standard output by default.
        alone: whether there is one film only, all of whose findings are listed.
    """
    stream = sys.stdout if stream is None else stream
    wide = stream.isatty() and shutil.get_terminal_size().columns >= _TABLE_WIDTH
    screen = Screen(stream) if stream.isatty() else None
    notes: list[str] = []
    warnings = _Warnings()
    shown = False

    def line(*spans: tuple[str, str]) -> None:
        if screen is None:
            show("".join(text for text, _ in spans), stream)
        else:
            screen.line(*spans)

    write = _table(screen) if screen and wide and not alone else _blocks(line, alone)

    def show_result(result: Result) -> None:
        nonlocal notes, shown
        if isinstance(result, Prediction):
            notes = notes or notes_of(result)
            warnings.add(result)
        write(result)
        stream.flush()
        shown = True

    try:
        yield show_result
    finally:
        if shown:
            for text in warnings.lines():
                line((text, _WARNING))
            for text in notes:
                line((text, _FAINT))
            line((NOTICE, "bold"))


def _blocks(line: Callable[..., None], alone: bool) -> Callable[[Result], None]:
    """Return a function that prints some lines for each film."""

    def write(result: Result) -> None:
        line((result.source, "bold"))
        if isinstance(result, Rejection):
            line(("  rejected ", _REFUSED), (f"({result.reason}): {_message(result)}", ""))
            return
        if refusal := refusal_of(result):
            line((f"  {refusal}", _REFUSED))
        if alone:
            values = {name: compared(result, name).replace(" < ", " <  ") for name in result.outputs}
            rows = aligned([[f"  {marked(name, result.unreliable(name))}", values[name]] for name in values])
            for name, row in zip(result.outputs, rows, strict=True):
                line((row, _POSITIVE if result.decisions[name] else ""))
        else:
            line(("  ", ""), *_output(result, ABNORMAL, True), (" | ", ""), *_listed(result))

    return write


def _table(screen: Screen) -> Callable[[Result], None]:
    """Return a function that prints rows of a table."""
    widths = (screen.width // 3, _ABNORMAL_WIDTH, None)
    begun = False

    def write(result: Result) -> None:
        nonlocal begun
        if not begun:
            begun = True
            heads = ("film", "abnormal", "findings at or above their thresholds")
            screen.row(widths, [[(head, "bold")] for head in heads])
        source: Spans = [(result.source, "")]
        if isinstance(result, Rejection):
            screen.row(widths, [source, [("rejected", _REFUSED)], [(f"{result.reason}: {_message(result)}", "")]])
            return
        findings = list(_listed(result))
        if refusal := refusal_of(result):
            findings = [(f"{refusal}; ", _REFUSED), *findings]
        screen.row(widths, [source, list(_output(result, ABNORMAL, False)), findings])

    return write


def _listed(prediction: Prediction) -> Iterator[tuple[str, str]]:
    """Yield the findings at or above their thresholds, and count the others."""
    positive = [name for name in prediction.findings if prediction.decisions[name]]
    for place, name in enumerate(positive):
        yield (", " if place else "", "")
        yield from _output(prediction, name, True)
    below = len(prediction.findings) - len(positive)
    if not positive:
        yield (f"none of {below}", _FAINT)
    elif below:
        yield (f"; {below} below", _FAINT)


def _output(prediction: Prediction, name: str, named: bool) -> Iterator[tuple[str, str]]:
    text = compared(prediction, name)
    unreliable = prediction.unreliable(name)
    yield (
        f"{marked(name, unreliable)} {text}" if named else marked(text, unreliable),
        _POSITIVE if prediction.decisions[name] else "",
    )


def refusal_of(prediction: Prediction) -> str:
    """Return the quality gate's objections to a predicted film, "" if none."""
    gate = prediction.gate
    reasons = ", ".join(objection.reason for objection in gate.objections)
    if gate.verdict == "forced":
        return f"refused by the quality gate ({reasons}), overruled by --force"
    return f"quality gate warns ({reasons})" if reasons else ""


def _message(rejection: Rejection) -> str:
    """Return why a film is rejected; its name stands beside."""
    return rejection.message.removeprefix(f"{rejection.source} ").removeprefix(f"{rejection.source}: ")
