"""Precisions of a TensorRT network, and types of an engine's layers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

from edgecxr.engines.tensorrt.layer_types import Layer, from_inspector
from edgecxr.errors import ModelError

_MOVES = re.compile(r"^(reformat|noop|copy)", re.I)
"""Kind or name of layers that only move or convert values; their names have the node that they do it for."""

_FUSED = re.compile(r"ForeignNode|myelin", re.I)

_STAGE = re.compile(r"patch_embed\.backbone\.(\d+)$")
"""The convolution of a stage of the stem, as `edgecxr.export.onnx` names it."""

_CONVOLUTION = re.compile(r"conv|correlation|fusion|myelin", re.I)

_NAME = re.compile(r"[^\s+,(){}\[\]]+")
"""A node in a layer's name, such as "PWN(PWN(/norm/Pow), /norm/Div)" or "/q/MatMul + /q/Add"."""

_FLOATS = {"fp32": "fp32", "fp16": "lower", "bf16": "lower", "fp8": "lower"}


def hold_float32(trt: Any, config: Any, network: Any, facts: dict[str, Any]) -> dict[str, int]:
    """Set the precisions of a weakly typed network (TensorRT 8).

    They are those that the ONNX file states; TensorRT 8 does not treat its casts as binding.

    Args:
        trt: the module.
        config: the builder configuration.
        network: the parsed network.
        facts: the card's entry of the ONNX file: its "precision", "float_part" and "float32_nodes".

    Returns:
        {"listed", "held"}: the number of nodes that must stay FP32, and of those for which layers were found and held
        to FP32; empty if no layer may be FP16.

    Raises:
        ModelError: the card does not say which nodes must stay FP32.
    """
    precision = facts["precision"]
    half = precision == "fp16" or facts.get("float_part") == "fp16"
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    if not half:
        return {}
    if "float32_nodes" not in facts:  # without them, the engine runs but gives wrong results
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
        node = _node(layer.name, listed)
        if node is None:
            continue
        float_outputs = [index for index in range(layer.num_outputs) if layer.get_output(index).dtype in floats]
        if not float_outputs or layer.type in (trt.LayerType.CONSTANT, trt.LayerType.SHAPE):
            continue
        layer.precision = trt.DataType.FLOAT
        for index in float_outputs:
            layer.set_output_type(index, trt.DataType.FLOAT)
        held.add(node)
    return {"listed": len(listed), "held": len(held)}


def inspected(trt: Any, engine: Any) -> list[Layer] | None:
    """Return an engine's layers by its inspector; None without a report."""
    inspector = engine.create_engine_inspector()
    if inspector is None:
        return None
    try:
        layers = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))["Layers"]
        return [from_inspector(layer) for layer in layers if isinstance(layer, dict)] or None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):  # the format of the JSON is undocumented
        return None


def confirm_float32(
    held: dict[str, int], layers: Iterable[Layer], facts: dict[str, Any], say: Callable[[str], None]
) -> dict[str, int]:
    """Count the nodes that an engine reports to compute in FP32.

    Settings that `hold_float32` made are not always honoured. What the engine does not confirm is told; whether it does
    harm, the comparison with ONNX Runtime decides.

    Args:
        held: of `hold_float32`.
        layers: of the engine, from its inspector.
        facts: the card's entry of the ONNX file, with "float32_nodes" unless `held` is empty.
        say: called with each warning.

    Returns:
        `held`, if it is not empty with {"confirmed", "lower"}: the number of nodes whose layers all have FP32 results,
        and of those of which a layer has a result of a lower precision. Of the others the engine says nothing: they are
        in no layer's name, or in a layer that fuses whole parts of the network and reports only what leaves it.
    """
    if not held:
        return held
    listed = {str(name) for name in facts["float32_nodes"]}
    results: dict[str, set[str]] = {}
    for layer in layers:
        if _MOVES.search(layer.kind) or _MOVES.search(layer.name):
            continue
        fused = _FUSED.search(layer.kind) or _FUSED.search(layer.name)
        # An INT8 result is that of a quantisation that was fused with the node.
        kinds = {"unknown"} if fused else {_FLOATS.get(kind, "unknown") for kind in layer.outputs}
        for name in layer.nodes or _NAME.findall(layer.name.replace("...", " ")):
            node = _node(name, listed)
            if node is not None:
                results.setdefault(node, set()).update(kinds)
    confirmed = sum(kinds == {"fp32"} for kinds in results.values())
    lower = sum("lower" in kinds for kinds in results.values())
    silent = len(listed) - confirmed - lower
    if lower:
        say(f"warning: the engine computes {lower} of {len(listed)} nodes in less than FP32, against its settings")
    if silent:
        say(f"warning: the engine does not tell whether {silent} of {len(listed)} nodes are FP32")
    return held | {"confirmed": confirmed, "lower": lower}


def unfused_stem(layers: Iterable[Layer]) -> tuple[int, int]:
    """Count the stages of a convolutional stem that are not fused.

    A stage is fused if one layer computes its convolution and its GELU.

    Args:
        layers: of an engine.

    Returns:
        The number of stages that are not fused in every layer that computes them, and of all stages that layers name.
    """
    fused: dict[str, bool] = {}
    for layer in layers:
        names = layer.nodes or tuple(_NAME.findall(layer.name))
        others = [name for name in names if not re.search(r"quantize|\.backbone\.", name, re.I)]
        for name in names:
            stage = _STAGE.match(name)
            if stage and _CONVOLUTION.search(layer.kind):
                fused[stage[1]] = fused.get(stage[1], True) and bool(others)
    return sum(not whole for whole in fused.values()), len(fused)


def _node(name: str, listed: Collection[str]) -> str | None:
    """Return which of the nodes a layer's name stands for.

    If a node becomes several layers, each has its name with a number.
    """
    return next((node for node in (name, re.sub(r"_\d+$", "", name)) if node in listed), None)
