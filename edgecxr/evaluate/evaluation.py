"""`edgecxr evaluate`: a run or bundle on a prepared data set, as a record and as a table."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgecxr import NOTICE, resolve
from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.card import ModelCard, read_card
from edgecxr.data.dataset import SPLITS
from edgecxr.data.overlap import seen_films
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Outputs, open_backend
from edgecxr.errors import InputError, UsageError
from edgecxr.evaluate.comparison import compare
from edgecxr.evaluate.scores import check_labels, evaluate, predict
from edgecxr.storage.atomic import atomic_write, writing
from edgecxr.storage.folders import CARD
from edgecxr.storage.locks import locked
from edgecxr.terminal import say
from edgecxr.vocabulary import FEW_CASES
from edgecxr.workspace import Workspace


@dataclass(frozen=True)
class Answered:
    """A model with what it says of one split of a data set.

    Attributes:
        folder: the run or bundle.
        card: its card.
        prepared: the data set.
        outputs: for the split's images, in order.
        warning: where it may have learnt from them; else "".
    """

    folder: Path
    card: ModelCard
    prepared: Prepared
    outputs: Outputs
    warning: str = ""


def answer(
    workspace: Workspace,
    model: str | None,
    data: str | None,
    split: str,
    progress: Callable[[int, int], None] | None = None,
    precision: str | None = None,
) -> Answered:
    """Run a run through torch, or a bundle through one of its ONNX files, over a split of a data set.

    Args:
        workspace: where to look for model and data set.
        model: run or bundle, by name or path; None takes the latest run.
        data: prepared data set; None takes the one that the model was trained on.
        split: "train", "val" or "test".
        progress: called with (images done, images in all).
        precision: of a bundle's file: "fp32" (the default), "fp16" or "int8".

    Raises:
        UsageError: no such split, or a precision for a run.
        ModelError: no such model, or it is damaged.
        InputError: no such data set, or one with other labels.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split}: there are {', '.join(SPLITS)}")
    folder = resolve.run_or_bundle(workspace, model)
    card = read_card(folder)
    # Only a bundle's card lists model files; a bundle is opened whole or not at all.
    bundle = Bundle.open(folder) if card.artefacts else None
    prepared = resolve.dataset_of(workspace, card, data)
    check_labels(card, prepared, split)
    warning = seen_films(card.name, card.data, prepared, split)
    if warning:
        say(f"warning: {warning}")
    if bundle:
        backend = open_backend("onnxruntime", bundle.artefact(precision or "fp32"))
    elif precision:
        raise UsageError(f"{card.name} is a run: --precision is for bundles, such as {workspace.export_dir(card.name)}")
    else:
        backend = open_backend("torch", folder)
    outputs = predict(backend, prepared, prepared.rows(split), card.size, progress=progress)
    backend.close()
    return Answered(folder, card, prepared, outputs, warning)


def check_same_data(models: Sequence[Answered]) -> None:
    """Refuse to compare models on different data, or on films that one of them may have learnt from.

    Raises:
        InputError: they were trained on different data sets, or divisions of one; reason "dataset".
    """
    first = models[0]
    for model in models[1:]:
        if model.prepared.hash != first.prepared.hash:
            raise InputError(
                f"{model.card.name} was trained on other data ({model.prepared.name}) than {first.card.name} "
                f"({first.prepared.name}): name the data set to compare them on with --data",
                "dataset",
            )


def evaluate_model(
    workspace: Workspace,
    model: str | None,
    data: str | None,
    split: str,
    replicates: int,
    progress: Callable[[int, int], None] | None = None,
    precision: str | None = None,
    against: str | None = None,
    prevalence: float | None = None,
) -> tuple[Answered, dict[str, Any]]:
    """Evaluate a model, and compare it with another one.

    Args:
        workspace: as `answer` takes it, like `model`, `data`, `split`, `progress` and `precision`.
        model: see there.
        data: see there.
        split: see there.
        replicates: of the bootstrap.
        progress: see there.
        precision: see there.
        against: run or bundle to compare with, on the same images and the same replicates.
        prevalence: at which the positive predictive value is given; None takes that of the split.

    Returns:
        The model, and the record of `edgecxr.evaluate.scores.evaluate`, with "against" if asked for. A run keeps its
        record in its card, under the data set's name and the split; a bundle is not changed.

    Raises:
        UsageError, ModelError, InputError: those of `answer`; or a prevalence that is none.
    """
    if prevalence is not None and not 0 < prevalence < 1:
        raise UsageError(f"--prevalence {prevalence}: a share between 0 and 1, such as 0.05")
    ours = answer(workspace, model, data, split, progress, precision)
    theirs = answer(workspace, against, data, split, progress) if against else None
    if theirs:
        if theirs.folder.resolve() == ours.folder.resolve():
            raise UsageError(f"{ours.folder} cannot be compared with itself: name another model with --against")
        check_same_data([ours, theirs])
    record = evaluate(ours.card, ours.prepared, split, ours.outputs, replicates, prevalence=prevalence)
    record["warning"] = ours.warning
    if not ours.card.artefacts:
        _keep(ours, f"{ours.prepared.name}/{split}", record)
    if theirs:
        compared = compare(ours.prepared, split, ours.outputs, theirs.outputs, replicates)
        record = record | {"against": {"model": theirs.card.name, "warning": theirs.warning} | compared}
    return ours, record


def _keep(ours: Answered, key: str, record: dict[str, Any]) -> None:
    """Write a record into the card of a run."""
    path = ours.folder / CARD
    with writing(path), locked(ours.folder / f".{CARD}.lock"):
        card = read_card(ours.folder)  # an evaluation beside this one may have written to it
        finished = path.stat()
        atomic_write(path, replace(card, metrics=card.metrics | {key: record}).to_json())
        # The latest run is the one that was trained last, not the one that was looked at last.
        os.utime(path, ns=(finished.st_atime_ns, finished.st_mtime_ns))


def table(name: str, record: dict[str, Any]) -> str:
    """Return a record as text for people."""
    shown = dict(record["findings"]["labels"])
    if record["findings"]["macro"]:
        shown["findings (macro)"] = record["findings"]["macro"]
    if record["abnormal"]:
        shown["normal/abnormal"] = record["abnormal"]
    width = max(map(len, (*shown, *record["skipped"], "normal/abnormal", "findings (macro)")))
    made_up = " (synthetic phantom films)" if record["phantom"] else ""
    lines = [
        f"{name} on {record['data']}{made_up} {record['split']}: {record['images']} images, {record['patients']} "
        "patients; AUROC with 95 % interval (bootstrap by patient)",
        f"{'':{width}}  AUROC  interval         pos   neg    ECE",
        *(f"{label:{width}}  {_row(row)}{_macro_mark(row, shown)}" for label, row in shown.items()),
    ]
    for label, counts in record["skipped"].items():
        lines.append(
            f"{label:{width}}  skipped: {counts['positives']} positive and {counts['negatives']} negative images"
        )
    if any(_few(row) for row in shown.values()):
        lines.append(f"! fewer than {FEW_CASES} positive or negative images: go by the interval")
    lines += [*_operating(shown, width, record["prevalence"]), *_scarce(record["few_validation_cases"], shown)]
    lines += _calibrated(record["calibration"])
    if "against" in record:
        lines += _against(record["against"], width)
    return "\n".join([*lines, NOTICE])


def _row(row: dict[str, Any]) -> str:
    text = f"{row['auroc']:.3f}  {row['low']:.3f} - {row['high']:.3f}"
    if "positives" in row:
        text += f"  {row['positives']:5d} {row['negatives']:5d}  {row['ece']:.3f}"
    return text + ("  !" if _few(row) else "")


def _few(row: dict[str, Any]) -> bool:
    return min(row.get("positives", FEW_CASES), row.get("negatives", FEW_CASES)) < FEW_CASES


def _macro_mark(row: dict[str, Any], shown: dict[str, Any]) -> str:
    """Mark a mean over findings of which one has few images: some of its replicates average the others alone."""
    return "" if "positives" in row or not any(_few(other) for other in shown.values()) else "  !"


def _scarce(few: dict[str, str], shown: dict[str, Any]) -> list[str]:
    """Name the thresholds that rest on few validation films, and those that there are not."""
    named = [f"{name} ({kinds})" for name, kinds in few.items()]
    return (
        [f"! thresholds rest on fewer than {FEW_CASES} validation films of a kind: {', '.join(named)}"] if named else []
    )


def _operating(shown: dict[str, Any], width: int, prevalence: float | None) -> list[str]:
    """Return sensitivity, specificity and predictive value at each operating point."""
    rules = dict.fromkeys(rule for row in shown.values() for rule in row.get("operating", {}))
    if not rules:
        return []
    stated = "its prevalence in this split" if prevalence is None else f"a prevalence of {100 * prevalence:g} %"
    lines = [
        "",
        f"At thresholds chosen on validation: sensitivity, specificity, positive predictive value (PPV) at {stated}",
        f"{'':{width}}" + "".join(f"  {_RULES.get(rule, rule):21}" for rule in rules).rstrip(),
        f"{'':{width}}" + "  sens.  spec.  PPV    " * len(rules),
    ]
    for label, row in shown.items():
        if row.get("operating"):
            cells = "".join(f"  {_point(row['operating'].get(rule)):21}" for rule in rules)
            lines.append(f"{label:{width}}{cells}".rstrip())
    return [line.rstrip() for line in lines]


_RULES = {"youden": "Youden", "sensitivity90": "sensitivity >= 0.90", "sensitivity95": "sensitivity >= 0.95"}


def _point(point: dict[str, Any] | None) -> str:
    if point is None:
        return "-"
    ppv = "-" if point["ppv"] is None else f"{point['ppv']:.3f}"
    return f"{point['sensitivity']:.3f}  {point['specificity']:.3f}  {ppv}"


def _calibrated(calibration: dict[str, Any]) -> list[str]:
    """Return the expected calibration error of both tasks, with and without the card's temperature."""
    parts = [f"{task} {found['ece']:.3f} ({_temperature(found)})" for task, found in calibration.items() if found]
    return ["", f"Expected calibration error (ECE): {'; '.join(parts)}"] if parts else []


def _temperature(found: dict[str, Any]) -> str:
    if found["temperatures"] == [1.0]:
        return "no temperature: too few validation films, or none needed"
    return f"{found['ece_uncalibrated']:.3f} without temperature {', '.join(f'{t:g}' for t in found['temperatures'])}"


def _against(compared: dict[str, Any], width: int) -> list[str]:
    shown = dict(compared["findings"]["labels"])
    shown |= {"findings (macro)": compared["findings"]["macro"], "normal/abnormal": compared["abnormal"]}
    lines = [
        "",
        f"AUROC minus that of {compared['model']}, paired on the same films, with 95 % interval and p-value (not "
        "corrected for their number: plan to look at the macro and at normal/abnormal)",
        f"{'':{width}}  difference  interval            p",
    ]
    for label, row in shown.items():
        if row:
            interval = f"{row['low']:+.3f} to {row['high']:+.3f}"
            lines.append(f"{label:{width}}      {row['difference']:+.3f}  {interval}  {row['p']:.3f}")
    return lines
