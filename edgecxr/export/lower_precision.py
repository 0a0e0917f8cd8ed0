"""FP32 ONNX file -> FP16 and INT8 files. The precision lies in the file, since TensorRT 11 has no flags for it."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from edgecxr.engines.onnxruntime import INPUT
from edgecxr.errors import MissingPackage, ModelError, UsageError
from edgecxr.export.onnx import WEIGHTED
from edgecxr.vocabulary import FloatArray

Ranges = dict[str, tuple[float, float]]
"""Name of a tensor -> the range of values that INT8 has to cover."""

CALIBRATION_BATCH = 50

_CALIBRATORS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}


def to_fp16(source: Path, dest: Path) -> dict[str, Any]:
    """Convert a file to half precision; its inputs and outputs, LayerNorm and softmax stay FP32.

    A ViT's residual stream has values whose squares half precision cannot hold, so that a LayerNorm in FP16 overflows.

    Args:
        source: an FP32 file, or an INT8 file whose float part is FP32.
        dest: the file to write.

    Returns:
        "float32_nodes": names of the nodes that must not run in half precision, for engines to which a file's casts are
        but a hint.

    Raises:
        ModelError: the file cannot be converted.
        MissingPackage: onnxconverter-common is not installed.
    """
    try:
        from onnxconverter_common import float16
    except ImportError as error:
        raise MissingPackage("onnxconverter-common", "export", "FP16") from error

    graph = onnx.load(source)
    kept = float32_nodes(graph)
    try:
        with _silence():
            half = float16.convert_float_to_float16(
                graph,
                keep_io_types=True,
                op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, "QuantizeLinear", "DequantizeLinear"],
                node_block_list=kept,
            )
    except OSError:  # a full disk, for who knows the folder
        raise
    except Exception as error:  # whatever the converter stumbles over
        raise ModelError(f"{source} cannot be converted to FP16 ({type(error).__name__}: {error})") from error
    _join_casts(half)
    onnx.checker.check_model(half)
    onnx.save_model(half, dest)
    return {"float32_nodes": kept}


def float32_nodes(graph: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that are LayerNorm or softmax, spelled out or not."""
    consumers: dict[str, list[onnx.NodeProto]] = {}
    maker = {output: node for node in graph.graph.node for output in node.output}
    for node in graph.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    found = {node.name for node in graph.graph.node if node.op_type in ("LayerNormalization", "Softmax")}
    for node in graph.graph.node:
        if node.op_type != "Pow":  # the square in a variance: a ViT has no other
            continue
        difference = maker[node.input[0]]
        mean = [maker[name] for name in difference.input if name in maker and maker[name].op_type == "ReduceMean"]
        after = node
        chain = [*mean, difference, node]
        while after.op_type != "Div":  # mean, epsilon, root, and the division by it
            after = consumers[after.output[0]][0]
            chain.append(after)
        found |= {member.name for member in chain}
    return [node.name for node in graph.graph.node if node.name in found]


def to_int8(
    source: Path, dest: Path, ranges: Ranges, float_part: str = "fp32", keep: Collection[str] = ()
) -> dict[str, Any]:
    """Quantise the layers with weights: symmetric, weights per channel and stored as INT8, with Q/DQ nodes.

    Nothing else is quantised: residual sums, products of activations, LayerNorm, softmax and GELU stay floating point.

    Args:
        source: an FP32 file.
        dest: the file to write.
        ranges: of the layers' inputs, from `calibrate`.
        float_part: "fp32", or "fp16" for what is not quantised.
        keep: layers that stay floating point, by the names of `weighted_layers`.

    Returns:
        "float_part", and what `to_fp16` returns where that is "fp16".

    Raises:
        ModelError: the file cannot be quantised.
        UsageError: `keep` names every layer.
    """
    from onnxruntime import quantization

    nodes = {node.name: node for node in onnx.load(source).graph.node}
    layers = [name for name in weighted_layers(source) if name not in set(keep)]
    if not layers:  # ONNX Runtime would take an empty list for all nodes
        raise UsageError(f"all {len(set(keep))} layers would stay floating point: lower --keep-float, or use --fp16")
    inputs = {nodes[name].input[0] for name in layers}
    overrides = {
        tensor: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
        for tensor, (low, high) in ranges.items()
        if tensor in inputs
    }
    missing = inputs - set(overrides)
    if missing:
        raise ModelError(f"{source}: no calibrated range for {', '.join(sorted(missing))}: calibrate this very file")
    with _scratch(dest) as folder:
        quantised = folder / "int8.onnx"
        try:
            with _silence():
                quantization.quantize_static(
                    _prepared(source, folder),
                    quantised,
                    # Ranges are given, so one image is enough for what it computes regardless.
                    _Images(np.zeros((1, *_input_shape(source)), np.float32)),
                    quant_format=quantization.QuantFormat.QDQ,
                    op_types_to_quantize=list(WEIGHTED),
                    nodes_to_quantize=layers,
                    per_channel=True,
                    activation_type=quantization.QuantType.QInt8,
                    weight_type=quantization.QuantType.QInt8,
                    extra_options={
                        "ActivationSymmetric": True,
                        "WeightSymmetric": True,
                        "QuantizeBias": False,
                        "DedicatedQDQPair": True,
                        "OpTypesToExcludeOutputQuantization": list(WEIGHTED),
                        "TensorQuantOverrides": overrides,
                    },
                )
        except OSError:
            raise
        except Exception as error:  # the quantiser has no errors of its own
            raise ModelError(f"{source} cannot be quantised ({type(error).__name__}: {error})") from error
        graph = onnx.load(quantised)
        _tidy(graph, onnx.load(source))
        onnx.save_model(graph, quantised)
        if float_part == "fp16":
            return {"float_part": float_part} | to_fp16(quantised, dest)
        onnx.save_model(graph, dest)
        return {"float_part": float_part}


def weighted_layers(source: Path) -> tuple[str, ...]:
    """Return the names of the nodes that multiply by constant weights, in the order of the file."""
    graph = onnx.load(source, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return tuple(node.name for node in graph.node if node.op_type in WEIGHTED and node.input[1] in constants)


def calibrate(source: Path, images: FloatArray, method: str) -> Ranges:
    """Measure the range of every tensor that a layer with weights reads.

    Args:
        source: an FP32 file.
        images: (N, 1, S, S) float32 in [0, 1]; goes through in batches, so that memory does not grow with N.
        method: "minmax": all values; "percentile": all but the outermost 0.001 %; "entropy": the range that loses least
            of the distribution (Kullback-Leibler).

    Raises:
        ModelError: the file does not run.
    """
    from onnxruntime.quantization import calibrate as ort

    with _scratch(source) as folder:
        try:
            with _silence():
                calibrator = ort.create_calibrator(
                    _prepared(source, folder),
                    list(WEIGHTED),
                    augmented_model_path=str(folder / "augmented.onnx"),
                    calibrate_method=ort.CalibrationMethod[_CALIBRATORS[method]],
                    extra_options={"symmetric": True},
                )
                for start in range(0, len(images), CALIBRATION_BATCH):
                    calibrator.collect_data(_Images(images[start : start + CALIBRATION_BATCH]))
                data = calibrator.compute_data().data
        except OSError:
            raise
        except Exception as error:  # of ONNX Runtime
            raise ModelError(f"{source} cannot be calibrated ({type(error).__name__}: {error})") from error
    wanted = {node.input[0] for node in onnx.load(source).graph.node if node.name in weighted_layers(source)}
    ranges = {name: tuple(float(np.ravel(end)[0]) for end in data[name].range_value) for name in wanted}
    return {name: (low, high) for name, (low, high) in ranges.items()}


class _Images:
    """What ONNX Runtime's calibrators read from."""

    def __init__(self, images: FloatArray) -> None:
        self._batches = iter([{INPUT: images}])

    def get_next(self) -> dict[str, FloatArray] | None:
        """Return the batch once, then None."""
        return next(self._batches, None)


def _prepared(source: Path, folder: Path) -> Path:
    """Return a copy with the shapes of all tensors, which the quantiser asks for; nothing is optimised away."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = folder / "shapes.onnx"
    quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
    return prepared


def _input_shape(source: Path) -> tuple[int, ...]:
    shape = onnx.load(source, load_external_data=False).graph.input[0].type.tensor_type.shape
    return tuple(dimension.dim_value for dimension in shape.dim[1:])


def _tidy(graph: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """Give a quantised file the metadata and nothing but the operator sets of the file it came from, in place."""
    versions = {entry.domain: entry.version for entry in graph.opset_import}
    for entry in source.opset_import:
        if versions.get(entry.domain) != entry.version:
            raise ModelError(f"quantising changed operator set {entry.domain or 'ai.onnx'} to {versions}")
    del graph.opset_import[:]
    graph.opset_import.extend(source.opset_import)
    onnx.helper.set_model_props(graph, {entry.key: entry.value for entry in source.metadata_props})


def _join_casts(graph: onnx.ModelProto) -> None:
    """Let a node read FP32 directly where it was cast to FP16 and back in between, in place.

    Neighbours that both stay FP32, such as the parts of a LayerNorm, would else lose to FP16 between them.
    """
    cast_to = {
        node.output[0]: (node.input[0], attribute.i)
        for node in graph.graph.node
        if node.op_type == "Cast"
        for attribute in node.attribute
        if attribute.name == "to"
    }
    for node in graph.graph.node:
        for index, name in enumerate(node.input):
            before, to = cast_to.get(name, ("", 0))
            source, half = cast_to.get(before, ("", 0))
            if to == TensorProto.FLOAT and half == TensorProto.FLOAT16:
                node.input[index] = source
    used = {name for node in graph.graph.node for name in node.input} | {value.name for value in graph.graph.output}
    while dead := [n for n in graph.graph.node if n.op_type == "Cast" and n.output[0] not in used]:
        for node in dead:
            graph.graph.node.remove(node)
        used = {name for node in graph.graph.node for name in node.input} | {value.name for value in graph.graph.output}


@contextlib.contextmanager
def _scratch(beside: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=beside.parent, prefix=".quantise-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what converters print, warn of and log off the screen."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
