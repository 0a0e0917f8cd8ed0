from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgecxr.bundle.card import ModelCard
from edgecxr.engines.backend import open_backend
from edgecxr.errors import CheckFailed
from edgecxr.infer.predictor import Predictor
from tests.cli_workspace import edgecxr
from tests.engines.onnxruntime_gpu import Gpu
from tests.test_cli import scan
from tests.tiny_bundle import tiny_bundle, tiny_card, tiny_onnx


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_onnx(tmp_path / "model.onnx")


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).random((count, 1, 28, 28), np.float32)


FILM = np.linspace(0, 1, 224 * 224, dtype=np.float32).reshape(224, 224)


def affine(values: list[np.ndarray], batches: list[int]) -> None:
    values[0][:] = -5 * values[0] + 7


def nan(values: list[np.ndarray], batches: list[int]) -> None:
    values[1][-1] = np.nan


def in_batches(values: list[np.ndarray], batches: list[int]) -> None:
    if batches[-1] == 3:
        values[2][:] = values[2].swapaxes(1, 2).copy()


def single_ones_after_larger(values: list[np.ndarray], batches: list[int]) -> None:
    """The engine that is built for a larger batch serves the smaller ones from then on, and answers them wrongly."""
    if batches[-1] == 1 and max(batches) > 1:
        values[0][:, 0] += 0.1


def test_right_engines_answer_what_their_file_answers(model: Path, gpu: Gpu) -> None:
    backend, plain = open_backend("onnxruntime-tensorrt", model), open_backend("onnxruntime", model)
    for count in (2, 1, 40):
        np.testing.assert_array_equal(backend.run(images(count)).findings, plain.run(images(count)).findings)


@pytest.mark.parametrize("wrong", [affine, nan])
def test_a_wrong_engine_gives_no_result(wrong: Any, model: Path, gpu: Gpu) -> None:
    gpu.wrong = wrong
    backend = open_backend("onnxruntime-tensorrt", model)
    for _ in range(2):
        with pytest.raises(CheckFailed, match=r"model\.onnx on TensorRT"):
            backend.run(images(1))


@pytest.mark.parametrize("wrong", [in_batches, single_ones_after_larger])
def test_an_engine_for_a_larger_batch_is_compared_too(wrong: Any, model: Path, gpu: Gpu) -> None:
    gpu.wrong = wrong
    backend = open_backend("onnxruntime-tensorrt", model)
    backend.run(images(1))
    with pytest.raises(CheckFailed):
        backend.run(images(3))


def test_a_batch_between_those_that_were_compared_costs_nothing_more(model: Path, gpu: Gpu) -> None:
    ran: list[int] = []
    gpu.wrong = lambda values, batches: ran.append(batches[-1])
    backend = open_backend("onnxruntime-tensorrt", model)
    backend.run(images(1))
    backend.run(images(4))
    ran.clear()
    backend.run(images(3))
    assert ran == [3]


def test_a_bundle_is_compared_with_its_gate_and_labels(tmp_path: Path, gpu: Gpu) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")

    def features(values: list[np.ndarray], batches: list[int]) -> None:
        values[3][:] = 0

    with Predictor(bundle, "onnxruntime-tensorrt") as predictor:
        assert predictor.predict(FILM).warnings == ()
    gpu.wrong = features
    with Predictor(bundle, "onnxruntime-tensorrt") as predictor, pytest.raises(CheckFailed, match="features"):
        predictor.predict(FILM)


def test_infer_ends_with_6_and_prints_no_result(tmp_path: Path, gpu: Gpu) -> None:
    gpu.wrong = affine
    bundle = tiny_bundle(tmp_path / "bundle").path
    typed = edgecxr("infer", scan(tmp_path), "--model", bundle, "--backend", "onnxruntime-tensorrt", runs=tmp_path)
    assert (typed.code, typed.out) == (6, "")
    assert "findings (" in typed.error


@pytest.mark.parametrize(
    ("facts", "half", "int8"),
    [
        (None, False, False),
        ({"precision": "fp32"}, False, False),
        ({"precision": "fp16"}, True, False),
        ({"precision": "int8", "float_part": "fp32"}, False, True),
        ({"precision": "int8", "float_part": "fp16"}, True, True),
    ],
)
def test_tensorrt_may_compute_in_the_precisions_that_the_card_states(
    facts: dict[str, str] | None, half: bool, int8: bool, model: Path, gpu: Gpu
) -> None:
    if facts is not None:
        card: ModelCard = tiny_card(artefacts={"model.onnx": facts})
        model.with_name("card.json").write_text(card.to_json())
    open_backend("onnxruntime-tensorrt", model)
    assert (gpu.options()["trt_fp16_enable"], gpu.options()["trt_int8_enable"]) == (half, int8)
    assert gpu.options()["trt_layer_norm_fp32_fallback"] is half
    assert gpu.options(1)["use_tf32"] == 0


def test_engines_are_kept_by_the_content_of_the_model_where_no_bundle_can_put_any(
    model: Path, tmp_path: Path, gpu: Gpu
) -> None:
    def cache(path: Path) -> Path:
        open_backend("onnxruntime-tensorrt", path)
        assert gpu.options()["trt_engine_cache_enable"] is True
        return Path(gpu.options()["trt_engine_cache_path"])

    first = cache(model)
    assert first.is_relative_to(tmp_path / "cache") and first.stat().st_mode & 0o777 == 0o700
    moved = tmp_path / "other" / "model.onnx"
    moved.parent.mkdir()
    moved.write_bytes(model.read_bytes())
    assert cache(moved) == first
    graph = onnx.load(model)
    next(value for value in graph.graph.initializer if value.name == "two").raw_data = np.float32(3).tobytes()
    onnx.save_model(graph, model)
    assert cache(model) != first


def test_without_a_place_for_engines_none_are_kept(model: Path, tmp_path: Path, gpu: Gpu) -> None:
    (tmp_path / "cache").write_text("a file")
    open_backend("onnxruntime-tensorrt", model)
    assert "trt_engine_cache_enable" not in gpu.options()
