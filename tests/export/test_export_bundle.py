"""The bundle of a trained student."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import onnx
import pytest

from edgecxr.bundle.bundle import Bundle
from edgecxr.engines.target import load_target
from edgecxr.errors import CheckFailed, InputError, ModelError, UsageError
from edgecxr.export import export_bundle as exporting
from edgecxr.export.export_bundle import export_bundle
from edgecxr.export.lower_precision import weighted_layers
from edgecxr.export.recipe import Recipe
from edgecxr.films.radiograph import Radiograph
from edgecxr.infer.predictor import Predictor
from edgecxr.metrics import sigmoid
from edgecxr.train.checkpoint import open_checkpoint, read_card
from tests.conftest import striped, write_prepared


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_carries_the_card_of_its_run(bundled, finished):
    card, run = Bundle.open(bundled.path).card, read_card(finished.student)
    for field in ("name", "labels", "operating_points", "size", "tokens", "sha256", "teacher", "data", "training"):
        assert getattr(card, field) == getattr(run, field)
    assert run.artefacts == {}
    facts = card.artefacts["model.onnx"]
    model = (bundled.path / "model.onnx").read_bytes()
    assert facts["sha256"] == hashlib.sha256(model).hexdigest()
    assert (facts["bytes"], facts["opset"], facts["precision"]) == (len(model), 17, "fp32")
    parity = facts["parity"]
    assert (parity["data"], parity["images"]) == ("clinic", len(finished.prepared.rows("val")))
    assert max(parity["max_logit_difference"], parity["max_attention_difference"]) <= 1e-4


def test_a_bundle_is_whole_until_it_is_touched(bundled, tmp_path):
    copy = shutil.copytree(bundled.path, tmp_path / "copy")
    assert all(whole for _, whole in Bundle.open(copy).verify())
    model = bytearray((copy / "model.onnx").read_bytes())
    model[-1] ^= 1
    (copy / "model.onnx").write_bytes(model)
    with pytest.raises(ModelError, match=r"model\.onnx"):
        Predictor(Bundle.open(copy))


def test_the_device_says_of_a_film_what_the_checkpoint_says(bundled, finished):
    base = finished.prepared.images[7]
    film = Radiograph(base.astype(np.float32) / np.float32(255), "film")
    prediction = Predictor(Bundle.open(bundled.path)).predict(film.pixels)
    images = (base.reshape(28, 8, 28, 8).astype(np.float64).mean(axis=(1, 3)) / 255).astype(np.float32)
    expected = open_checkpoint(finished.student).run(images[None, None])
    card = read_card(finished.student)
    divisors = np.array([card.temperature[label] for label in card.labels])
    assert list(prediction.findings.values()) == pytest.approx(
        sigmoid(expected.findings[0] / divisors).tolist(), abs=1e-5
    )
    assert prediction.abnormal == pytest.approx(
        float(sigmoid(expected.abnormal / card.temperature["abnormal"])[0]), abs=1e-5
    )
    points = card.operating_points["youden"]
    assert prediction.decisions["Cardiomegaly"] == (prediction.findings["Cardiomegaly"] >= points["Cardiomegaly"])


def test_a_failed_check_writes_nothing_and_keeps_what_was_there(bundled, finished, tmp_path, monkeypatch):
    dest = tmp_path / "bundle"
    shutil.copytree(bundled.path, dest)
    before = files(tmp_path)
    monkeypatch.setattr(
        exporting, "export_fp32", lambda model, card, path, profile, **kinds: shutil.copy(dest / "model.onnx", path)
    )
    differences = bundled.card.artefacts["model.onnx"]["parity"] | {"max_attention_difference": float("nan")}
    monkeypatch.setattr(exporting, "compare", lambda *_: differences)
    for place in (dest, tmp_path / "new"):
        with pytest.raises(CheckFailed, match="student-tiny-28-mlcak-clinic differs"):
            export_bundle(finished.student, finished.prepared, place, Recipe(logit_tolerance=2e-5))  # not up to date
    assert files(tmp_path) == before


def test_a_damaged_run_is_not_exported(finished, tmp_path):
    run = shutil.copytree(finished.student, tmp_path / "run")
    (run / "best.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"best\.safetensors has changed"):
        export_bundle(run, finished.prepared, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_large_splits_are_sampled_from_end_to_end(finished, tmp_path, monkeypatch):
    batches = []

    def compare(reference, candidate, images):
        batches.append(images)
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "compare", compare)
    monkeypatch.setattr(exporting, "export_fp32", lambda *_, **kinds: None)
    monkeypatch.setattr(exporting, "OnnxRuntimeBackend", lambda path: None)
    monkeypatch.setattr(exporting, "CHECKED_IMAGES", 5)
    _, targets, abnormal, _ = striped(24)
    images = np.broadcast_to(np.arange(24, dtype=np.uint8)[:, None, None], (24, 224, 224))
    prepared = write_prepared(tmp_path / "many", images, targets, abnormal, ["train"] * 3 + ["val"] * 21)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(finished.student, prepared, tmp_path / "bundle")
    assert (batches[0][:, 0, 0, 0] * 255).round().tolist() == [3, 8, 13, 18, 23]


def test_without_validation_images_there_is_nothing_to_check_on(finished, tmp_path):
    images, targets, abnormal, _ = striped(24)
    prepared = write_prepared(tmp_path / "noval", images, targets, abnormal, ["train"] * 24)
    with pytest.raises(InputError, match="no validation images"):
        export_bundle(finished.student, prepared, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    with pytest.raises(InputError) as caught:
        exporting.layer_costs(finished.student, prepared, Recipe(), tmp_path)
    assert caught.value.reason == "dataset"


def test_a_bundle_has_three_precisions_each_with_its_verdict(complete):
    artefacts = complete.card.artefacts
    assert list(artefacts) == ["model.onnx", "model.fp16.onnx", "model.int8.onnx"]
    assert [facts["precision"] for facts in artefacts.values()] == ["fp32", "fp16", "int8"]
    assert {facts["profile"] for facts in artefacts.values()} == {"modern"}
    fp32, fp16, int8 = artefacts.values()
    assert "verdict" not in fp32 and fp32["parity"]["max_logit_difference"] <= 1e-4
    for facts, tolerance in ((fp16, 0.005), (int8, 0.01)):
        assert facts["verdict"]["status"] == "unresolved"  # it has too few films of each kind
        assert facts["verdict"]["undecided"] == [*complete.card.labels, "abnormal"]
        assert facts["verdict"]["tolerance"] == tolerance
        assert facts["verdict"]["images"] == 24
        assert facts["parity"]["max_logit_difference"] > fp32["parity"]["max_logit_difference"]
    # Of twelve blocks it is 0.28: names and scales weigh more in two.
    assert int8["bytes"] <= 0.4 * fp32["bytes"] and fp16["bytes"] <= 0.55 * fp32["bytes"]
    calibration = int8["calibration"]
    assert (calibration["images"], calibration["split"], calibration["data"]) == (48, "train", "films")
    assert {row["method"] for row in calibration["tried"]} == {"minmax", "percentile", "entropy"}
    best = max(calibration["tried"], key=lambda row: (row["val_auroc"], -row["rms_logit_difference"]))
    assert calibration["method"] == best["method"]
    assert int8["layers"] == {"int8": 12, "float": []} and int8["float_part"] == "fp32"


def test_every_precision_predicts(complete, films):
    film = Radiograph(films.images[0].astype(np.float32) / np.float32(255), "film")
    answers = {
        precision: Predictor(complete, precision=precision).predict(film).abnormal
        for precision in ("fp32", "fp16", "int8")
    }
    assert answers["fp16"] == pytest.approx(answers["fp32"], abs=0.01) and answers["fp16"] != answers["fp32"]
    assert answers["int8"] == pytest.approx(answers["fp32"], abs=0.1) and answers["int8"] != answers["fp32"]


def test_an_artefact_that_fails_is_named_with_its_worst_layers_and_nothing_is_written(
    finished, tmp_path_factory, tmp_path
):
    images, targets, abnormal, splits = striped(240, seed=9)  # enough films of each kind to judge by
    targets = np.column_stack([targets, np.zeros(240, np.float32)])
    many = write_prepared(
        tmp_path_factory.mktemp("many") / "many", images, targets, abnormal, splits, finished.prepared.labels
    )
    dest = tmp_path / "bundle"
    strict = Recipe(precisions=("int8",), auroc_tolerance={"int8": 0.0}, calibration_methods=("minmax",))

    with pytest.MonkeyPatch.context() as patch:
        # Logits that the quantised file did not give: noise, so that the AUROC falls surely.
        rng = np.random.default_rng(0)
        patch.setattr(exporting, "logits_of", lambda *_: rng.normal(size=(60, 4)).astype(np.float32))
        with pytest.raises(CheckFailed, match=r"int8 .*student-tiny-28-mlcak-clinic .* --keep-float 3") as caught:
            export_bundle(finished.student, many, dest, strict)
    assert "Most is lost in " in str(caught.value)
    assert sum(name in str(caught.value) for name in ("blocks.", "_head", "patch_embed.proj")) >= 1
    assert list(tmp_path.iterdir()) == []


def test_validation_films_of_one_class_decide_nothing(finished, tmp_path):
    images, targets, _, splits = striped(96, seed=9)
    targets = np.column_stack([targets, np.zeros(96, np.float32)])
    abnormal = np.ones(96, np.float32)
    films = write_prepared(tmp_path / "ill", images, targets, abnormal, splits, finished.prepared.labels)
    card = export_bundle(finished.student, films, tmp_path / "bundle", Recipe(precisions=("fp32", "fp16"))).card
    verdict = card.artefacts["model.fp16.onnx"]["verdict"]
    assert verdict["status"] == "unresolved" and "abnormal" in str(verdict)


def test_kept_layers_stay_floating_point(finished, films, tmp_path):
    recipe = Recipe(precisions=("int8",), keep_float=2, calibration_methods=("minmax",))
    bundle = export_bundle(finished.student, films, tmp_path / "bundle", recipe)
    facts = bundle.card.artefacts["model.int8.onnx"]
    assert facts["layers"]["int8"] == 10 and len(facts["layers"]["float"]) == 2
    graph = onnx.load(tmp_path / "bundle" / "model.int8.onnx").graph
    operator_of = {output: node.op_type for node in graph.node for output in node.output}
    for node in graph.node:
        if node.name in facts["layers"]["float"]:
            assert operator_of.get(node.input[0]) != "DequantizeLinear"


def test_a_target_decides_profile_and_float_part_and_travels_in_the_card(finished, films, tmp_path):
    target = load_target("jetson-xavier")
    recipe = Recipe(calibration_methods=("minmax",))
    card = export_bundle(finished.student, films, tmp_path / "bundle", recipe, target).card
    assert card.target["name"] == "jetson-xavier"
    assert {facts["profile"] for facts in card.artefacts.values()} == {"legacy"}
    # Files for TensorRT multiply query, key and value apart; those for CPUs do not.
    assert {f"blocks.0.attn.{name}" for name in "qkv"} < set(weighted_layers(tmp_path / "bundle" / "model.onnx"))
    assert {facts["opset"] for facts in card.artefacts.values()} == {13}
    int8 = card.artefacts["model.int8.onnx"]
    assert int8["float_part"] == "fp16" and int8["float32_nodes"]


def test_a_recipe_for_another_model_is_refused(finished, films, tmp_path):
    with pytest.raises(UsageError, match="size 56, and student-tiny-28-mlcak-clinic has 28"):
        export_bundle(finished.student, films, tmp_path / "bundle", Recipe(size=56))
    assert not (tmp_path / "bundle").exists()
