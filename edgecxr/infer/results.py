"""Predictions for programs (one JSON object per line) and for people (a table, or plain lines)."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TextIO

from edgecxr import NOTICE
from edgecxr.bundle.gate import GateResult
from edgecxr.infer.prediction import Prediction, Rejection
from edgecxr.terminal import printable

Result = Prediction | Rejection

MARK = "*"
LEGEND = f"{MARK} at or above the operating point"

SCHEMA = 1
"""Version of the JSON lines, which `result.schema.json` describes: goes up when a program would have to change."""

_TABLE_WIDTH = 80
_ABNORMAL_WIDTH = 9
_TOP = 3


def to_json(result: Result, attention: bool = False) -> str:
    """Return one line of ASCII JSON.

    Probabilities and thresholds are not rounded, so that who compares them comes to the decision that was made.
    Names that are not valid UTF-8 keep their bytes as lone surrogate escapes, which `os.fsencode` turns back.

    Args:
        result: what became of one file.
        attention: include the (g, g) attention map as nested lists.
    """
    if isinstance(result, Rejection):
        return json.dumps({
            "source": result.source,
            "status": "rejected",
            "schema": SCHEMA,
            "reason": result.reason,
            "message": result.message,
            "model": result.model,
            "precision": result.precision,
            "gate": None if result.gate is None else _gate(result.gate),
            "notice": NOTICE,
        }, allow_nan=False)  # fmt: skip
    decided = {
        name: {"probability": p, "threshold": result.thresholds[name], "decision": result.decisions[name]}
        for name, p in (*result.findings.items(), ("abnormal", result.abnormal))
    }
    record: dict[str, Any] = {
        "source": result.source,
        "status": "ok",
        "schema": SCHEMA,
        "model": result.model,
        "precision": result.precision,
        "operating_point": result.operating_point,
        "abnormal": decided.pop("abnormal"),
        "findings": decided,
        "timings_ms": {name: round(ms, 3) for name, ms in result.timings_ms.items()},
        "gate": _gate(result.gate),
        "warnings": list(result.warnings),
        "notice": NOTICE,
    }
    if attention:
        record["attention"] = [[round(float(value), 6) for value in row] for row in result.attention]
    return json.dumps(record, allow_nan=False)


def _gate(gate: GateResult) -> dict[str, Any]:
    return {
        "verdict": gate.verdict,
        "distance": gate.distance,
        "threshold": gate.threshold,
        "objections": [{"reason": each.reason, "message": each.message} for each in gate.objections],
    }


def top_findings(prediction: Prediction, count: int = _TOP) -> list[tuple[str, float, bool]]:
    """Return (label, probability, decision): all that were decided positive, then the likeliest up to `count`."""
    rows = [(label, p, prediction.decisions[label]) for label, p in prediction.findings.items()]
    rows.sort(key=lambda row: (not row[2], -row[1]))
    return rows[: max(count, sum(positive for _, _, positive in rows))]


def print_results(results: Iterable[Result], stream: TextIO | None = None, common: Sequence[str] = ()) -> None:
    """Print results for people as they come: rows of a table on a terminal of 80 columns or more, else plain lines.

    After the last result, or when an error or Ctrl-C ends them, come the thresholds and the notice, once.

    Args:
        results: predictions and rejections, as they come.
        stream: where to print; standard output by default.
        common: warnings that every prediction has; they are printed once, before the first result.
    """
    stream = sys.stdout if stream is None else stream
    wide = stream.isatty() and shutil.get_terminal_size().columns >= _TABLE_WIDTH
    write = _table(stream) if wide else _lines(stream)
    legend, shown = "", False
    try:
        for warning in common:
            write(f"warning: {warning}")
        for result in results:
            if isinstance(result, Prediction):
                legend = legend or _legend(result)
                result = replace(result, warnings=tuple(w for w in result.warnings if w not in common))
            write(result)
            stream.flush()
            shown = True
    finally:
        if shown:
            for line in filter(None, (legend, NOTICE)):
                write(line)


def _lines(stream: TextIO) -> Callable[[Result | str], None]:
    """Return what prints plain lines."""

    def write(result: Result | str) -> None:
        if isinstance(result, str):
            lines = [result]
        elif isinstance(result, Rejection):
            lines = [result.source, f"  rejected ({result.reason}): {result.message}"]
        else:
            findings = ", ".join(_marked(*row) for row in top_findings(result))
            lines = [result.source]
            lines += [f"  {_marked('abnormal', result.abnormal, result.decisions['abnormal'])} | {findings}"]
            lines += [f"  warning: {warning}" for warning in result.warnings]
        for line in lines:
            print(printable(line, stream.encoding), file=stream)

    return write


def _table(stream: TextIO) -> Callable[[Result | str], None]:
    """Return what prints the rows of a table whose widths are those of the terminal, not those of rows to come."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream)
    film = console.width // 3
    begun = False

    def cell(text: str, style: str = "") -> Text:
        # A Text, not a str: rich would read [brackets] in a file's name as markup.
        return Text(printable(text, stream.encoding), style=style)

    def show(*cells: Text) -> None:
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(width=film, overflow="fold")
        table.add_column(width=_ABNORMAL_WIDTH, no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row(*cells)
        console.print(table)

    def write(result: Result | str) -> None:
        nonlocal begun
        if isinstance(result, str):
            style = "yellow" if result.startswith("warning: ") else "bold" if result == NOTICE else ""
            console.print(cell(result, style), soft_wrap=True)
            return
        if not begun:
            begun = True
            show(*(cell(head, "bold") for head in ("film", "abnormal", "findings")))
        if isinstance(result, Rejection):
            show(cell(result.source), cell("rejected", "red"), cell(f"{result.reason}: {result.message}"))
            return
        findings = Text(", ").join(cell(_marked(*row), "bold yellow" if row[2] else "") for row in top_findings(result))
        abnormal = result.decisions["abnormal"]
        show(
            cell(result.source),
            cell(_marked("", result.abnormal, abnormal), "bold yellow" if abnormal else ""),
            findings,
        )
        for warning in result.warnings:
            console.print(cell(f"  warning: {warning}", "yellow"), soft_wrap=True)

    return write


def _legend(prediction: Prediction) -> str:
    rule = f"{prediction.operating_point} operating point" if prediction.operating_point else "threshold"
    thresholds = {"abnormal": prediction.thresholds["abnormal"]} | prediction.thresholds
    listed = ", ".join(f"{name} {_short(value)}" for name, value in thresholds.items())
    return f"{MARK} at or above the {rule} of {prediction.model}: {listed}"


def _marked(name: str, probability: float, positive: bool) -> str:
    return f"{name} {_short(probability)}{' ' + MARK if positive else ''}".strip()


def _short(probability: float) -> str:
    # The threshold of a rare finding may be far below a hundredth.
    return f"{probability:.2f}" if probability >= 0.01 or probability < 1e-6 else f"{probability:.1g}"
