"""Parts of a benchmark's record: models, data, figures of a row."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecxr.benchmark.candidates import Model
from edgecxr.benchmark.record import percentiles
from edgecxr.benchmark.turns import Samples

if TYPE_CHECKING:
    from edgecxr.benchmark.measure import Settings


def described_model(model: Model, teacher: Model | None, data: Any) -> dict[str, Any]:
    """Return what a record says of a model.

    Args:
        model: the model.
        teacher: the model that it is compared with.
        data: the data set of the AUROCs, or None.
    """
    same_data = data is None or model.facts.get("data_hash") in (None, *data.hashes)
    return {
        "role": model.role,
        "size": model.shape[-1],
        "weights": model.weights,
        "labels": list(model.labels),
        "sha256": model.sha256,
        "teacher_sha256": model.teacher_sha256,
        **model.facts,
        "compared_with": teacher.name if teacher else None,
        "trained_on_other_data": not same_data,
    }


def described_data(data: Any, settings: Settings) -> dict[str, Any] | None:
    """Return what a record says of its data set, or None."""
    if data is None:
        return None
    rows = data.rows(settings.split)
    return {
        "name": data.name, "hash": data.hash, "split": settings.split, "images": len(rows),
        "patients": len(np.unique(data.patients[rows])), "phantom": data.phantom, "replicates": settings.replicates,
    }  # fmt: skip


def throughput(samples: Samples, local: Callable[[str], str]) -> list[dict[str, Any]]:
    """Return images per second for each batch.

    Batches that were skipped have their reason.

    Args:
        samples: the measurements.
        local: removes from a text what may name persons.
    """
    rows: list[dict[str, Any]] = []
    for batch, seconds in {1: samples.runs, **samples.batches}.items():
        median = statistics.median(seconds)
        rate = round(batch / median, 3)
        rows.append({"batch": batch, "images_per_s": rate, "ms": round(1000 * median, 4), "runs": len(seconds)})
    left = {batch: why for batch, why in samples.skipped.items() if batch not in samples.batches}
    return [*rows, *({"batch": batch, "skipped": local(why)} for batch, why in left.items())]


def memory_of(samples: Samples) -> dict[str, float | None]:
    """Return the memory in MiB."""
    return {
        "host": _rounded(samples.host), "host_largest_batch": _rounded(samples.host_largest),
        "device": _rounded(samples.device), "device_largest_batch": _rounded(samples.device_largest),
    }  # fmt: skip


def film_times(samples: Samples) -> dict[str, Any]:
    """Return percentiles of the stages from a file to an answer.

    "total" is their sum.
    """
    stages = dict(samples.film)
    stages["total"] = [sum(parts) for parts in zip(*samples.film.values(), strict=True)]
    return {stage: percentiles(seconds) for stage, seconds in stages.items()}


def median_start(starts: list[dict[str, float]]) -> dict[str, float]:
    """Return the start with the median total.

    Unlike medians of the parts, its parts add up to the total.
    """
    totals = [sum(start.values()) for start in starts]
    start = starts[totals.index(statistics.median_low(totals))]
    return {key: round(value, 4) for key, value in (start | {"total": sum(start.values())}).items()}


def without_names(text: str, hidden: dict[str, str]) -> str:
    """Return a text without folders and the film's name.

    They may contain names of persons.

    Args:
        text: any text.
        hidden: what is replaced -> by what.
    """
    for name, replacement in hidden.items():
        text = text.replace(name, replacement)
    return re.sub(r"(?<![\w.~/])/(?:[^\s/:;,'\"()]+/)+", "", text)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
