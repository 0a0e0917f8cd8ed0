from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from edgecxr.bench.accuracy import check_labels, choose_operating_points, evaluate, predict
from edgecxr.bench.evaluation import evaluate_model, paired_gain, table
from edgecxr.errors import InputError, UsageError
from edgecxr.export.bundle import export_bundle
from edgecxr.metrics import sigmoid
from edgecxr.runtime.types import ModelCard, Outputs
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.train.teacher import train_teacher
from edgecxr.workspace import Workspace
from tests.conftest import LABELS, striped, write_prepared


def card(**changes) -> ModelCard:
    values = {"name": "m", "labels": LABELS, "size": 28, "tokens": 49, "patch": 4, "arch": "tiny", "depth": 2}
    return ModelCard(**values | {"method": "mlcak"} | changes)


class Brightness:
    """The first finding is a bright left half, the second a bright lower half."""

    def run(self, images):
        left, below = images[:, 0, :, :14].mean((1, 2)), images[:, 0, 14:].mean((1, 2))
        whole = images[:, 0].mean((1, 2))
        findings = np.stack([left - whole, below - whole], axis=1)
        return Outputs(findings, whole, np.full((len(images), 7, 7), 1 / 49, np.float32))

    def close(self) -> None:
        pass


def test_a_model_that_sees_the_finding_has_an_auroc_of_one(prepared):
    rows = prepared.rows("test")
    steps = []
    findings, abnormal = predict(Brightness(), prepared, rows, 28, batch=4, progress=lambda *x: steps.append(x))
    assert findings.shape == (15, 2)
    assert steps[-1] == (15, 15)
    record = evaluate(card(), prepared, "test", findings, abnormal, replicates=100)
    assert record["findings"]["labels"]["Cardiomegaly"]["auroc"] == 1.0
    assert record["images"] == record["patients"] == 15
    known = ~np.isnan(prepared.targets[rows, 1])
    nodules = record["findings"]["labels"]["Nodule/Mass"]
    assert nodules["positives"] + nodules["negatives"] == known.sum() < 15
    labels = record["findings"]["labels"].values()
    assert record["findings"]["macro"]["auroc"] == pytest.approx(np.mean([row["auroc"] for row in labels]))
    json.dumps(record, allow_nan=False)


def test_a_label_with_one_class_is_listed_and_not_averaged(tmp_path):
    images, targets, abnormal, splits = striped()
    targets[:, 1] = 0
    prepared = write_prepared(tmp_path / "one", images, targets, abnormal, splits)
    findings, logits = predict(Brightness(), prepared, prepared.rows("test"), 28)
    record = evaluate(card(), prepared, "test", findings, logits, replicates=100)
    assert record["skipped"] == {"Nodule/Mass": {"positives": 0, "negatives": 15}}
    assert record["findings"]["macro"]["auroc"] == record["findings"]["labels"]["Cardiomegaly"]["auroc"]
    assert "skipped: 0 positive and 15 negative" in table("m", record)


def test_operating_points_come_from_the_rows_given_and_are_applied(prepared):
    val = prepared.rows("val")
    findings, abnormal = predict(Brightness(), prepared, val, 28)
    points = choose_operating_points(prepared, val, findings, abnormal)
    positive = prepared.targets[val, 0] == 1
    threshold = points["youden"]["Cardiomegaly"]
    scores = sigmoid(findings[:, 0])
    assert scores[~positive].max() < threshold < scores[positive].min()
    record = evaluate(card(operating_points=points), prepared, "val", findings, abnormal, replicates=100)
    row = record["findings"]["labels"]["Cardiomegaly"]
    assert (row["sensitivity"], row["specificity"]) == (1.0, 1.0)


def test_other_labels_or_an_empty_split_are_refused(prepared, tmp_path):
    with pytest.raises(InputError, match="prepare it with --labels"):
        check_labels(card(labels=("Edema",)), prepared, "test")
    images, targets, abnormal, _ = striped(24)
    empty = write_prepared(tmp_path / "empty", images, targets, abnormal, ["train"] * 24)
    with pytest.raises(InputError, match="no images in its test split"):
        check_labels(card(), empty, "test")


def test_a_run_and_its_bundle_get_the_same_scores_and_only_the_run_keeps_them(prepared, tmp_path):
    workspace = Workspace(tmp_path / "runs")
    config = TrainConfig(prepared.name, prepared.hash, patch=56, depth=2, init="random", epochs=2, batch=16)
    device = Device(torch.device("cpu"), "fp32")
    run = train_teacher(workspace, prepared, config, device, lambda *_: None)
    bundle, _ = export_bundle(run, prepared, tmp_path / "elsewhere")
    before = {p.name: p.read_bytes() for p in bundle.path.iterdir()}

    name, of_run = evaluate_model(workspace, None, None, "test", 100)
    _, of_bundle = evaluate_model(workspace, str(bundle.path), None, "test", 100)
    assert name == run.name
    assert of_run["findings"]["macro"]["auroc"] == pytest.approx(of_bundle["findings"]["macro"]["auroc"], abs=1e-6)
    kept = json.loads((run / "card.json").read_text())["metrics"]
    assert kept == {f"{prepared.name}/test": of_run}
    assert {p.name: p.read_bytes() for p in bundle.path.iterdir()} == before

    gain = paired_gain(prepared, "test", run, run)["findings"]
    assert (gain.value, gain.low, gain.high) == (0, 0, 0)
    assert not math.isnan(gain.low)
    with pytest.raises(UsageError, match="--split"):
        evaluate_model(workspace, None, None, "training", 100)
