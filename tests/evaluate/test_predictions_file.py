"""predictions.csv of `edgecxr evaluate`, and what is checked before the work."""

from __future__ import annotations

import csv
import shutil
import stat

import numpy as np
import pytest

pytest.importorskip("torch")

from edgecxr import metrics
from edgecxr.errors import InputError, UsageError
from edgecxr.evaluate import evaluation
from edgecxr.evaluate.evaluation import evaluate_model
from edgecxr.evaluate.operating_points import columns_of
from edgecxr.evaluate.predictions_file import write_predictions
from edgecxr.plots import evaluations
from edgecxr.workspace import Workspace


@pytest.fixture
def workspace(finished, tmp_path) -> Workspace:
    return Workspace(shutil.copytree(finished.workspace.root, tmp_path / "runs"))


def test_the_table_s_aurocs_can_be_computed_from_the_file_which_is_private(workspace, finished, tmp_path):
    model, record = evaluate_model(workspace, finished.student.name, None, "test", 100)
    path = write_predictions(model, "test", tmp_path / "deep" / "predictions.csv")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    prepared = finished.prepared
    assert [row["id"] for row in rows] == prepared.ids[prepared.rows("test")].tolist()
    assert [row["patient"] for row in rows] == prepared.patients[prepared.rows("test")].tolist()
    scored = record["findings"]["labels"] | {"abnormal": record["abnormal"]}
    for name, row in scored.items():
        targets = np.array([float(line[name] or "nan") for line in rows])
        probabilities = np.array([float(line[f"{name} probability"]) for line in rows])
        assert metrics.auroc(targets, probabilities) == pytest.approx(row["auroc"], abs=1e-3)
        assert row["auprc_low"] <= row["auprc"] <= row["auprc_high"]
        for point in row["operating"].values():
            rates = metrics.sensitivity_specificity(targets, probabilities, point["threshold"])
            for kind, value in zip(("sensitivity", "specificity"), rates, strict=True):
                assert point[kind] == pytest.approx(value)
                assert point[f"{kind}_low"] <= value <= point[f"{kind}_high"]
                assert point[f"{kind}_low"] < point[f"{kind}_high"]
    columns = columns_of(prepared, prepared.rows("test"), model.outputs)
    assert evaluations.roc(columns, record, "$title", tmp_path / "roc.png").stat().st_size > 5000


def test_another_model_is_checked_before_any_film_is_looked_at(finished, monkeypatch):
    monkeypatch.setattr(evaluation, "predict", lambda *args, **options: pytest.fail("a film was looked at"))
    name = finished.student.name
    with pytest.raises(UsageError, match="--against"):
        evaluate_model(finished.workspace, name, None, "test", 100, against=name)
    from edgecxr.errors import ModelError

    with pytest.raises(ModelError):
        evaluate_model(finished.workspace, name, None, "test", 100, against="absent")
    with pytest.raises(InputError):
        evaluate_model(finished.workspace, name, "absent", "test", 100, against=finished.teacher.name)
