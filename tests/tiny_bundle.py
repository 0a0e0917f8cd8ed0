"""A tiny valid bundle whose answers can be worked out by hand; made without torch.

The image's four quadrants (upper left, upper right, lower left, lower right) have the means q0 to q3. The logit of
finding k is 4 * qk - 2, that of "abnormal" is 4 * mean(q0..q3) - 2, and the attention is the softmax of q0 to q3. The
features are q0 to q3 themselves; the quality gate's distance is sqrt(mean of q^2), and by default it refuses nothing.

Run as a program: `python tests/tiny_bundle.py OUT_DIR`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecxr.bundle.bundle import Bundle, write_bundle
from edgecxr.bundle.card import ModelCard
from edgecxr.bundle.gate import FILE as GATE
from edgecxr.vocabulary import PRECISIONS

LABELS = ("Cardiomegaly", "Nodule/Mass", "Pleural effusion")


_GATE = np.zeros((1, 4), np.float32)


def tiny_onnx(path: Path, size: int = 28, labels: int = len(LABELS), features: bool = True) -> Path:
    """Write the graph; `labels` is at most 4. Without `features`, it is a model of before there was a gate."""
    shape = ["N", 1, size, size]
    constants = {
        "flat": np.array([-1, 4], np.int64),
        "square": np.array([-1, 2, 2], np.int64),
        "row": np.array([-1], np.int64),
        "pick": np.eye(4, labels, dtype=np.float32) * 4,
        "whole": np.ones((4, 1), np.float32),
        "two": np.array(2, np.float32),
    }
    nodes = [
        helper.make_node("AveragePool", ["image"], ["pooled"], kernel_shape=[size // 2] * 2, strides=[size // 2] * 2),
        helper.make_node("Reshape", ["pooled", "flat"], ["quadrants"]),
        helper.make_node("Identity", ["quadrants"], ["features"]),
        helper.make_node("MatMul", ["quadrants", "pick"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "two"], ["findings"]),
        helper.make_node("MatMul", ["quadrants", "whole"], ["total"]),
        helper.make_node("Sub", ["total", "two"], ["column"]),
        helper.make_node("Reshape", ["column", "row"], ["abnormal"]),
        helper.make_node("Softmax", ["quadrants"], ["shares"], axis=1),
        helper.make_node("Reshape", ["shares", "square"], ["attention"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("findings", TensorProto.FLOAT, ["N", labels]),
            helper.make_tensor_value_info("abnormal", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("attention", TensorProto.FLOAT, ["N", 2, 2]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 4]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    if not features:
        del graph.output[-1]
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save_model(model, path)
    return path


def tiny_gate(threshold: float = 9.0, usual: float = 1.0) -> dict[str, Any]:
    """Return what the card says of a gate that takes the image of no light for the one film it learnt from."""
    rate = {"refused": 0, "images": 10, "value": 0.0, "low": 0.0, "high": 0.28}
    file = io.BytesIO()
    np.save(file, _GATE)
    return {
        "sha256": hashlib.sha256(file.getvalue()).hexdigest(),
        "false_rejection": 0.02,
        "variances": [],
        "rest": 1.0,
        "thresholds": dict.fromkeys(PRECISIONS, threshold),
        "usual": dict.fromkeys(PRECISIONS, usual),
        "rates": {"fp32": {"films": rate, "noise": rate}},
    }


def tiny_card(size: int = 28, labels: tuple[str, ...] = LABELS, **changes: Any) -> ModelCard:
    """Return the card; `changes` replace its fields."""
    card = ModelCard(
        name="tiny-test",
        labels=labels,
        size=size,
        tokens=4,
        patch=size // 2,
        arch="tiny",
        depth=2,
        method="none",
        operating_points={"youden": {name: 0.5 for name in (*labels, "abnormal")}},
        artefacts={"model.onnx": {"precision": "fp32", "opset": 13}},
        gate=tiny_gate(),
    )
    return dataclasses.replace(card, **changes)


def tiny_bundle(dest: Path, size: int = 28, labels: tuple[str, ...] = LABELS, **changes: Any) -> Bundle:
    """Write the bundle at `dest`; `changes` replace fields of the card."""
    with tempfile.TemporaryDirectory() as scratch:
        model = tiny_onnx(Path(scratch, "model.onnx"), size, len(labels))
        gate = Path(scratch, GATE)
        np.save(gate, _GATE)
        return write_bundle(dest, tiny_card(size, labels, **changes), {"model.onnx": model, GATE: gate})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/tiny_bundle.py OUT_DIR")
    print(tiny_bundle(Path(sys.argv[1])).path)
