"""Evaluation of a run or bundle on a prepared data set.

The result of `edgecxr evaluate` is a record and a text table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgecxr import NOTICE, resolve
from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.card import ModelCard, read_card
from edgecxr.bundle.tested import WHY_UNRELIABLE, is_reliable, marked
from edgecxr.data.dataset import SPLITS
from edgecxr.data.overlap import seen_films
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Outputs, open_backend
from edgecxr.errors import InputError, UsageError
from edgecxr.evaluate.comparison import compare
from edgecxr.evaluate.scores import check_labels, evaluate, predict
from edgecxr.metrics import with_interval
from edgecxr.storage.atomic import atomic_write, writing
from edgecxr.storage.folders import CARD
from edgecxr.storage.locks import locked
from edgecxr.terminal import aligned, joined, say
from edgecxr.vocabulary import DOUBT, FEW_CASES
from edgecxr.workspace import Workspace


@dataclass(frozen=True)
class ModelOutputs:
    """A model with its outputs for one split of a data set.

    Attributes:
        folder: folder of the run or bundle.
        card: card of the model.
        prepared: the data set.
        outputs: outputs for the split's images, in order.
        warning: a message if the model may have learnt from these images; otherwise "".
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
) -> ModelOutputs:
    """Run a model on a split of a data set.

    Runs are run by torch, bundles by ONNX Runtime.

    Args:
        workspace: where to look for model and data set.
        model: run or bundle, by name or path; None means the latest run.
        data: prepared data set; None means the one that the model was trained on.
        split: "train", "val" or "test".
        progress: called with (images done, images in all).
        precision: precision of a bundle's file: "fp32" (the default), "fp16" or "int8".

    Raises:
        UsageError: there is no such split, or a precision is given for a run.
        ModelError: there is no such model, or it is damaged.
        InputError: there is no such data set, or it has other labels.
    """
    folder, card, prepared = opened(workspace, model, data, split, precision)
    warning = seen_films(card.name, card.data, prepared, split)
    if warning:
        say(f"warning: {warning}")
    if card.artefacts:
        backend = open_backend("onnxruntime", Bundle.open(folder).model(precision or "fp32"))
    else:
        backend = open_backend("torch", folder)
    outputs = predict(backend, prepared, prepared.rows(split), card.size, progress=progress)
    backend.close()
    return ModelOutputs(folder, card, prepared, outputs, warning)


def opened(
    workspace: Workspace, model: str | None, data: str | None, split: str, precision: str | None = None
) -> tuple[Path, ModelCard, Prepared]:
    """Return a model's folder, its card and the data set.

    No film is looked at.

    Arguments and errors are those of `answer`.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split}: there are {', '.join(SPLITS)}")
    folder = resolve.run_or_bundle(workspace, model)
    card = read_card(folder)
    if precision and not card.artefacts:
        raise UsageError(f"{card.name} is a run: --precision is for bundles, such as {workspace.export_dir(card.name)}")
    # Only a bundle's card lists model files. Opening a bundle checks all of them.
    if card.artefacts:
        Bundle.open(folder).model(precision or "fp32")
    prepared = resolve.dataset_of(workspace, card, data)
    check_labels(card, prepared, split)
    return folder, card, prepared


def check_same_data(models: Sequence[ModelOutputs]) -> None:
    """Check that all models have outputs for the same data.

    This also prevents comparing models on films that one of them may have learnt from.

    Raises:
        InputError: the models' data sets, or their splits of one data set, differ; reason "dataset".
    """
    for model in models[1:]:
        _check_same((models[0].card, models[0].prepared), (model.card, model.prepared))


def _check_same(first: tuple[ModelCard, Prepared], other: tuple[ModelCard, Prepared]) -> None:
    if other[1].hash != first[1].hash:
        raise InputError(
            f"{other[0].name} was trained on other data ({other[1].name}) than {first[0].name} ({first[1].name}): name "
            "the data set to compare them on with --data",
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
) -> tuple[ModelOutputs, dict[str, Any]]:
    """Evaluate a model, and compare it with another if asked.

    Args:
        workspace: as in `answer`.
        model: as in `answer`.
        data: as in `answer`.
        split: as in `answer`.
        replicates: number of bootstrap replicates.
        progress: as in `answer`.
        precision: as in `answer`.
        against: run or bundle to compare with, on the same images and the same replicates.
        prevalence: prevalence for the positive predictive value, in (0, 1); None means that of the split.

    Returns:
        The model, and the record of `edgecxr.evaluate.scores.evaluate`, with "against" if `against` is given. The
        record without "against" is also stored in the card of a run, under "DATA/SPLIT"; a bundle is not changed.

    Raises:
        UsageError: as in `answer`; or `prevalence` is out of range, or the model is compared with itself.
        ModelError: as in `answer`.
        InputError: as in `answer`; or the two models' data differ.
    """
    if prevalence is not None and not 0 < prevalence < 1:
        raise UsageError(f"--prevalence {prevalence}: a share between 0 and 1, such as 0.05")
    if against:
        # Before any film is looked at.
        mine, other = opened(workspace, model, data, split, precision), opened(workspace, against, data, split)
        if other[0].resolve() == mine[0].resolve():
            raise UsageError(f"{mine[0]} cannot be compared with itself: name another model with --against")
        _check_same((mine[1], mine[2]), (other[1], other[2]))
        model = str(mine[0])
    ours = answer(workspace, model, data, split, progress, precision)
    theirs = answer(workspace, against, data, split, progress) if against else None
    record = evaluate(ours.card, ours.prepared, split, ours.outputs, replicates, prevalence=prevalence)
    record["warning"] = ours.warning
    if not ours.card.artefacts:
        _keep(ours, f"{ours.prepared.name}/{split}", record)
    if theirs:
        compared = compare(ours.prepared, split, ours.outputs, theirs.outputs, replicates)
        record = record | {"against": {"model": theirs.card.name, "warning": theirs.warning} | compared}
    return ours, record


def _keep(ours: ModelOutputs, key: str, record: dict[str, Any]) -> None:
    """Store a record in the card of a run."""
    path = ours.folder / CARD
    with writing(path), locked(ours.folder / f".{CARD}.lock"):
        card = read_card(ours.folder)  # a parallel evaluation may have changed it
        finished = path.stat()
        atomic_write(path, replace(card, metrics=card.metrics | {key: record}).to_json())
        # Keep the file's time: the latest run is the one trained last, not evaluated last.
        os.utime(path, ns=(finished.st_atime_ns, finished.st_mtime_ns))


def table(name: str, record: dict[str, Any]) -> str:
    """Return a record as a text table."""
    shown = dict(record["findings"]["labels"])
    if record["findings"]["macro"]:
        shown["findings (macro)"] = record["findings"]["macro"]
    if record["abnormal"]:
        shown["normal/abnormal"] = record["abnormal"]
    synthetic = " (synthetic phantom films)" if record["phantom"] else ""
    lines = [
        f"{name} on {record['data']}{synthetic} {record['split']}: {record['images']} images, "
        f"{record['patients']} patients",
        "AUROC and AUPRC (area under the precision-recall curve) with 95 % intervals,",
        "bootstrap by patient; ECE: expected calibration error",
    ]
    rows = [["", "AUROC", "AUPRC", "pos", "neg", "ECE"]]
    names = {label: marked(label, not is_reliable(row["low"])) for label, row in shown.items()}
    rows += [[names[label], *_cells(row), _mark(row, shown)] for label, row in shown.items()]
    lines += aligned(rows)
    for label, counts in record["skipped"].items():
        names[label] = marked(label, True)
        lines.append(
            f"{names[label]}  skipped: {counts['positives']} positive and {counts['negatives']} negative images"
        )
    if any(name != label for label, name in names.items()):
        lines.append(f"{DOUBT} {WHY_UNRELIABLE}")
    if any(_few(row) for row in shown.values()):
        lines.append(f"! fewer than {FEW_CASES} positive or negative images: go by the interval")
    lines += [*_operating(shown, names, record["prevalence"]), *_scarce(record["few_validation_cases"])]
    lines += _calibrated(record["calibration"])
    if "against" in record:
        lines += _against(record["against"], names)
    return joined([*lines, NOTICE])


def _cells(row: dict[str, Any]) -> list[str]:
    area = with_interval(row["auroc"], row["low"], row["high"])
    if "positives" not in row:
        return [area, "", "", "", ""]
    precision = with_interval(row["auprc"], row["auprc_low"], row["auprc_high"])
    return [area, precision, str(row["positives"]), str(row["negatives"]), f"{row['ece']:.3f}"]


def _few(row: dict[str, Any]) -> bool:
    return min(row.get("positives", FEW_CASES), row.get("negatives", FEW_CASES)) < FEW_CASES


def _mark(row: dict[str, Any], shown: dict[str, Any]) -> str:
    """Return "!" if a row rests on few images, else "".

    A mean over findings is marked if any of them has few images, since some replicates then leave that finding out.
    """
    few = _few(row) if "positives" in row else any(map(_few, shown.values()))
    return "!" if few else ""


def _scarce(few: dict[str, str]) -> list[str]:
    """List the thresholds that are missing or rest on few validation films."""
    named = [f"{name} ({kinds})" for name, kinds in few.items()]
    return (
        [f"! thresholds rest on fewer than {FEW_CASES} validation films of a kind: {', '.join(named)}"] if named else []
    )


def _operating(shown: dict[str, Any], names: dict[str, str], prevalence: float | None) -> list[str]:
    """Return a table for each operating point.

    `names` are those of the rows, with their marks.
    """
    rules = dict.fromkeys(rule for row in shown.values() for rule in row.get("operating", {}))
    if not rules:
        return []
    stated = "the share of positives here" if prevalence is None else f"a prevalence of {100 * prevalence:g} %"
    lines = ["", "At thresholds chosen on validation films, with 95 % intervals;"]
    lines.append(f"PPV: positive predictive value at {stated}")
    for rule in rules:
        rows = [[_RULES.get(rule, rule), "sensitivity", "specificity", "PPV"]]
        for label, row in shown.items():
            if rule in row.get("operating", {}):
                rows.append([f"  {names[label]}", *_point(row["operating"][rule])])
        lines += aligned(rows)
    return lines


_RULES = {"youden": "Youden", "sensitivity90": "sensitivity >= 0.90", "sensitivity95": "sensitivity >= 0.95"}


def _point(point: dict[str, Any]) -> list[str]:
    cells = [
        with_interval(point[kind], point[f"{kind}_low"], point[f"{kind}_high"])
        for kind in ("sensitivity", "specificity")
    ]
    return [*cells, "-" if point["ppv"] is None else f"{point['ppv']:.3f}"]


def _calibrated(calibration: dict[str, Any]) -> list[str]:
    """Return lines with both tasks' ECE, with and without temperature."""
    parts = [f"{task} {scores['ece']:.3f} ({_temperature(scores)})" for task, scores in calibration.items() if scores]
    return ["", f"Expected calibration error (ECE): {'; '.join(parts)}"] if parts else []


def _temperature(scores: dict[str, Any]) -> str:
    if scores["temperatures"] == [1.0]:
        return "no temperature: too few validation films, or none needed"
    return f"{scores['ece_uncalibrated']:.3f} without temperature {', '.join(f'{t:g}' for t in scores['temperatures'])}"


def _against(compared: dict[str, Any], names: dict[str, str]) -> list[str]:
    shown = dict(compared["findings"]["labels"])
    shown |= {"findings (macro)": compared["findings"]["macro"], "normal/abnormal": compared["abnormal"]}
    title = (
        f"AUROC minus that of {compared['model']}, paired on the same films, with 95 % interval and p-value (not "
        "corrected for their number: plan to look at the macro and at normal/abnormal)"
    )
    rows = [
        [
            str(names.get(label, label)),
            with_interval(row["difference"], row["low"], row["high"], "+.3f"),
            f"{row['p']:.3f}",
        ]
        for label, row in shown.items()
        if row
    ]
    return ["", title, *aligned([["", "difference", "p"], *rows])]
