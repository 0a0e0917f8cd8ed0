"""Predictions for programs (one JSON object per line) and for people (a table, or plain lines)."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from edgecxr import NOTICE
from edgecxr.console import printable
from edgecxr.runtime.types import Prediction, Rejection

Result = Prediction | Rejection

MARK = "*"
LEGEND = f"{MARK} at or above the operating point"

_TABLE_WIDTH = 80
_TOP = 3


def to_json(result: Result, attention: bool = False) -> str:
    """Return one line of ASCII JSON.

    Names that are not valid UTF-8 keep their bytes as lone surrogate escapes, which `os.fsencode` turns back.

    Args:
        result: what became of one file.
        attention: include the (g, g) attention map as nested lists.
    """
    if isinstance(result, Rejection):
        rejected = {"source": result.source, "status": "rejected", "reason": result.reason, "message": result.message}
        return json.dumps(rejected | {"notice": NOTICE})
    decided = {
        name: {"probability": round(p, 6), "decision": result.decisions[name]}
        for name, p in (*result.findings.items(), ("abnormal", result.abnormal))
    }
    record: dict[str, Any] = {
        "source": result.source,
        "status": "ok",
        "model": result.model,
        "abnormal": decided.pop("abnormal"),
        "findings": decided,
        "timings_ms": {name: round(ms, 3) for name, ms in result.timings_ms.items()},
        "warnings": list(result.warnings),
        "notice": NOTICE,
    }
    if attention:
        record["attention"] = [[round(float(value), 6) for value in row] for row in result.attention]
    return json.dumps(record, allow_nan=False)


def top_findings(prediction: Prediction, count: int = _TOP) -> list[tuple[str, float, bool]]:
    """Return (label, probability, decision): all that were decided positive, then the likeliest up to `count`."""
    rows = [(label, p, prediction.decisions[label]) for label, p in prediction.findings.items()]
    rows.sort(key=lambda row: (not row[2], -row[1]))
    return rows[: max(count, sum(positive for _, _, positive in rows))]


def print_results(results: Iterable[Result], stream: TextIO | None = None) -> None:
    """Print results for people, and the notice once.

    A terminal of 80 columns or more gets a table when all results are there; anything else gets plain lines as they
    come.

    Args:
        results: what `predict_files` yields.
        stream: where to print; standard output by default.
    """
    stream = sys.stdout if stream is None else stream
    if stream.isatty() and shutil.get_terminal_size().columns >= _TABLE_WIDTH:
        _print_table(list(results), stream)
    else:
        _print_plain(results, stream)


def _print_plain(results: Iterable[Result], stream: TextIO) -> None:
    for result in results:
        lines = [result.source]
        if isinstance(result, Rejection):
            lines += [f"  rejected ({result.reason}): {result.message}"]
        else:
            findings = ", ".join(_marked(*row) for row in top_findings(result))
            lines += [f"  {_marked('abnormal', result.abnormal, result.decisions['abnormal'])} | {findings}"]
            lines += [f"  warning: {warning}" for warning in result.warnings]
        for line in lines:
            print(printable(line, stream.encoding), file=stream)
        stream.flush()
    print(f"{LEGEND}\n{NOTICE}", file=stream)


def _print_table(results: list[Result], stream: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def cell(text: str, style: str = "") -> Text:
        # A Text, not a str: rich would read [brackets] in a file's name as markup.
        return Text(printable(text, stream.encoding), style=style)

    predictions = [result for result in results if isinstance(result, Prediction)]
    models = ", ".join(dict.fromkeys(prediction.model for prediction in predictions))
    table = Table(title=cell(models) if models else None, title_justify="left")
    table.add_column("film", overflow="fold")
    table.add_column("abnormal", no_wrap=True)
    table.add_column("findings", overflow="fold")
    for result in results:
        if isinstance(result, Rejection):
            table.add_row(cell(result.source), cell("rejected", "red"), cell(f"{result.reason}: {result.message}"))
            continue
        findings = Text(", ").join(cell(_marked(*row), "bold yellow" if row[2] else "") for row in top_findings(result))
        abnormal = result.decisions["abnormal"]
        table.add_row(
            cell(result.source),
            cell(_marked("", result.abnormal, abnormal), "bold yellow" if abnormal else ""),
            findings,
        )
    console = Console(file=stream)
    console.print(table)
    for line in _warning_lines(predictions):
        console.print(cell(line, "yellow"), soft_wrap=True)
    console.print(Text(LEGEND))
    console.print(Text(NOTICE, style="bold"))


def _warning_lines(predictions: list[Prediction]) -> list[str]:
    """Return each warning once where every film has it, and with the film's name where not."""
    shared = {
        warning
        for warning in dict.fromkeys(warning for prediction in predictions for warning in prediction.warnings)
        if all(warning in prediction.warnings for prediction in predictions)
    }
    common = [w for w in predictions[0].warnings if w in shared] if predictions else []
    own = [(p.source, w) for p in predictions for w in p.warnings if w not in shared]
    return [f"warning: {w}" for w in common] + [f"warning: {source}: {w}" for source, w in own]


def _marked(name: str, probability: float, positive: bool) -> str:
    return f"{name} {probability:.2f}{' ' + MARK if positive else ''}".strip()
