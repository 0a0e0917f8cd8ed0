"""`edgecxr evaluate`: a run or bundle on a prepared data set, as a record and as a table."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgecxr import NOTICE, metrics, select
from edgecxr.bench.accuracy import check_labels, evaluate, predict
from edgecxr.data.dataset import SPLITS
from edgecxr.data.prepared import Prepared
from edgecxr.errors import UsageError
from edgecxr.lock import locked
from edgecxr.runtime.backend import open_backend
from edgecxr.runtime.bundle import Bundle
from edgecxr.runtime.types import FEW_CASES
from edgecxr.workspace import CARD, Workspace, atomic_write, writing


def evaluate_model(
    workspace: Workspace,
    model: str | None,
    data: str | None,
    split: str,
    replicates: int,
    progress: Callable[[int, int], None] | None = None,
    precision: str | None = None,
) -> tuple[str, dict[str, Any]]:
    """Evaluate a run through torch, or a bundle through one of its ONNX files.

    Args:
        workspace: where to look for model and data set.
        model: run or bundle, by name or path; None takes the latest run.
        data: prepared data set; None takes the one that the model was trained on.
        split: "train", "val" or "test".
        replicates: of the bootstrap.
        progress: called with (images done, images in all).
        precision: of a bundle's file: "fp32" (the default), "fp16" or "int8".

    Returns:
        The model's name and the record of `edgecxr.bench.accuracy.evaluate`. A run keeps its record in its card,
        under the data set's name and the split; a bundle is not changed.

    Raises:
        UsageError: no such split, or a precision for a run.
        ModelError: no such model, or it is damaged.
        InputError: no such data set, or one with other labels.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split}: there are {', '.join(SPLITS)}")
    folder = select.run_or_bundle(workspace, model)
    card = select.card_of(folder)
    # Only a bundle's card lists model files; a bundle is opened whole or not at all.
    bundle = Bundle.open(folder) if card.artefacts else None
    prepared = select.dataset_of(workspace, card, data)
    check_labels(card, prepared, split)
    if bundle:
        backend = open_backend("onnxruntime", bundle.artefact(precision or "fp32"))
    elif precision:
        raise UsageError(f"{card.name} is a run: --precision is for bundles, such as {workspace.export_dir(card.name)}")
    else:
        backend = open_backend("torch", folder)
    findings, abnormal = predict(backend, prepared, prepared.rows(split), card.size, progress=progress)
    backend.close()
    record = evaluate(card, prepared, split, findings, abnormal, replicates)
    if not bundle:
        with writing(folder / CARD), locked(folder / f".{CARD}.lock"):
            card = select.card_of(folder)  # an evaluation beside this one may have written to it
            results = card.metrics | {f"{prepared.name}/{split}": record}
            finished = (folder / CARD).stat()
            atomic_write(folder / CARD, replace(card, metrics=results).to_json())
            # The latest run is the one that was trained last, not the one that was looked at last.
            os.utime(folder / CARD, ns=(finished.st_atime_ns, finished.st_mtime_ns))
    return f"{card.name} {precision}" if precision else card.name, record


def paired_gain(prepared: Prepared, split: str, ours: Path, theirs: Path) -> dict[str, metrics.Interval]:
    """Compare two finished runs on the same images and the same bootstrap replicates of patients.

    Args:
        prepared: a data set that has both models' labels.
        split: "train", "val" or "test".
        ours: a run.
        theirs: another.

    Returns:
        Macro AUROC of "findings" and AUROC of "abnormal", ours minus theirs, each with its 95 % interval.

    Raises:
        ModelError: a run is damaged or not finished.
        InputError: the data set has other labels than a model.
    """
    rows = prepared.rows(split)
    weights = metrics.patient_weights(prepared.patients[rows])
    scored = []
    for run in (ours, theirs):
        card = select.card_of(run)
        check_labels(card, prepared, split)
        findings, abnormal = predict(open_backend("torch", run), prepared, rows, card.size)
        scored.append(
            {
                "findings": metrics.aurocs(prepared.targets[rows], findings, weights),
                "abnormal": metrics.aurocs(prepared.abnormal[rows, None], abnormal[:, None], weights),
            }
        )
    return {task: metrics.macro_difference(scored[0][task], scored[1][task]) for task in scored[0]}


def table(name: str, record: dict[str, Any]) -> str:
    """Return a record as text for people."""
    width = max(map(len, (*record["findings"]["labels"], *record["skipped"], "normal/abnormal", "findings (macro)")))
    made_up = " (synthetic phantom films)" if record["phantom"] else ""
    lines = [
        f"{name} on {record['data']}{made_up} {record['split']}: {record['images']} images, {record['patients']} "
        "patients; AUROC with 95 % interval (bootstrap by patient)",
        f"{'':{width}}  AUROC  interval         pos   neg  sens.  spec.",
    ]
    for label, row in record["findings"]["labels"].items():
        lines.append(f"{label:{width}}  {_row(row)}")
    macro, abnormal = record["findings"]["macro"], record["abnormal"]
    if macro:
        lines.append(f"{'findings (macro)':{width}}  {_row(macro)}")
    if abnormal:
        lines.append(f"{'normal/abnormal':{width}}  {_row(abnormal)}")
    for label, counts in record["skipped"].items():
        lines.append(
            f"{label:{width}}  skipped: {counts['positives']} positive and {counts['negatives']} negative images"
        )
    lines.append("Sensitivity and specificity at the operating point chosen on validation (Youden).")
    if any(_few(row) for row in (*record["findings"]["labels"].values(), abnormal or {})):
        lines.append(f"! fewer than {FEW_CASES} positive or negative images: go by the interval")
    return "\n".join([*lines, NOTICE])


def _row(row: dict[str, Any]) -> str:
    text = f"{row['auroc']:.3f}  {row['low']:.3f} - {row['high']:.3f}"
    if "positives" in row:
        text += f"  {row['positives']:5d} {row['negatives']:5d}"
    if "sensitivity" in row:
        text += f"  {row['sensitivity']:.3f}  {row['specificity']:.3f}"
    return text + ("  !" if _few(row) else "")


def _few(row: dict[str, Any]) -> bool:
    return min(row.get("positives", FEW_CASES), row.get("negatives", FEW_CASES)) < FEW_CASES
