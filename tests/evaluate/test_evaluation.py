from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest

from edgecxr.bundle.card import read_card
from edgecxr.engines.backend import Outputs, open_backend
from edgecxr.errors import InputError, ModelError, UsageError
from edgecxr.evaluate import evaluation
from edgecxr.evaluate.evaluation import evaluate_model, table
from edgecxr.evaluate.operating_points import choose_operating_points
from edgecxr.evaluate.scores import predict
from edgecxr.metrics import OPERATING_RULES
from edgecxr.workspace import Workspace
from tests.conftest import LABELS, striped, write_prepared


@pytest.fixture
def workspace(finished, tmp_path) -> Workspace:
    """A copy of the shared workspace, to be changed."""
    return Workspace(shutil.copytree(finished.workspace.root, tmp_path / "runs"))


def test_the_operating_points_of_a_run_were_chosen_on_validation(finished):
    card, prepared = read_card(finished.student), finished.prepared
    chosen = {
        split: choose_operating_points(
            prepared,
            rows,
            predict(open_backend("torch", finished.student), prepared, rows, card.size),
            card.temperature,
        )
        for split in ("val", "test")
        for rows in [prepared.rows(split)]
    }
    for rule, points in chosen["val"].items():
        assert card.operating_points[rule] == pytest.approx(points, abs=1e-6)
    assert chosen["test"] != chosen["val"]


def test_a_run_and_its_bundle_agree_label_by_label(workspace, finished, bundled):
    student = finished.student.name
    shutil.copytree(bundled.path, workspace.export_dir(student))
    before = {path.name: path.read_bytes() for path in workspace.export_dir(student).iterdir()}
    ours, of_run = evaluate_model(workspace, None, None, "test", 50)  # the latest run
    theirs, of_bundle = evaluate_model(workspace, str(workspace.export_dir(student)), None, "test", 50)
    assert ours.card.name == theirs.card.name == student
    assert {path.name: path.read_bytes() for path in workspace.export_dir(student).iterdir()} == before
    assert set(of_run["findings"]["labels"]) == set(LABELS)
    assert of_run["skipped"] == of_bundle["skipped"] == {"Edema": {"positives": 0, "negatives": 12}}
    for label, row in (*of_run["findings"]["labels"].items(), ("abnormal", of_run["abnormal"])):
        other = of_bundle["abnormal"] if label == "abnormal" else of_bundle["findings"]["labels"][label]
        assert row.pop("operating").keys() == other.pop("operating").keys() == set(OPERATING_RULES)
        assert other == pytest.approx(row, abs=1e-6)
    (workspace.export_dir(student) / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx"):
        evaluate_model(workspace, str(workspace.export_dir(student)), None, "test", 50)


def test_a_card_keeps_every_result_and_the_run_stays_as_old_as_it_was(workspace, finished):
    run = workspace.root / finished.student.name
    before, changed = read_card(run), (run / "card.json").stat().st_mtime_ns
    _, on_test = evaluate_model(workspace, run.name, None, "test", 50)
    _, on_val = evaluate_model(workspace, run.name, None, "val", 60)
    card = read_card(run)
    assert card.metrics == {"clinic/test": on_test, "clinic/val": on_val}
    assert on_val["bootstrap"]["replicates"] == 60
    assert asdict(card) | {"metrics": {}} == asdict(before)
    assert (run / "card.json").stat().st_mtime_ns == changed
    _, again = evaluate_model(workspace, run.name, None, "test", 50)
    assert again == on_test  # the same bootstrap replicates


def test_progress_counts_the_films(workspace, finished):
    calls = []
    evaluate_model(workspace, finished.teacher.name, None, "train", 10, lambda *call: calls.append(call))
    assert calls[-1] == (24, 24)


def test_another_data_set_must_ask_the_model_s_questions(workspace):
    write_prepared(workspace.data_dir("other"), *striped(24), labels=("Edema", "Fibrosis"))
    with pytest.raises(InputError, match="data set other lacks Cardiomegaly, Nodule/Mass, which"):
        evaluate_model(workspace, None, "other", "test", 10)
    assert all(read_card(run).metrics == {} for run in workspace.finished_runs())


class LeftHalf:
    """Sees the first finding, the bright left half, or its opposite; all else it guesses."""

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def run(self, images):
        left = self.sign * (images[:, 0, :, : images.shape[3] // 2].mean((1, 2)) - images[:, 0].mean((1, 2)))
        constant = np.zeros_like(left)
        attention = np.full((len(left), 7, 7), 1 / 49, np.float32)
        return Outputs(np.stack([left, constant, constant], axis=1), constant, attention)

    def close(self) -> None:
        pass


def test_a_comparison_is_ours_minus_theirs_on_the_same_patients(workspace, finished, monkeypatch):
    signs = {workspace.root / finished.student.name: 1, workspace.root / finished.teacher.name: -1}
    names = [run.name for run in signs]
    monkeypatch.setattr(evaluation, "open_backend", lambda name, run: LeftHalf(signs[run]))

    def against(ours, theirs):
        return evaluate_model(workspace, ours, None, "test", 1000, against=theirs)[1]["against"]

    gain, loss = against(*names), against(*names[::-1])
    # The first finding has the AUROCs 1 and 0, the second 0.5 and 0.5, the third none; so has every replicate, but for
    # those that lost a class of a finding, where the other counts alone.
    macro = gain["findings"]["macro"]
    assert macro["difference"] == 0.5
    assert 0 <= macro["low"] <= 0.5 <= macro["high"] <= 1
    assert (loss["findings"]["macro"]["difference"], loss["findings"]["macro"]["low"]) == (-0.5, -macro["high"])
    assert gain["findings"]["labels"]["Cardiomegaly"] == {
        "difference": 1, "low": 1, "high": 1, "p": pytest.approx(2 / 1000, rel=0.1)
    }  # fmt: skip
    assert gain["abnormal"] == {"difference": 0, "low": 0, "high": 0, "p": 1}
    assert set(gain["findings"]["labels"]) == set(LABELS)  # Edema has one class
    with pytest.raises(UsageError, match=r"compared with itself: .*--against"):
        against(names[0], names[0])
    assert gain["model"] == names[1]
    # What a card keeps is about the run alone.
    assert "against" not in read_card(workspace.root / names[0]).metrics["clinic/test"]


def test_a_run_and_its_bundle_are_compared_and_a_prevalence_is_a_share(workspace, finished, bundled):
    shutil.copytree(bundled.path, workspace.export_dir("student"))
    bundle = str(workspace.export_dir("student"))
    ours, record = evaluate_model(workspace, finished.student.name, None, "test", 20, against=bundle)
    assert abs(record["against"]["findings"]["macro"]["difference"]) < 1e-9
    text = table(ours.card.name, record)
    assert f"AUROC minus that of {finished.student.name}, paired" in text
    assert text.count("p-value") == 1
    for wrong in (0.0, 1.0, 5.0):
        with pytest.raises(UsageError, match="--prevalence"):
            evaluate_model(workspace, None, None, "test", 10, prevalence=wrong)


def test_a_split_that_there_is_not_is_refused(workspace):
    with pytest.raises(UsageError, match="--split training: there are train, val, test"):
        evaluate_model(workspace, None, None, "training", 10)


def test_a_finding_whose_interval_reaches_chance_is_marked_wherever_it_stands(workspace, finished):
    names = finished.student.name, finished.teacher.name
    ours, record = evaluate_model(workspace, names[0], None, "test", 50, against=names[1])
    tasks = {**record["findings"]["labels"], "normal/abnormal": record["abnormal"]}
    for lows in ((0.5, 0.51, 0.7), (0.6, 0.3, 0.5), (0.6, 0.6, 0.6)):
        for row, low in zip(tasks.values(), lows, strict=True):
            row["low"] = low
        record["findings"]["macro"]["low"] = 0.6
        lines = table(ours.card.name, record).splitlines()
        for (label, row), low in zip(tasks.items(), lows, strict=True):
            shown = [line.split("  ")[0] for line in map(str.strip, lines) if line.startswith(label)]
            assert len(shown) == 1 + len(row["operating"]) + 1
            assert set(shown) == {label if low > 0.5 else f"{label}?"}
        # Edema has one class: these films cannot tell.
        assert any(line.startswith("Edema?  skipped") for line in lines)
        assert sum(line.startswith("? unreliable") for line in lines) == 1


def test_the_table_names_every_label_once_with_its_counts(workspace, finished):
    ours, record = evaluate_model(workspace, finished.student.name, None, "test", 50)
    name = ours.card.name
    lines = table(name, record).splitlines()
    assert lines[0].startswith(
        "student-tiny-28-mlcak-clinic on clinic (synthetic phantom films) test: 12 images, 6 patients"
    )
    assert "phantom" not in table(name, record | {"phantom": False})
    for label, row in record["findings"]["labels"].items():
        marked = label if row["low"] > 0.5 else f"{label}?"
        [line] = [line for line in lines if line.startswith(f"{marked} ")]
        points = [line for line in lines if line.startswith(f"  {marked} ")]
        assert len(points) == len(row["operating"]) == 3
        shown = line.removeprefix(marked).split()
        assert shown[0] == f"{row['auroc']:.3f}"
        assert shown[4] == f"{row['auprc']:.3f}"
        assert shown[8:10] == [str(row["positives"]), str(row["negatives"])]
        # Twelve images cannot hold 20 of each class.
        assert shown[10:] == [f"{row['ece']:.3f}", "!"]
        at = row["operating"]["youden"]
        cells = points[0].strip().removeprefix(marked).split()
        assert (cells[0], cells[4]) == (f"{at['sensitivity']:.3f}", f"{at['specificity']:.3f}")
    assert sum(line.startswith("findings (macro)") for line in lines) == 1
    assert sum(line.strip().startswith("normal/abnormal") for line in lines) == 4  # AUROC, and operating points
    assert max(len(line) for line in lines if "! thresholds" not in line and "ECE)" not in line) <= 100
    assert any(line.startswith("Edema") and "skipped: 0 positive and 12 negative" in line for line in lines)
    assert any(line.startswith("! fewer than 20 positive or") for line in lines)
    assert lines[[line.startswith("findings (macro)") for line in lines].index(True)].endswith("  !")
    few = next(line for line in lines if line.startswith("! thresholds rest on fewer than 20 validation films"))
    assert "Edema (0 positive, 12 negative)" in few
    assert [line.split("  ")[0] for line in lines if "PPV" in line][1:] == [
        "Youden", "sensitivity >= 0.90", "sensitivity >= 0.95",
    ]  # fmt: skip
    assert lines[-2].startswith("Expected calibration error (ECE): findings ")
    assert "not for diagnosis" in lines[-1]
    json.dumps(record, allow_nan=False)
