"""One JSON object per film, meant for programs; `result.schema.json` describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from edgecxr import NOTICE, __version__
from edgecxr.bundle.gate import GateResult
from edgecxr.infer.prediction import Prediction, Rejection
from edgecxr.vocabulary import ABNORMAL

SCHEMA = 3
"""Version of the JSON lines; raised when programs have to change."""

_JOINED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

Result = Prediction | Rejection


@dataclass(frozen=True)
class ModelIdentity:
    """The model that a run asks, stated in each of its lines.

    Attributes:
        name: of the model.
        precision: of its file that runs.
        sha256: checksum of that file.
        operating_point: rule of the decisions; None if the card has none.
    """

    name: str
    precision: str
    sha256: str
    operating_point: str | None


def record_of(
    result: Result, model: ModelIdentity, attention: bool = False, outcome: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the object of one film.

    Probabilities and thresholds are not rounded, so that comparing them gives the decision that was made.

    Args:
        result: the result of the film.
        model: the model that was asked.
        attention: include the (g, g) attention map as nested lists.
        outcome: "film" (`uids_of`), "file" (`stamp_of`), "overlay" and "dicom", what was written; absent is null.
            "overlay_reason" if no picture could be drawn.
    """
    outcome = outcome or {}
    record: dict[str, Any] = {
        "source": result.source,
        "status": "ok" if isinstance(result, Prediction) else "rejected",
        "schema": SCHEMA,
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "edgecxr": __version__,
        "model": model.name,
        "model_sha256": model.sha256,
        "precision": model.precision,
        "operating_point": model.operating_point,
        "film": outcome.get("film"),
        "file": outcome.get("file"),
        "gate": None if result.gate is None else _gate(result.gate),
    }
    if isinstance(result, Rejection):
        nothing = {"overlay": None, "dicom": None}
        return record | {"reason": result.reason, "message": result.message, **nothing, "notice": NOTICE}
    decided = {
        name: {
            "probability": p,
            "threshold": result.thresholds[name],
            "decision": result.decisions[name],
            "unreliable": result.unreliable(name),
        }
        for name, p in (*result.findings.items(), (ABNORMAL, result.abnormal))
    }
    record |= {
        "abnormal": decided.pop(ABNORMAL),
        "findings": decided,
        "timings_ms": {name: round(ms, 3) for name, ms in result.timings_ms.items()},
        "warnings": list(result.warnings),
        "codes": list(result.codes),
        "overlay": outcome.get("overlay"),
        "dicom": outcome.get("dicom"),
        "notice": NOTICE,
    }
    if "overlay_reason" in outcome:
        record["overlay_reason"] = outcome["overlay_reason"]
    if attention:
        record["attention"] = [[round(float(value), 6) for value in row] for row in result.attention]
    return record


def to_json(record: Mapping[str, Any]) -> str:
    """Return an object as one line of ASCII.

    Names that are not valid UTF-8 keep their bytes as lone surrogate escapes, which `os.fsencode` turns back.
    """
    return json.dumps(record, allow_nan=False)


def uids_of(header: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return the UIDs of a film as they stand in its file.

    One that it lacks is empty; None stands for a file without any.
    """
    uids = {keyword: (header or {}).get(keyword, "") for keyword in _JOINED}
    return uids if any(uids.values()) else None


def stamp_of(path: Path) -> dict[str, Any] | None:
    """Return a file's size and time of change; None without a file."""
    try:
        state = path.stat()
    except (OSError, ValueError):  # a name with a zero byte, too
        return None
    try:
        modified = (_EPOCH + timedelta(microseconds=state.st_mtime_ns // 1000)).isoformat()
    except OverflowError:  # a clock gone wrong
        modified = str(state.st_mtime_ns)
    return {"bytes": state.st_size, "modified": modified}


def _gate(gate: GateResult) -> dict[str, Any]:
    return {
        "verdict": gate.verdict,
        "distance": gate.distance,
        "threshold": gate.threshold,
        "objections": [{"reason": each.reason, "message": each.message} for each in gate.objections],
    }
