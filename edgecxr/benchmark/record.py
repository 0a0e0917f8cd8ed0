"""Benchmark records: JSON files, checked against record.schema.json.

They are checked whenever they are read or written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.errors import InputError, brief
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.json_values import parse_json, read_json
from edgecxr.storage.reading import BadFile

NAME = "edgecxr-benchmark"
VERSION = 1
"""Raised when a key changes its meaning or is removed."""

FEWEST_RUNS = {"p50": 1, "p90": 10, "p95": 20, "p99": 100}
"""Percentile -> least number of runs; with fewer it would just be the slowest run, and is None."""

Record = dict[str, Any]

_LARGEST_FILE = 8 << 20
_LARGEST, _SMALLEST = 1 << 53, 1e-12
"""Bounds of plausible figures but 0; sums and ratios of numbers beyond them may overflow."""

_LONGEST, _LONGEST_NAME = 10_000, 300
_MOST_AREAS = 20_000
"""Findings of rows that can be drawn in reasonable time."""


def percentiles(seconds: Sequence[float]) -> dict[str, Any]:
    """Return the latency statistics of a record.

    Args:
        seconds: of each run.

    Returns:
        "p50", "p90", "p95" and "p99" in milliseconds, each None if there are too few runs; "min" and "mean" in
        milliseconds; and the number of "runs".
    """
    values = 1000 * np.asarray(seconds)
    quantiles = {
        name: round(float(np.quantile(values, int(name[1:]) / 100)), 4) if len(values) >= fewest else None
        for name, fewest in FEWEST_RUNS.items()
    }
    return quantiles | {
        "min": round(float(values.min()), 4),
        "mean": round(float(values.mean()), 4),
        "runs": len(values),
    }


def write(record: Record, path: Path) -> None:
    """Write a record.

    Raises:
        InputError: the record violates the schema, which is a bug of the program that made it.
        UsageError: the file cannot be written.
    """
    check(record, str(path))
    atomic_write(path, json.dumps(record, indent=1) + "\n", "give another file with --out")


def read(path: Path) -> Record:
    """Read a record.

    Raises:
        InputError: the file is missing, no record, or a record of another version; reason "not-found" or "malformed".
    """
    try:
        record = read_json(path, _LARGEST_FILE, finite=False)  # `check` names the field
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} is not there: give a record that `edgecxr benchmark` wrote", "not-found") from error
    except (OSError, BadFile) as error:
        raise InputError(f"{path} is no record of a benchmark ({brief(error)}): give another", "malformed") from error
    check(record, str(path))
    return record


def check(record: Any, source: str) -> None:
    """Reject anything but a record of this version.

    Args:
        record: parsed JSON.
        source: its file, for messages.

    Raises:
        InputError: reason "malformed".
    """
    if not isinstance(record, dict) or record.get("schema") != NAME:
        raise InputError(f"{source} is no record of `edgecxr benchmark`: give another file", "malformed")
    version = record.get("version")
    if type(version) is not int or version != VERSION:
        newer = type(version) is int and version > VERSION
        remedy = "upgrade edgecxr" if newer else "measure again"
        raise InputError(
            f"{source} is a record of version {brief(version, 40)}, and this edgecxr reads {VERSION}: {remedy}",
            "malformed",
        )
    validate, broken = _schema()
    try:
        validate(record)
    except broken as error:
        problem = brief(str(error).removeprefix("data."))
        raise InputError(f"{source} is a damaged record ({problem}): measure again", "malformed") from error
    if problem := next(_problems(record), ""):
        raise InputError(f"{source} is a damaged record ({brief(problem)}): measure again", "malformed")


@cache
def _schema() -> tuple[Callable[[Any], Any], type[Exception]]:
    """Return the function that checks a record, and its exception."""
    import fastjsonschema

    schema = parse_json(files("edgecxr.benchmark").joinpath("record.schema.json").read_text(encoding="utf-8"))
    return fastjsonschema.compile(schema), fastjsonschema.JsonSchemaException


def _problems(record: Record) -> Iterator[str]:
    """Yield what a schema cannot say, with the name of the field."""
    yield from _odd_values(record)
    rows, data = record["rows"], record["data"]
    if sum(len(row.get("auroc", {}).get("labels", ())) for row in rows) > _MOST_AREAS:
        yield f"rows have more than {_MOST_AREAS} AUROCs of findings"
    try:
        datetime.fromisoformat(record["created"])
    except ValueError:
        yield f"created is {brief(record['created'], 40)}, which is no time"
    ids = set()
    for number, row in enumerate(rows):
        if row["model"] not in record["models"]:
            yield f"rows[{number}].model: no model {row['model']}"
        if row["id"] in ids:
            yield f"rows[{number}].id is {row['id']}, as of an earlier row"
        ids.add(row["id"])
        if "auroc" in row and data is None:
            yield f"rows[{number}].auroc is given, but data is null"
    for name, model in record["models"].items():
        if model["trained_on_other_data"] and data is None:
            yield f"models.{name}.trained_on_other_data is true, but data is null"


def _odd_values(record: Record) -> Iterator[str]:
    """Yield the numbers and texts that are out of all bounds."""
    waiting: list[tuple[str, Any]] = [("", record)]
    while waiting:  # a loop, since they may be nested deeply
        where, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{where}.{key}".lstrip("."), item) for key, item in value.items()]
            yield from (f"{where} has a name of {len(key)} characters" for key in value if len(key) > _LONGEST_NAME)
        elif isinstance(value, list):
            waiting += [(f"{where}[{place}]", item) for place, item in enumerate(value)]
        elif isinstance(value, str):
            if len(value) > _LONGEST:
                yield f"{where} has {len(value)} characters"
        # NaN fails every comparison.
        elif isinstance(value, int | float) and value and not _SMALLEST <= abs(value) <= _LARGEST:
            yield f"{where} is {brief(value, 40)}, which is no figure of a benchmark"


def measured(record: Record) -> list[dict[str, Any]]:
    """Return the rows with a latency."""
    return [row for row in record["rows"] if row["status"] == "ok"]
