"""Checkpoint -> FP32 ONNX, normalisation inside, card in the metadata."""

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
from edgecxr.models.stem import without_batch_norm
from edgecxr.models.vit import TwoHeadViT

OPSETS = {"modern": 17, "legacy": 13}
"""Profile -> opset: 17 has LayerNormalization, which TensorRT parses from 8.6 on; 13 spells it out, for 8.5."""

WEIGHTED = ("Conv", "Gemm", "MatMul")
"""The operators that have weights, and that INT8 is about."""


def export_fp32(model: TwoHeadViT, card: ModelCard, path: Path, profile: str = "modern") -> None:
    """Write `model` as FP32 ONNX: fixed S x S, dynamic batch, nodes with weights named after their modules.

    Args:
        model: in eval mode, on the CPU.
        card: goes into the file's metadata under "edgecxr_card".
        path: the file to write.
        profile: a key of `OPSETS`.

    Raises:
        ModelError: the exporter failed.
    """
    # Fused attention is traced into a dozen more shape nodes and gives the same numbers. timm's own switch would change
    # every model that this process makes afterwards, so this copy is told directly.
    model = without_batch_norm(model)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]
    try:
        with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            graph = (_traced if profile == "legacy" else _exported)(model, card.size, OPSETS[profile])
    except Exception as error:  # the exporter raises a dozen kinds, none of them its own
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
    assert program is not None  # it is None only where a file is written at once
    graph: onnx.ModelProto = program.model_proto
    found = next(entry.version for entry in graph.opset_import if entry.domain == "")
    if found != opset:  # torch exports a later one and says no more than a warning where it cannot convert it
        raise ValueError(f"the graph has opset {found}, not {opset}")
    _fold_weights(graph)
    _halve_last(graph)
    return graph


def _traced(model: TwoHeadViT, size: int, opset: int) -> onnx.ModelProto:
    # The newer exporter knows no opset this old.
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
    """Name each node that has weights after its module, such as "blocks.3.mlp.fc1", in place.

    Reports of the quantiser, of ONNX Runtime and of TensorRT go by nodes' names. Weights are told by their values: the
    exporter transposes them into nameless constants, and lets equal biases of different layers be one.
    """
    weights = {
        name.removeprefix("vit."): module.weight.detach().numpy()
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }
    # The last block takes its query of the class token alone.
    last = f"blocks.{model.depth - 1}.attn"
    weights |= {f"{last}.q": weights[f"{last}.qkv"][: model.width], f"{last}.kv": weights[f"{last}.qkv"][model.width :]}
    names = {content: name for name, weight in weights.items() for content in (weight.tobytes(), weight.T.tobytes())}
    values = {tensor.name: tensor for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type in WEIGHTED and node.input[1] in values:
            node.name = names.get(onnx.numpy_helper.to_array(values[node.input[1]]).tobytes(), node.name)


def _fold_weights(graph: onnx.ModelProto) -> None:
    """Store what the exporter slices and transposes of weights at run time, in place: only constants are quantised."""
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    # One exporter writes small constants down as nodes.
    small = {node.output[0]: node for node in graph.graph.node if node.op_type == "Constant"}
    values |= {name: onnx.numpy_helper.to_array(node.attribute[0].t) for name, node in small.items()}
    made = {}
    for node in list(graph.graph.node):
        if node.op_type in ("Slice", "Transpose") and all(name in values for name in node.input):
            (result,) = ReferenceEvaluator(node).run(None, {name: values[name] for name in node.input})
            values[node.output[0]] = made[node.output[0]] = np.ascontiguousarray(result)
            graph.graph.node.remove(node)
    graph.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in made.items())
    used = {name for node in graph.graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.graph.initializer if tensor.name not in used]:
        graph.graph.initializer.remove(tensor)
    for node in [node for name, node in small.items() if name not in used]:
        graph.graph.node.remove(node)


def _halve_last(graph: onnx.ModelProto) -> None:
    """Let GELU be (x (1 + erf)) 0.5 and not x (0.5 (1 + erf)), in place: the same numbers, to the last bit.

    The exporter writes the second where the opset has no Gelu; the first is what ONNX Runtime makes one kernel of.
    """
    half = {t.name for t in graph.graph.initializer if not t.dims and onnx.numpy_helper.to_array(t) == 0.5}
    maker = {output: node for node in graph.graph.node for output in node.output}
    readers = Counter(name for node in graph.graph.node for name in node.input)

    def kind(name: str) -> str:
        return maker[name].op_type if name in maker else ""

    for outer in graph.graph.node:
        if outer.op_type != "Mul":
            continue
        for value, gated in (tuple(outer.input), tuple(reversed(outer.input))):
            inner = maker.get(gated)
            if inner is None or inner.op_type != "Mul" or readers[gated] > 1:
                continue
            for gate, constant in (tuple(inner.input), tuple(reversed(inner.input))):
                if constant in half and kind(gate) == "Add" and "Erf" in map(kind, maker[gate].input):
                    inner.input[:], outer.input[:] = [value, gate], [gated, constant]


def _no_copies(graph: onnx.ModelProto) -> None:
    """Let nodes read constants themselves where the exporter made Identity nodes of equal ones, in place."""
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
    """Raise the level of chatty loggers for a while."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
