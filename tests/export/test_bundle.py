"""The bundle of a trained student."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest

from edgecxr.errors import CheckFailed, ModelError
from edgecxr.export import bundle as exporting
from edgecxr.export.bundle import export_bundle
from edgecxr.export.onnx import LOGIT_TOLERANCE
from edgecxr.metrics import sigmoid
from edgecxr.runtime.bundle import Bundle
from edgecxr.runtime.predictor import Predictor
from edgecxr.runtime.types import Radiograph
from edgecxr.train.checkpoint import open_checkpoint, read_card
from tests.conftest import striped, write_prepared


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_carries_the_card_of_its_run(bundled, finished):
    card, run = Bundle.open(bundled[0].path).card, read_card(finished.student)
    for field in ("name", "labels", "operating_points", "size", "tokens", "sha256", "teacher", "data", "training"):
        assert getattr(card, field) == getattr(run, field)
    assert run.artefacts == {}
    facts = card.artefacts["model.onnx"]
    model = (bundled[0].path / "model.onnx").read_bytes()
    assert facts["sha256"] == hashlib.sha256(model).hexdigest()
    assert (facts["bytes"], facts["opset"], facts["precision"]) == (len(model), 18, "fp32")
    assert facts["parity"] == bundled[1] | {"data": "clinic"}
    assert bundled[1]["images"] == len(finished.prepared.rows("val"))
    assert max(bundled[1]["max_logit_difference"], bundled[1]["max_attention_difference"]) <= LOGIT_TOLERANCE


def test_a_bundle_is_whole_until_it_is_touched(bundled, tmp_path):
    copy = shutil.copytree(bundled[0].path, tmp_path / "copy")
    assert all(whole for _, whole in Bundle.open(copy).verify())
    model = bytearray((copy / "model.onnx").read_bytes())
    model[-1] ^= 1
    (copy / "model.onnx").write_bytes(model)
    with pytest.raises(ModelError, match=r"model\.onnx"):
        Predictor(Bundle.open(copy))


def test_the_device_says_of_a_film_what_the_checkpoint_says(bundled, finished):
    base = finished.prepared.images[7]
    film = Radiograph(base.astype(np.float32) / np.float32(255), "film")
    said = Predictor(Bundle.open(bundled[0].path)).predict(film.pixels)
    images = (base.reshape(28, 8, 28, 8).astype(np.float64).mean(axis=(1, 3)) / 255).astype(np.float32)
    expected = open_checkpoint(finished.student).run(images[None, None])
    assert list(said.findings.values()) == pytest.approx(sigmoid(expected.findings[0]).tolist(), abs=1e-5)
    assert said.abnormal == pytest.approx(float(sigmoid(expected.abnormal)[0]), abs=1e-5)
    points = read_card(finished.student).operating_points["youden"]
    assert said.decisions["Cardiomegaly"] == (said.findings["Cardiomegaly"] >= points["Cardiomegaly"])


def test_a_failed_check_writes_nothing_and_keeps_what_was_there(bundled, finished, tmp_path, monkeypatch):
    dest = tmp_path / "bundle"
    shutil.copytree(bundled[0].path, dest)
    before = files(tmp_path)
    monkeypatch.setattr(exporting, "export_fp32", lambda model, card, path: shutil.copy(dest / "model.onnx", path))
    monkeypatch.setattr(exporting, "compare", lambda *_: bundled[1] | {"max_attention_difference": float("nan")})
    for place in (dest, tmp_path / "new"):
        with pytest.raises(CheckFailed, match="student-tiny-28-mlcak differs"):
            export_bundle(finished.student, finished.prepared, place)
    assert files(tmp_path) == before


def test_a_damaged_run_is_not_exported(finished, tmp_path):
    run = shutil.copytree(finished.student, tmp_path / "run")
    (run / "best.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"best\.safetensors has changed"):
        export_bundle(run, finished.prepared, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_large_splits_are_sampled_from_end_to_end(finished, tmp_path, monkeypatch):
    seen = []

    def compare(reference, candidate, images):
        seen.append(images)
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "compare", compare)
    monkeypatch.setattr(exporting, "export_fp32", lambda *_: None)
    monkeypatch.setattr(exporting, "OnnxRuntimeBackend", lambda path: None)
    monkeypatch.setattr(exporting, "CHECKED_IMAGES", 5)
    _, targets, abnormal, _ = striped(24)
    images = np.broadcast_to(np.arange(24, dtype=np.uint8)[:, None, None], (24, 224, 224))
    prepared = write_prepared(tmp_path / "many", images, targets, abnormal, ["train"] * 3 + ["val"] * 21)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(finished.student, prepared, tmp_path / "bundle")
    assert (seen[0][:, 0, 0, 0] * 255).round().tolist() == [3, 8, 13, 18, 23]
