"""The record of a benchmark: one JSON file, checked against record.schema.json whenever it is read or written."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.errors import InputError, brief
from edgecxr.storage.atomic import atomic_write

NAME = "edgecxr-benchmark"
VERSION = 1
"""Goes up when a key changes its meaning or goes."""

FEWEST_RUNS = {"p50": 1, "p90": 10, "p95": 20, "p99": 100}
"""With fewer runs a percentile is no more than the largest of them, and is left out."""

Record = dict[str, Any]


def percentiles(seconds: Sequence[float]) -> dict[str, Any]:
    """Return p50, p90, p95 and p99 in milliseconds (None of too few runs), "min", "mean" and the number of "runs"."""
    values = 1000 * np.asarray(seconds)
    found = {
        name: round(float(np.quantile(values, int(name[1:]) / 100)), 4) if len(values) >= fewest else None
        for name, fewest in FEWEST_RUNS.items()
    }
    return found | {"min": round(float(values.min()), 4), "mean": round(float(values.mean()), 4), "runs": len(values)}


def write(record: Record, path: Path) -> None:
    """Write a record.

    Raises:
        InputError: it does not fit the schema, which is a defect of the program that made it.
        UsageError: the file cannot be written.
    """
    check(record, str(path))
    atomic_write(path, json.dumps(record, indent=1) + "\n", "give another file with --out")


def read(path: Path) -> Record:
    """Read a record.

    Raises:
        InputError: it is not one, or one of another version; reason "not-found" or "malformed".
    """
    if not os.path.isfile(path):
        raise InputError(f"{path} is not there: give a record that `edgecxr benchmark` wrote", "not-found")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no record of a benchmark ({error}): give another", "malformed") from error
    check(record, str(path))
    return record


def check(record: Any, source: str) -> None:
    """Refuse what is not a record of this version.

    Args:
        record: parsed JSON.
        source: where it came from, for messages.

    Raises:
        InputError: reason "malformed".
    """
    if not isinstance(record, dict) or record.get("schema") != NAME:
        raise InputError(f"{source} is no record of `edgecxr benchmark`: give another file", "malformed")
    version = record.get("version")
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        remedy = "upgrade edgecxr" if newer else "measure again"
        raise InputError(
            f"{source} is a record of version {version}, and this edgecxr reads {VERSION}: {remedy}", "malformed"
        )
    import fastjsonschema

    schema = json.loads(files("edgecxr.benchmark").joinpath("record.schema.json").read_text(encoding="utf-8"))
    try:
        fastjsonschema.validate(schema, record)
    except fastjsonschema.JsonSchemaException as error:
        raise InputError(f"{source} is a damaged record ({brief(error)}): measure again", "malformed") from error
    if strange := {row["model"] for row in record["rows"]} - set(record["models"]):
        raise InputError(f"{source} is a damaged record (no model {brief(min(strange))}): measure again", "malformed")


def measured(record: Record) -> list[dict[str, Any]]:
    """Return the rows that hold a latency."""
    return [row for row in record["rows"] if row["status"] == "ok"]
