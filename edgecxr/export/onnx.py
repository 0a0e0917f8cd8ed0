"""Export of a checkpoint to FP32 ONNX.

The file includes the normalisation of its input, and has the card in its metadata.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from edgecxr.bundle.card import ModelCard
from edgecxr.engines.onnx_model import FEATURES, INPUT, OUTPUTS
from edgecxr.errors import ModelError
from edgecxr.models.split_attention import with_split_attention
from edgecxr.models.stem import without_batch_norm
from edgecxr.models.vit import TwoHeadViT

OPSETS = {"recent": 20, "modern": 17, "legacy": 13}
"""Profile -> opset: 20 has FP16 scales of INT8 values and Gelu, which TensorRT parses from 10 on; 17 has
LayerNormalization, from 8.6 on; 13 spells it out, as 8.5 needs."""

WEIGHTED = ("Conv", "Gemm", "MatMul")
"""Operators with weights: the ones that INT8 quantises."""


def export_fp32(
    model: TwoHeadViT, card: ModelCard, path: Path, profile: str = "modern", split_attention: bool = False
) -> None:
    """Write `model` as an FP32 ONNX file.

    The input has a fixed size S x S and a dynamic batch. Nodes with weights are named after their modules.

    Args:
        model: in eval mode, on the CPU.
        card: the model's card, stored in the file's metadata under "edgecxr_card".
        path: the file to write.
        profile: a key of `OPSETS`.
        split_attention: compute query, key and value by separate products, as TensorRT needs for INT8. ONNX Runtime
            fuses INT8 products with their scales only if they are joint.

    Raises:
        ModelError: the exporter failed.
    """
    # Fused attention would add a dozen shape nodes for the same numbers. It is switched off on this copy only, since
    # timm's own switch would affect every model that this process makes later.
    model = without_batch_norm(model)
    if split_attention:
        model = with_split_attention(model)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]
    try:
        with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            graph = (_traced if profile == "legacy" else _exported)(model, card.size, OPSETS[profile])
    except Exception as error:  # the exporter raises many kinds, none of its own
        raise ModelError(f"torch could not export {card.name} to ONNX ({type(error).__name__}: {error})") from error
    name_layers(graph, model)
    card = replace(card, precision="fp32")
    onnx.helper.set_model_props(graph, {"edgecxr_card": card.to_json(), "notice": card.notice})
    onnx.checker.check_model(graph)
    onnx.save_model(graph, path)


def _exported(model: TwoHeadViT, size: int, opset: int) -> onnx.ModelProto:
    program = torch.onnx.export(
        model,
        (torch.rand(2, 1, size, size),),
        dynamo=True,
        opset_version=opset,
        input_names=[INPUT],
        output_names=[*OUTPUTS, FEATURES],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
        verbose=False,
    )
    assert program is not None  # it is None only if torch writes the file itself
    graph: onnx.ModelProto = program.model_proto
    actual = next(entry.version for entry in graph.opset_import if entry.domain == "")
    if actual != opset:  # torch only warns if it cannot convert to `opset`
        raise ValueError(f"the graph has opset {actual}, not {opset}")
    _fold_weights(graph)
    _halve_last(graph)
    return graph


def _traced(model: TwoHeadViT, size: int, opset: int) -> onnx.ModelProto:
    # The newer exporter does not support an opset this old.
    file = io.BytesIO()
    torch.onnx.export(
        model,
        (torch.rand(2, 1, size, size),),
        file,  # type: ignore[arg-type]
        dynamo=False,
        opset_version=opset,
        input_names=[INPUT],
        output_names=[*OUTPUTS, FEATURES],
        dynamic_axes={name: {0: "batch"} for name in (INPUT, *OUTPUTS, FEATURES)},
    )
    graph = onnx.load_from_string(file.getvalue())
    _fold_weights(graph)
    _no_copies(graph)
    return graph


def name_layers(graph: onnx.ModelProto, model: TwoHeadViT) -> None:
    """Name each node with weights after its module, in place.

    An example is "blocks.3.mlp.fc1". Reports of the quantiser, ONNX Runtime and TensorRT use the names of nodes.
    Weights are identified by their values, since the exporter transposes them into nameless constants and merges equal
    biases of different layers.
    """
    weights = {
        name.removeprefix("vit."): module.weight.detach().numpy()
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }
    # The last block computes its query for the class token only, with split weights.
    last = f"blocks.{model.depth - 1}.attn"
    joint = weights.pop(f"{last}.qkv", None)
    if joint is not None:
        weights |= {f"{last}.q": joint[: model.width], f"{last}.kv": joint[model.width :]}
    names = {content: name for name, weight in weights.items() for content in (weight.tobytes(), weight.T.tobytes())}
    values = {tensor.name: tensor for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type in WEIGHTED and node.input[1] in values:
            node.name = names.get(onnx.numpy_helper.to_array(values[node.input[1]]).tobytes(), node.name)


def _fold_weights(graph: onnx.ModelProto) -> None:
    """Replace run-time slices and transposes of weights by constants, in place.

    Only constants are quantised.
    """
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    # One of the two exporters stores small constants as nodes.
    small = {node.output[0]: node for node in graph.graph.node if node.op_type == "Constant"}
    values |= {name: onnx.numpy_helper.to_array(node.attribute[0].t) for name, node in small.items()}
    folded = {}
    for node in list(graph.graph.node):
        if node.op_type in ("Slice", "Transpose") and all(name in values for name in node.input):
            (result,) = ReferenceEvaluator(node).run(None, {name: values[name] for name in node.input})
            values[node.output[0]] = folded[node.output[0]] = np.ascontiguousarray(result)
            graph.graph.node.remove(node)
    graph.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in folded.items())
    used = {name for node in graph.graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.graph.initializer if tensor.name not in used]:
        graph.graph.initializer.remove(tensor)
    for node in [node for name, node in small.items() if name not in used]:
        graph.graph.node.remove(node)


def _halve_last(graph: onnx.ModelProto) -> None:
    """Move the factor 0.5 of GELU to its end, in place.

    The exporter writes x (0.5 (1 + erf)) if the opset has no Gelu, but ONNX Runtime only fuses (x (1 + erf)) 0.5 into
    one kernel. Both give the same numbers to the last bit.
    """
    half = {t.name for t in graph.graph.initializer if not t.dims and onnx.numpy_helper.to_array(t) == 0.5}
    producer = {output: node for node in graph.graph.node for output in node.output}
    readers = Counter(name for node in graph.graph.node for name in node.input)

    def kind(name: str) -> str:
        return producer[name].op_type if name in producer else ""

    for outer in graph.graph.node:
        if outer.op_type != "Mul":
            continue
        for value, gated in (tuple(outer.input), tuple(reversed(outer.input))):
            inner = producer.get(gated)
            if inner is None or inner.op_type != "Mul" or readers[gated] > 1:
                continue
            for gate, constant in (tuple(inner.input), tuple(reversed(inner.input))):
                if constant in half and kind(gate) == "Add" and "Erf" in map(kind, producer[gate].input):
                    inner.input[:], outer.input[:] = [value, gate], [gated, constant]


def _no_copies(graph: onnx.ModelProto) -> None:
    """Remove Identity nodes that copy constants, in place.

    The exporter makes them of equal constants.
    """
    constants = {tensor.name for tensor in graph.graph.initializer}
    source = {
        node.output[0]: node.input[0]
        for node in graph.graph.node
        if node.op_type == "Identity" and node.input[0] in constants
    }
    kept = [node for node in graph.graph.node if node.op_type != "Identity" or node.output[0] not in source]
    for node in kept:
        node.input[:] = [source.get(name, name) for name in node.input]
    del graph.graph.node[:]
    graph.graph.node.extend(kept)


@contextlib.contextmanager
def _quiet(*loggers: str) -> Any:
    """Let the given loggers report only errors within the context."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
