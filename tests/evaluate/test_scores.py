from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edgecxr.bundle.card import ModelCard
from edgecxr.engines.backend import Outputs
from edgecxr.errors import InputError, ModelError
from edgecxr.evaluate.evaluation import table
from edgecxr.evaluate.operating_points import choose_operating_points, count_cases, fit_temperatures
from edgecxr.evaluate.scores import check_labels, evaluate, predict
from edgecxr.metrics import sigmoid
from tests.conftest import LABELS, striped, write_prepared


def card(**changes) -> ModelCard:
    values = {"name": "m", "labels": LABELS, "size": 28, "tokens": 49, "patch": 4, "arch": "tiny", "depth": 2}
    return ModelCard(**values | {"method": "mlcak"} | changes)


def answers(findings, abnormal) -> Outputs:
    attention = np.full((len(abnormal), 7, 7), 1 / 49, np.float32)
    return Outputs(np.asarray(findings, np.float32), np.asarray(abnormal, np.float32), attention)


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
    outputs = predict(Brightness(), prepared, rows, 28, batch=4, progress=lambda *x: steps.append(x))
    assert outputs.findings.shape == (15, 2)
    assert outputs.attention.shape == (15, 7, 7)
    assert steps[-1] == (15, 15)
    record = evaluate(card(), prepared, "test", outputs, replicates=100)
    assert record["findings"]["labels"]["Cardiomegaly"]["auroc"] == 1.0
    assert record["images"] == record["patients"] == 15
    has_label = ~np.isnan(prepared.targets[rows, 1])
    nodules = record["findings"]["labels"]["Nodule/Mass"]
    assert nodules["positives"] + nodules["negatives"] == has_label.sum() < 15
    labels = record["findings"]["labels"].values()
    assert record["findings"]["macro"]["auroc"] == pytest.approx(np.mean([row["auroc"] for row in labels]))
    json.dumps(record, allow_nan=False)


def test_a_label_with_one_class_is_listed_and_not_averaged(tmp_path):
    images, targets, abnormal, splits = striped()
    targets[:, 1] = 0
    prepared = write_prepared(tmp_path / "one", images, targets, abnormal, splits)
    outputs = predict(Brightness(), prepared, prepared.rows("test"), 28)
    record = evaluate(card(), prepared, "test", outputs, replicates=100)
    assert record["skipped"] == {"Nodule/Mass": {"positives": 0, "negatives": 15}}
    assert record["findings"]["macro"]["auroc"] == record["findings"]["labels"]["Cardiomegaly"]["auroc"]
    assert "skipped: 0 positive and 15 negative" in table("m", record)


def test_operating_points_come_from_the_rows_given_and_are_applied(prepared):
    val = prepared.rows("val")
    outputs = predict(Brightness(), prepared, val, 28)
    points = choose_operating_points(prepared, val, outputs, {})
    positive = prepared.targets[val, 0] == 1
    threshold = points["youden"]["Cardiomegaly"]
    scores = sigmoid(outputs.findings[:, 0])
    assert scores[~positive].max() < threshold < scores[positive].min()
    record = evaluate(card(operating_points=points), prepared, "val", outputs, replicates=100)
    row = record["findings"]["labels"]["Cardiomegaly"]
    assert (row["operating"]["youden"]["sensitivity"], row["operating"]["youden"]["specificity"]) == (1.0, 1.0)


def test_the_films_behind_an_operating_point_are_counted(clinic):
    rows = clinic.rows("val")
    counted = count_cases(clinic, rows)
    assert list(counted) == [*clinic.labels, "abnormal"]
    assert counted["Edema"] == {"positives": 0, "negatives": len(rows)}
    targets = clinic.targets[rows, 1][~np.isnan(clinic.targets[rows, 1])]
    assert 0 < len(targets) < len(rows)
    assert counted["Nodule/Mass"] == {"positives": int(targets.sum()), "negatives": int((1 - targets).sum())}


def test_other_labels_or_an_empty_split_are_refused(prepared, tmp_path):
    with pytest.raises(InputError, match="data set striped lacks Edema, which m answers"):
        check_labels(card(labels=("Edema",)), prepared, "test")
    with pytest.raises(InputError, match=r"prepare it with --labels .*model's order"):
        check_labels(card(labels=LABELS[::-1]), prepared, "test")
    images, targets, abnormal, _ = striped(24)
    empty = write_prepared(tmp_path / "empty", images, targets, abnormal, ["train"] * 24)
    with pytest.raises(InputError, match="no images in its test split"):
        check_labels(card(), empty, "test")


class Scripted:
    """Answers by the film's number, which is its grey value."""

    def __init__(self, findings, abnormal) -> None:
        self.findings, self.abnormal = np.array(findings, np.float32), np.array(abnormal, np.float32)

    def run(self, images):
        numbers = (images[:, 0, 0, 0] * 255).round().astype(int)
        attention = np.full((len(numbers), 7, 7), 1 / 49, np.float32)
        return Outputs(self.findings[numbers], self.abnormal[numbers], attention)


def numbered(folder, targets, abnormal, split="test", patients=None):
    """A data set whose film n has the grey value n everywhere."""
    images = np.broadcast_to(np.arange(len(abnormal), dtype=np.uint8)[:, None, None], (len(abnormal), 224, 224))
    targets, abnormal = np.array(targets, np.float32), np.array(abnormal, np.float32)
    return write_prepared(folder, images, targets, abnormal, [split] * len(abnormal), patients=patients)


def test_a_record_by_hand(tmp_path):
    nan = math.nan
    targets = [[1, 0], [1, 0], [0, 0], [0, 0.4], [nan, nan]]
    prepared = numbered(tmp_path / "five", targets, [1, 0.5, 0, 0, nan], patients=["a", "a", "b", "c", "c"])
    backend = Scripted([[2, 0], [0, 0], [1, 0], [-1, 0], [9, 9]], [-1, 1, -1, 0, 5])
    outputs = predict(backend, prepared, prepared.rows("test"), 28, batch=2)
    # sigmoid(0.5) = 0.622: of the logits only 2 and 1 reach it.
    points = {"youden": {"Cardiomegaly": 0.622, "abnormal": 0.5}}
    record = evaluate(card(operating_points=points), prepared, "test", outputs, replicates=200)
    row = record["findings"]["labels"]["Cardiomegaly"]
    assert row["auroc"] == 0.75
    assert (row["positives"], row["negatives"]) == (2, 2)
    expected = {"threshold": 0.622, "sensitivity": 0.5, "specificity": 0.5, "ppv": 0.5}
    assert row["operating"]["youden"].items() >= expected.items()
    # Positives -1 and 1, negatives -1 and 0: a tie, a loss and two wins of four pairs.
    assert record["abnormal"]["auroc"] == pytest.approx(2.5 / 4)
    at = record["abnormal"]["operating"]["youden"]
    assert (at["sensitivity"], at["specificity"]) == (0.5, 0.5)
    assert record["skipped"] == {"Nodule/Mass": {"positives": 0, "negatives": 4}}
    assert record["findings"]["macro"]["auroc"] == 0.75
    assert (record["images"], record["patients"]) == (5, 3)
    assert record["bootstrap"] == {"replicates": 200, "seed": 0, "unit": "patient", "level": 0.95}
    assert record["data_hash"] == prepared.hash


def test_the_macro_is_over_findings_and_its_interval_over_their_mean(tmp_path):
    rng = np.random.default_rng(8)
    targets = rng.integers(0, 2, (80, 2)).astype(np.float32)
    prepared = numbered(tmp_path / "x", targets, targets[:, 0])
    # The first finding is always seen, the second is guessed.
    findings = np.stack([targets[:, 0], rng.normal(size=80)], axis=1).astype(np.float32)
    record = evaluate(card(), prepared, "test", answers(findings, -targets[:, 0]), replicates=400)
    perfect, guessed = (record["findings"]["labels"][label] for label in LABELS)
    assert (perfect["auroc"], perfect["low"], perfect["high"]) == (1, 1, 1)
    assert record["abnormal"]["auroc"] == 0
    for end in ("auroc", "low", "high"):
        assert record["findings"]["macro"][end] == pytest.approx((1 + guessed[end]) / 2)
    assert guessed["low"] < guessed["auroc"] < guessed["high"]


def test_a_set_that_cannot_be_scored_has_no_macro(tmp_path):
    prepared = numbered(tmp_path / "healthy", np.zeros((4, 2)), np.zeros(4))
    record = evaluate(card(), prepared, "test", answers(np.zeros((4, 2)), np.zeros(4)), replicates=10)
    assert record["findings"] == {"macro": None, "labels": {}}
    assert record["abnormal"] is None
    assert set(record["skipped"]) == {*LABELS, "abnormal"}
    json.dumps(record, allow_nan=False)
    assert table("m", record).count("skipped: 0 positive and 4 negative") == 3


@pytest.mark.parametrize("output", ["findings", "abnormal"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_that_gives_no_numbers_gets_no_auroc(tmp_path, output, value):
    prepared = numbered(tmp_path / "x", [[0, 0], [1, 1]], [0, 1])
    outputs = {"findings": np.zeros((2, 2)), "abnormal": np.zeros(2)}
    outputs[output][-1] = value
    with pytest.raises(ModelError, match=r"not numbers .*data set x"):
        predict(Scripted(**outputs), prepared, prepared.rows("test"), 28)


@pytest.mark.parametrize("logits", [[-16.0, -16.0, -15.5, -15.5], [-1.9587] * 4])
def test_the_operating_points_of_rare_labels_and_of_constant_models_hold(tmp_path, logits):
    """Their probabilities differ in the seventh decimal, or not at all."""
    prepared = numbered(tmp_path / "rare", [[0, 0], [0, 0], [1, 1], [1, 1]], [0, 0, 1, 1], "val")
    rows = prepared.rows("val")
    logits = np.array(logits, np.float32)
    outputs = answers(np.stack([logits, logits], axis=1), logits)
    points = choose_operating_points(prepared, rows, outputs, {})
    record = evaluate(card(operating_points=points), prepared, "val", outputs, replicates=10)
    separable = 1.0 if len(set(logits)) > 1 else 0.0
    for row in (*record["findings"]["labels"].values(), record["abnormal"]):
        assert set(row["operating"]) == {"youden", "sensitivity90", "sensitivity95"}
        for at in row["operating"].values():
            assert (at["sensitivity"], at["specificity"]) == (1.0, separable)


def test_a_label_without_both_classes_has_no_operating_point(clinic):
    rows = clinic.rows("val")
    logits = np.random.default_rng(0).normal(size=(len(rows), 4)).astype(np.float32)
    points = choose_operating_points(clinic, rows, answers(logits[:, :3], logits[:, 3]), {})
    rules = ("youden", "sensitivity90", "sensitivity95")
    assert {rule: set(named) for rule, named in points.items()} == {rule: {*LABELS, "abnormal"} for rule in rules}
    assert all(0 < value < 1 for named in points.values() for value in named.values())


def test_films_of_one_patient_count_as_one_in_the_interval(tmp_path):
    rng = np.random.default_rng(3)
    sick = rng.integers(0, 2, 30)
    shown = np.repeat(sick + rng.normal(0, 1, 30), 4).astype(np.float32)
    targets = np.repeat(np.stack([sick, sick], axis=1), 4, axis=0)
    records = [
        evaluate(card(), prepared, "test", answers(np.stack([shown, shown], axis=1), shown), replicates=500)
        for prepared in (
            numbered(tmp_path / "grouped", targets, targets[:, 0], patients=[f"p{i // 4}" for i in range(120)]),
            numbered(tmp_path / "single", targets, targets[:, 0]),
        )
    ]
    assert records[0]["patients"] == 30
    assert records[0]["abnormal"]["auroc"] == records[1]["abnormal"]["auroc"]
    wide, narrow = (record["abnormal"]["high"] - record["abnormal"]["low"] for record in records)
    assert wide > 1.5 * narrow


def test_the_predictive_value_is_that_of_the_prevalence_that_is_stated(tmp_path):
    targets = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]], np.float32)
    prepared = numbered(tmp_path / "x", targets, targets[:, 0])
    outputs = answers(np.stack([[3, 1, 2, 0, 0], [0, 0, 0, 0, 1]], axis=1), [3, 1, 2, 0, 0])
    points = {"youden": {"Cardiomegaly": 0.85, "Nodule/Mass": 0.999, "abnormal": 0.85}}
    record = evaluate(card(operating_points=points), prepared, "test", outputs, 10, prevalence=0.1)
    # Logits 3 and 2 are called: half of the positives, a third of the negatives.
    at = record["abnormal"]["operating"]["youden"]
    assert at["ppv"] == pytest.approx(0.5 * 0.1 / (0.5 * 0.1 + 0.9 / 3))
    assert record["prevalence"] == 0.1
    # Nothing is called positive: no share of it is right.
    assert record["findings"]["labels"]["Nodule/Mass"]["operating"]["youden"]["ppv"] is None
    assert "at a prevalence of 10 %" in table("m", record)
    own = evaluate(card(operating_points=points), prepared, "test", outputs, 10)
    assert own["abnormal"]["operating"]["youden"]["ppv"] == pytest.approx(0.5)


def test_temperatures_come_from_the_rows_given_and_are_applied(tmp_path):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3)).astype(np.float32)
    targets = (rng.random((4000, 3)) < sigmoid(logits)).astype(np.float32)
    prepared = write_prepared(
        tmp_path / "x", np.zeros((4000, 224, 224), np.uint8), targets[:, :2], targets[:, 2], ["val"] * 4000
    )
    rows = prepared.rows("val")
    outputs = answers(logits[:, :2] * 4, logits[:, 2] / 2)  # over- and underconfident
    temperature = fit_temperatures(prepared, rows, outputs)
    assert temperature == {
        "Cardiomegaly": pytest.approx(4, rel=0.1),
        "Nodule/Mass": temperature["Cardiomegaly"],
        "abnormal": pytest.approx(0.5, rel=0.1),
    }
    record = evaluate(card(temperature=temperature), prepared, "val", outputs, 10)
    for task in ("findings", "abnormal"):
        calibration = record["calibration"][task]
        assert calibration["ece"] < 0.03 < calibration["ece_uncalibrated"]
        assert sum(count for count, _, _ in calibration["bins"]) == 4000 * (2 if task == "findings" else 1)
    # Thresholds are probabilities that the temperature has been applied to, as the device applies it.
    points = choose_operating_points(prepared, rows, outputs, temperature)
    at = evaluate(card(temperature=temperature, operating_points=points), prepared, "val", outputs, 10)
    assert at["abnormal"]["operating"]["sensitivity90"]["sensitivity"] == pytest.approx(0.9, abs=0.002)
    assert points["youden"]["abnormal"] == pytest.approx(0.5, abs=0.1)
