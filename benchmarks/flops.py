"""How much arithmetic an ONNX model needs for one image, counted from the shapes of its products.

    python benchmarks/flops.py MODEL.onnx

The model runs once under ONNX Runtime's profiler, which reports every node's shapes as they are, whatever the file
leaves open; only optimisations that keep the operators are on. A multiplication and an addition are two operations;
what is not a Conv, Gemm or MatMul is next to nothing and left out.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

Shape = list[int]


def count(model: Path) -> dict[str, int]:
    """Return operator -> floating-point operations, for one image.

    Args:
        model: an ONNX file with one input, (N, C, H, W) float32; of FP32, as others have other operators.
    """
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.enable_profiling = True
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory(prefix="edgecxr-flops-") as folder:
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        (image,) = session.get_inputs()
        session.run(None, {image.name: np.zeros((1, *image.shape[1:]), np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text())
    by_kind: dict[str, int] = {}
    for event in events:
        if event["name"].endswith("_kernel_time") and event["args"]["op_name"] in OPERATIONS:
            kind, shapes = event["args"]["op_name"], event["args"]
            operations = OPERATIONS[kind](_shapes(shapes["input_type_shape"]), _shapes(shapes["output_type_shape"])[0])
            by_kind[kind] = by_kind.get(kind, 0) + operations
    return by_kind


def _matmul(inputs: list[Shape], output: Shape) -> int:
    return 2 * math.prod(output) * inputs[0][-1]


def _gemm(inputs: list[Shape], output: Shape) -> int:
    # The first factor may be transposed; its rows are the output's.
    return 2 * math.prod(output) * (math.prod(inputs[0]) // output[0])


def _conv(inputs: list[Shape], output: Shape) -> int:
    return 2 * math.prod(output) * math.prod(inputs[1][1:])


# The weights of a MatMul or Gemm are often not reported: they have been packed.
OPERATIONS = {"MatMul": _matmul, "Gemm": _gemm, "Conv": _conv}


def _shapes(described: list[dict[str, Any]]) -> list[Shape]:
    return [shape for entry in described for shape in entry.values()]


if __name__ == "__main__":
    print(json.dumps(count(Path(sys.argv[1]))))
