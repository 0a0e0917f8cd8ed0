"""benchmarks/cpu_latency.py as a person runs it: that it counts, measures and judges, not how fast."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.tiny_bundle import tiny_bundle

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def script(name: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / name), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def flops(model: Path) -> dict[str, int]:
    done = script("flops.py", model)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_products_are_counted_as_by_hand(tmp_path: Path) -> None:
    weights = {
        "kernel": np.ones((5, 1, 4, 4), np.float32),
        "square": np.ones((5, 5), np.float32),
        "wide": np.ones((7, 3), np.float32),
        "tall": np.array([-1, 49], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["patches"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Reshape", ["patches", "tall"], ["rows"]),  # (5, 49)
        helper.make_node("Transpose", ["rows"], ["tokens"], perm=[1, 0]),
        helper.make_node("MatMul", ["tokens", "square"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "rows"], ["products"]),  # of two activations
        helper.make_node("Slice", ["products", "zero", "seven", "axis"], ["cut"]),  # (49, 7)
        helper.make_node("Gemm", ["cut", "wide"], ["out"]),
    ]
    weights |= {"zero": np.array([0]), "seven": np.array([7]), "axis": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 28, 28])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save_model(model, tmp_path / "model.onnx")
    assert flops(tmp_path / "model.onnx") == {
        "Conv": 2 * (7 * 7) * 5 * (4 * 4),
        "MatMul": 2 * 49 * 5 * 5 + 2 * 49 * 5 * 49,
        "Gemm": 2 * 49 * 7 * 3,
    }


@pytest.mark.slow
def test_a_tiny_vision_transformer_needs_what_its_dimensions_say(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from edgecxr.export.onnx import export_fp32
    from edgecxr.models.vit import TwoHeadViT
    from tests.tiny_bundle import tiny_card

    torch.manual_seed(0)
    export_fp32(TwoHeadViT("tiny", 28, 4, 14, 3).eval(), tiny_card(), tmp_path / "vit.onnx")
    operations = flops(tmp_path / "vit.onnx")
    tokens, width, depth = 50, 192, 3
    # Of a block: queries, keys and values, the output projection, the two layers of the MLP; and two products of
    # activations.
    block = 2 * tokens * width * (3 * width + width + 4 * width + 4 * width) + 2 * 2 * tokens * tokens * width
    assert operations["Conv"] == 2 * 49 * 16 * width
    assert operations["Gemm"] == 2 * width * (14 + 1)
    # The last one makes keys and values of all tokens, and the rest of the class token alone.
    last = 2 * width * (tokens * 2 * width + width + width + 8 * width) + 2 * 2 * tokens * width
    assert operations["MatMul"] == (depth - 1) * block + last


@pytest.mark.parametrize(
    ("limit", "code", "status"), [("1e15", 0, "pass"), pytest.param("0", 6, "fail", marks=pytest.mark.long)]
)
def test_every_engine_is_measured_and_the_best_is_judged(tmp_path: Path, limit: str, code: int, status: str) -> None:
    bundle, out = tiny_bundle(tmp_path / "tiny").path, tmp_path / "record.json"
    done = script("cpu_latency.py", "--model", bundle, "--rounds", 2, "--threads", 1, "--limit", limit, "--out", out)
    assert done.returncode == code, done.stderr
    assert ("limit exceeded: tiny-test, 1 thread, fp32 " in done.stderr) is (code == 6)
    record = json.loads(out.read_text())
    assert record["status"] == status
    (result,) = record["results"]
    assert {f"fp32 {name}" for name in ("onnxruntime", "openvino") if name not in record["settings"]["absent"]} == set(
        result["candidates"]
    )
    assert result["sgemm_gflops"]["min"] > 0.1
    for figures in result["candidates"].values():
        assert 0 < figures["latency_ms"]["min"] <= figures["latency_ms"]["median"] <= figures["latency_ms"]["max"]
    assert result["checks"][0]["ratio"] == min(figures["ratio"]["min"] for figures in result["candidates"].values())


def test_a_bundle_that_cannot_run_ends_the_benchmark(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", size=28)
    card: dict[str, Any] = json.loads((bundle.path / "card.json").read_text())
    (bundle.path / "card.json").write_text(json.dumps(card | {"size": 56}))
    done = script("cpu_latency.py", "--model", bundle.path, "--rounds", 1, "--threads", 1)
    assert done.returncode == 1
    assert re.search(r"takes float32 images .*\(N, 1, 28, 28\)", done.stderr) and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_without_a_bundle_student_and_teacher_are_made_with_int8(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "record.json"
    done = script("cpu_latency.py", "--rounds", 1, "--threads", 1, "--depth", 2, "--limit", "1000", "--out", out)
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())["results"]
    assert [(result["size"], result["tokens"]) for result in results] == [(28, 49), (224, 196)]
    assert json.loads(out.read_text())["settings"]["depth"] == 2
    for result in results:
        assert {"fp32 onnxruntime", "int8 onnxruntime"} <= set(result["candidates"])
