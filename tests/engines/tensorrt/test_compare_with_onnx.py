"""No engine is used that does not compute what ONNX Runtime computes from its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgecxr.bundle.bundle import Bundle, sha256_of, write_bundle
from edgecxr.bundle.engine_record import EngineRecord
from edgecxr.bundle.gate import FILE as GATE
from edgecxr.engines.check_films import check_films
from edgecxr.engines.reference import MULTIPLES, TOLERANCE
from edgecxr.engines.tensorrt import buffers
from edgecxr.engines.tensorrt.build import build_engine
from edgecxr.engines.tensorrt.compare_with_onnx import check_batches, verify_engine
from edgecxr.engines.tensorrt.engine import TensorRTBackend
from edgecxr.errors import CheckFailed, InputError, MissingPackage, ModelError
from tests.cli_workspace import edgecxr
from tests.fake_tensorrt import Fake
from tests.tiny_bundle import tiny_card, tiny_onnx

Arrays = dict[str, np.ndarray]


def rounded(tmp_path: Path, two: float = 2.01) -> Bundle:
    """Return a bundle whose FP16 and INT8 files differ from the FP32 file by two - 2 in each logit."""
    exact, other = tiny_onnx(tmp_path / "exact.onnx"), tiny_onnx(tmp_path / "other.onnx")
    graph = onnx.load(other)
    constant = next(value for value in graph.graph.initializer if value.name == "two")
    constant.CopyFrom(numpy_helper.from_array(np.array(two, np.float32), "two"))
    onnx.save_model(graph, other)
    files = {"model.onnx": other, "model.fp16.onnx": exact, "model.int8.onnx": exact}
    precisions = ("fp32", "fp16", "int8")
    artefacts = {
        name: {"precision": precision, "sha256": sha256_of(path)}
        for (name, path), precision in zip(files.items(), precisions, strict=True)
    }
    gate = tmp_path / GATE
    np.save(gate, np.zeros((1, 4), np.float32))
    return write_bundle(tmp_path / "rounded", tiny_card(artefacts=artefacts), files | {GATE: gate})


def refused(bundle: Bundle, precision: str = "fp32", **options: Any) -> str:
    with pytest.raises(CheckFailed) as caught:
        build_engine(bundle, precision, **options)
    assert caught.value.exit_code == 6
    assert not list((bundle.path / "engines").glob("[!.]*"))
    with pytest.raises(ModelError):
        TensorRTBackend(bundle.artefact(precision))
    return str(caught.value)


def affine(outputs: Arrays) -> None:
    for name in ("findings", "abnormal"):
        outputs[name][:] = -5 * outputs[name] + 7


def swapped_findings(outputs: Arrays) -> None:
    outputs["findings"][:] = outputs["findings"][:, ::-1].copy()


def swapped_tasks(outputs: Arrays) -> None:
    outputs["abnormal"][:] = outputs["findings"][:, 1].copy()


def nan_once(outputs: Arrays) -> None:
    outputs["attention"][-1] = np.nan


def infinite(outputs: Arrays) -> None:
    outputs["features"][0, 2] = np.inf


def zero_features(outputs: Arrays) -> None:
    outputs["features"][:] = 0


def turned_attention(outputs: Arrays) -> None:
    outputs["attention"][:] = outputs["attention"].swapaxes(1, 2).copy()


def in_batches_only(outputs: Arrays) -> None:
    if len(outputs["abnormal"]) > 1:
        outputs["findings"][-1] += 0.5


def constant(outputs: Arrays) -> None:
    outputs["findings"][:] = 0
    outputs["abnormal"][:] = 0


def of_the_neighbour(outputs: Arrays) -> None:
    outputs["findings"][:] = np.roll(outputs["findings"], 1, axis=0)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (affine, "findings ("), (swapped_findings, "findings ("), (swapped_tasks, "abnormal"), (nan_once, "attention"),
        (infinite, "features"), (zero_features, "features"), (turned_attention, "attention"), (constant, "findings ("),
        (in_batches_only, "findings ("), (of_the_neighbour, "findings ("),
    ],
)  # fmt: skip
def test_an_engine_that_answers_wrongly_is_not_written(
    fake: Fake, bundle: Bundle, wrong: Callable[[Arrays], None], named: str
) -> None:
    fake.wrong = wrong
    message = refused(bundle)
    assert named in message and str(bundle.artefact()) in message


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("wrong", [affine, swapped_tasks, nan_once, zero_features, turned_attention, in_batches_only])
def test_a_lower_precision_is_no_excuse(
    fake: Fake, tmp_path: Path, wrong: Callable[[Arrays], None], precision: str
) -> None:
    fake.wrong = wrong
    refused(rounded(tmp_path), precision)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    column=st.integers(0, 3),
    error=st.floats(-1, 1).filter(lambda error: abs(error) > 1.2 * TOLERANCE or abs(error) < 0.8 * TOLERANCE),
    film=st.integers(0, 31),
)
def test_one_wrong_logit_of_one_film_is_found(fake: Fake, bundle: Bundle, column: int, error: float, film: int) -> None:
    means = check_films(28)[film].mean()  # the film is recognised by its content

    def wrong(outputs: Arrays) -> None:
        row = np.abs(outputs["features"].mean(axis=1) - means) < 1e-6
        if column == 3:
            outputs["abnormal"][row] += error
        else:
            outputs["findings"][row, column] += error

    fake.wrong = wrong
    if abs(error) < TOLERANCE:
        build_engine(bundle, "fp32", batches=(1, 1, 4), force=True)
        return
    with pytest.raises(CheckFailed) as caught:
        build_engine(bundle, "fp32", batches=(1, 1, 4), force=True)
    assert (*(f"findings ({label})" for label in bundle.card.labels), "abnormal")[column] in str(caught.value)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precisions_may_differ_by_a_multiple_of_what_the_file_loses(
    fake: Fake, tmp_path: Path, precision: str
) -> None:
    bundle, most = rounded(tmp_path), 0.01 * MULTIPLES[precision] + TOLERANCE

    def off(by: float) -> Callable[[Arrays], None]:
        return lambda outputs: outputs["abnormal"].__iadd__(by)

    fake.wrong = off(1.02 * most)
    assert "abnormal" in refused(bundle, precision)
    fake.wrong = off(0.98 * most)
    path = build_engine(bundle, precision)
    (comparison,) = EngineRecord.read(path.with_suffix(".json"))[0].verified.values()
    assert comparison["worst"]["output"] == "abnormal" and comparison["max_logit_difference"] == pytest.approx(
        0.98 * most, rel=0.01
    )


@pytest.mark.parametrize("batches", [(1, 1, 1), (1, 2, 5), (4, 8, 64), (7, 7, 7)])
def test_the_smallest_and_the_largest_batch_are_tried(
    fake: Fake, bundle: Bundle, batches: tuple[int, int, int]
) -> None:
    build_engine(bundle, "fp32", batches=batches)
    tried = {size for (size,) in fake.named("execute")}
    assert {max(1, batches[0]), batches[1], batches[2]} <= tried
    assert fake.named("replay")  # as a CUDA graph, too
    assert max(check_batches(batches)) == batches[2] and 1 in check_batches(batches)


def test_an_engine_without_the_features_of_its_file_is_refused(fake: Fake, bundle: Bundle) -> None:
    fake.fails.add("features")
    assert "features" in refused(bundle)


def test_a_bundle_of_before_whose_model_has_no_features_for_its_gate(
    fake: Fake, bundle: Bundle, tmp_path: Path
) -> None:
    fake.fails.add("features")
    old = tiny_onnx(tmp_path / "old.onnx", features=False)
    before = write_bundle(tmp_path / "before", tiny_card(), {"model.onnx": old, GATE: bundle.path / GATE})
    with pytest.raises(ModelError, match="features"):
        build_engine(before, "fp32")
    assert not fake.named("build")  # said before the build, which takes minutes


def test_a_gate_that_would_judge_otherwise_is_found(fake: Fake, tmp_path: Path) -> None:
    """Features that differ little for their size, but much for the gate."""
    model, gate = tiny_onnx(tmp_path / "m.onnx"), tmp_path / GATE
    np.save(gate, np.full((1, 4), 0.5, np.float32))
    card = tiny_card(gate=tiny_card().gate | {"rest": 1e-8, "sha256": sha256_of(gate)})
    bundle = write_bundle(tmp_path / "narrow", card, {"model.onnx": model, GATE: gate})

    def wrong(outputs: Arrays) -> None:
        outputs["features"] += 3e-4

    fake.wrong = wrong
    assert "gate" in refused(bundle)


def test_a_file_that_gives_no_numbers_is_not_built(fake: Fake, tmp_path: Path) -> None:
    bundle = rounded(tmp_path, two=np.nan)
    with pytest.raises(CheckFailed, match=r"model\.onnx"):
        build_engine(bundle, "fp16")
    assert not fake.named("build")


def test_what_the_comparison_needs_is_looked_for_before_the_build(
    fake: Fake, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise MissingPackage("pycuda", "tensorrt", "the tensorrt backend")

    monkeypatch.setattr(buffers, "open_buffers", absent)
    with pytest.raises(MissingPackage):
        build_engine(bundle, "fp32")
    assert not fake.named("build")


def test_films_are_like_films() -> None:
    films = check_films(56)
    assert films.shape == (32, 1, 56, 56) and films.dtype == np.float32
    assert films.min() >= 0 and films.max() <= 1 and np.isfinite(films).all()
    assert films.std(axis=(1, 2, 3)).min() > 0.05 and np.ptp(films.mean(axis=(1, 2, 3))) > 0.2
    np.testing.assert_array_equal(films, check_films(56))


# ---- build --verify


def test_the_command_ends_with_6_and_writes_nothing(fake: Fake, bundle: Bundle, tmp_path: Path) -> None:
    fake.wrong = affine
    typed = edgecxr("build", bundle.path, runs=tmp_path / "runs")
    assert typed.code == 6 and not typed.out and "findings (" in typed.error
    assert not list((bundle.path / "engines").glob("[!.]*"))


def test_an_engine_that_has_gone_wrong_since_is_no_longer_used(fake: Fake, bundle: Bundle, tmp_path: Path) -> None:
    record = build_engine(bundle, "fp32").with_suffix(".json")
    fake.wrong = affine
    typed = edgecxr("build", bundle.path, "--verify", runs=tmp_path / "runs")
    assert typed.code == 6 and not record.exists()
    with pytest.raises(ModelError):
        TensorRTBackend(bundle.artefact())


def test_verify_finds_the_same_numbers_and_keeps_them(fake: Fake, bundle: Bundle, tmp_path: Path) -> None:
    packed = tmp_path / "films.npz"
    np.savez(packed, images=np.random.default_rng(0).integers(0, 256, (5, 224, 224), dtype=np.uint8))
    path = build_engine(bundle, "fp32")
    comparisons = verify_engine(bundle, "fp32", packed)
    assert set(comparisons) == {"synthetic films, model.onnx", "films.npz, model.onnx"}
    assert comparisons["films.npz, model.onnx"]["images"] == 5
    assert all(0 <= differences["max_logit_difference"] < 1e-5 for differences in comparisons.values())
    assert json.loads(path.with_suffix(".json").read_text())["verified"] == comparisons


def test_verify_says_what_the_lower_precision_costs(fake: Fake, tmp_path: Path) -> None:
    bundle = rounded(tmp_path, two=2.5)
    build_engine(bundle, "fp16")
    comparisons = verify_engine(bundle, "fp16")
    assert comparisons["synthetic films, model.fp16.onnx"]["max_logit_difference"] < 1e-5
    assert comparisons["synthetic films, model.onnx"]["max_logit_difference"] == pytest.approx(0.5, abs=1e-4)


def test_verify_closes_what_it_opens(fake: Fake, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecxr.engines import reference

    build_engine(bundle, "fp32")
    closed: list[str] = []

    class Watched(reference.OnnxRuntimeBackend):
        def run(self, images: np.ndarray) -> Any:
            raise ModelError("no room")

        def close(self) -> None:
            closed.append("onnxruntime")
            super().close()

    monkeypatch.setattr(reference, "OnnxRuntimeBackend", Watched)
    with pytest.raises(ModelError):
        verify_engine(bundle, "fp32")
    assert closed == ["onnxruntime"]


@pytest.mark.parametrize("kind", ["absent", "text", "shape", "pickle"])
def test_packed_images_that_are_none(fake: Fake, bundle: Bundle, tmp_path: Path, kind: str) -> None:
    packed = tmp_path / "films.npz"
    if kind == "text":
        packed.write_text("no archive")
    elif kind != "absent":
        np.savez(packed, images=np.array([{}]) if kind == "pickle" else np.zeros((2, 28, 28), np.uint8))
    build_engine(bundle, "fp32")
    with pytest.raises(InputError, match=r"films\.npz"):
        verify_engine(bundle, "fp32", packed)
