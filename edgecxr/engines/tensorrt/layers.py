"""The layers of a TensorRT network and engine: which are held to FP32, and what precision each was given."""

from __future__ import annotations

import json
import re
from typing import Any

from edgecxr.errors import ModelError

_KINDS = {
    "int8": r"int8", "int4": r"int4", "fp8": r"fp8", "bf16": r"bf16|bfloat16", "fp16": r"fp16|half",
    "fp32": r"fp32|tf32|float", "int64": r"int64", "int32": r"int32", "bool": r"bool",
}  # fmt: skip


def hold_float32(trt: Any, config: Any, network: Any, facts: dict[str, Any]) -> dict[str, int]:
    """Give a weakly typed network (TensorRT 8) the precisions that its ONNX file states; casts do not bind it.

    Args:
        trt: the module.
        config: of the build.
        network: that was parsed.
        facts: the card's entry of the ONNX file: its "precision", "float_part" and "float32_nodes".

    Returns:
        {"listed", "held"}: how many nodes must stay FP32, and for how many of them layers were found and held to it;
        empty where no layer may have a lower precision.

    Raises:
        ModelError: the card does not say which nodes must stay FP32.
    """
    precision = facts["precision"]
    half = precision == "fp16" or facts.get("float_part") == "fp16"
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    if not half:
        return {}
    if "float32_nodes" not in facts:  # without them it builds, runs and answers nonsense
        raise ModelError(
            f"the card does not say which nodes of the {precision} model stay FP32, and TensorRT 8 has to be told: "
            "export the model again"
        )
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    listed = {str(name) for name in facts["float32_nodes"]}
    held: set[str] = set()
    floats = (trt.DataType.FLOAT, trt.DataType.HALF)
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        # A node that becomes several layers gives them its name with a number.
        node = layer.name if layer.name in listed else re.sub(r"_\d+$", "", layer.name)
        if node not in listed:
            continue
        results = [index for index in range(layer.num_outputs) if layer.get_output(index).dtype in floats]
        if not results or layer.type in (trt.LayerType.CONSTANT, trt.LayerType.SHAPE):
            continue
        layer.precision = trt.DataType.FLOAT
        for index in results:
            layer.set_output_type(index, trt.DataType.FLOAT)
        held.add(node)
    return {"listed": len(listed), "held": len(held)}


def layer_precisions(trt: Any, engine: Any) -> dict[str, str] | None:
    """Return name of a layer -> precision of its first result, as the engine's inspector says; None if it does not."""
    inspector = engine.create_engine_inspector()
    if inspector is None:
        return None
    try:
        layers = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))["Layers"]
        return {
            str(layer["Name"]): _kind(layer["Outputs"][0])
            for layer in layers
            if isinstance(layer, dict) and layer.get("Outputs")
        }
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):  # the JSON is of no stated format
        return None


def _kind(tensor: dict[str, Any]) -> str:
    """Return the precision in words such as "Row major linear FP32", "Half" or "Two wide channel vectorized FP16"."""
    text = " ".join(str(tensor[key]) for key in ("Datatype", "Format/Datatype", "Format") if key in tensor).lower()
    return next((kind for kind, words in _KINDS.items() if re.search(words, text)), "other")
