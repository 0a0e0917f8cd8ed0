"""Conversion of an FP32 ONNX file to FP16 and INT8 files.

The precision is written into the file, since TensorRT 11 has no flags for it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Collection, Iterable, Iterator
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
"""Name of a tensor -> the range of values (low, high) that INT8 has to cover."""

CALIBRATION_BATCH = 50

HALF_SCALES = 19
"""The first opset in which the scale of an INT8 tensor may be FP16."""

_SMALLEST_HALF = 2.0**-14
"""The smallest FP16 number with a full mantissa."""

_CALIBRATORS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}


def to_fp16(source: Path, dest: Path) -> dict[str, Any]:
    """Convert a file to half precision, except sensitive nodes.

    Inputs, outputs, LayerNorm and softmax stay FP32. The squares of a ViT's residual stream exceed the range of half
    precision, so a LayerNorm in FP16 would overflow.

    Args:
        source: an FP32 file, or an INT8 file whose float part is FP32.
        dest: the file to write.

    Returns:
        "float32_nodes": names of the nodes that must not run in half precision, for engines that treat a file's casts
        only as a hint.

    Raises:
        ModelError: the file cannot be converted.
        MissingPackage: onnxconverter-common is not installed.
    """
    try:
        from onnxconverter_common import float16
    except ImportError as error:
        raise MissingPackage("onnxconverter-common", "export", "FP16") from error

    quantisers = {"QuantizeLinear", "DequantizeLinear"}
    blocked = {*float16.DEFAULT_OP_BLOCK_LIST, *quantisers}
    try:
        graph = onnx.load(source)
        kept = float32_nodes(graph)
        if _opset(graph) >= HALF_SCALES:
            blocked -= quantisers
            _round_scales(graph)
        with _silence():
            half = float16.convert_float_to_float16(
                graph,
                keep_io_types=True,
                op_block_list=sorted(blocked),
                node_block_list=kept,
            )
        _join_casts(half)
        onnx.checker.check_model(half)
    except OSError:  # such as a full disk: the caller reports it
        raise
    except Exception as error:  # the converter has no exception class of its own
        raise ModelError(f"{source} cannot be converted to FP16 ({type(error).__name__}: {error})") from error
    onnx.save_model(half, dest)
    return {"float32_nodes": kept}


def _opset(graph: onnx.ModelProto) -> int:
    return next(int(entry.version) for entry in graph.opset_import if entry.domain == "")


def _round_scales(graph: onnx.ModelProto) -> None:
    """Round the scales of INT8 tensors to FP16 numbers, in place.

    A product of TensorRT has the type of its inputs' scales. Weights of a scale that FP16 cannot hold are quantised
    again with the smallest one.
    """
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[1] not in tensors:
            continue
        scale = onnx.numpy_helper.to_array(tensors[node.input[1]])
        rounded = np.maximum(scale, _SMALLEST_HALF).astype(np.float16).astype(np.float32)
        weight = tensors.get(node.input[0])
        if weight is not None and (rounded > 1.01 * scale).any():
            values = onnx.numpy_helper.to_array(weight)
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            ratio = scale / rounded
            if scale.ndim:
                ratio = ratio.reshape([-1 if i == axis % values.ndim else 1 for i in range(values.ndim)])
            again = np.rint(values * ratio).astype(values.dtype)
            weight.CopyFrom(onnx.numpy_helper.from_array(again, weight.name))
        tensors[node.input[1]].CopyFrom(onnx.numpy_helper.from_array(rounded, node.input[1]))


def float32_nodes(graph: onnx.ModelProto) -> list[str]:
    """Return the names of all LayerNorm and softmax nodes.

    A LayerNorm may be one node or spelled out in several.
    """
    consumers: dict[str, list[onnx.NodeProto]] = {}
    producer = {output: node for node in graph.graph.node for output in node.output}
    for node in graph.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    selected = {node.name for node in graph.graph.node if node.op_type in ("LayerNormalization", "Softmax")}
    for node in graph.graph.node:
        if node.op_type != "Pow":  # a ViT squares only in variances
            continue
        difference = producer[node.input[0]]
        mean = [
            producer[name] for name in difference.input if name in producer and producer[name].op_type == "ReduceMean"
        ]
        successor = node
        chain = [*mean, difference, node]
        while successor.op_type != "Div":  # follow mean, epsilon and root to the division
            successor = consumers[successor.output[0]][0]
            chain.append(successor)
        selected |= {member.name for member in chain}
    return [node.name for node in graph.graph.node if node.name in selected]


def to_int8(
    source: Path, dest: Path, ranges: Ranges, float_part: str = "fp32", keep: Collection[str] = ()
) -> dict[str, Any]:
    """Quantise the layers with weights to INT8.

    Quantisation is symmetric, with Q/DQ nodes; weights are quantised per channel and stored as INT8. Residual sums,
    products of activations, LayerNorm, softmax and GELU stay floating point.

    Args:
        source: an FP32 file.
        dest: the file to write.
        ranges: ranges of the layers' inputs, from `calibrate`.
        float_part: precision of the layers that are not quantised: "fp32" or "fp16".
        keep: names (from `weighted_layers`) of layers that stay floating point.

    Returns:
        "float_part", and the items that `to_fp16` returns if that is "fp16".

    Raises:
        ModelError: the file cannot be quantised.
        UsageError: `keep` names every layer.
    """
    from onnxruntime import quantization

    nodes = {node.name: node for node in onnx.load(source).graph.node}
    layers = [name for name in weighted_layers(source) if name not in set(keep)]
    if not layers:  # for ONNX Runtime, an empty list means all nodes
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
                    # Ranges are given; ONNX Runtime still runs a calibration, for which one image is enough.
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
        except Exception as error:  # the quantiser has no exception class of its own
            raise ModelError(f"{source} cannot be quantised ({type(error).__name__}: {error})") from error
        graph = onnx.load(quantised)
        _tidy(graph, onnx.load(source))
        onnx.save_model(graph, quantised)
        if float_part == "fp16":
            return {"float_part": float_part} | to_fp16(quantised, dest)
        onnx.save_model(graph, dest)
        return {"float_part": float_part}


def weighted_layers(source: Path) -> tuple[str, ...]:
    """Return names of nodes that multiply by constant weights, in file order."""
    graph = onnx.load(source, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return tuple(node.name for node in graph.node if node.op_type in WEIGHTED and node.input[1] in constants)


def calibrate(source: Path, images: FloatArray, method: str) -> Ranges:
    """Measure the range of each tensor that a weighted layer reads.

    Arguments and errors are those of `calibrate_on`, but for the images: (N, 1, S, S).
    """
    starts = range(0, len(images), CALIBRATION_BATCH)
    return calibrate_on(source, (images[start : start + CALIBRATION_BATCH] for start in starts), method)


def calibrate_on(source: Path, batches: Iterable[FloatArray], method: str) -> Ranges:
    """Measure the range of each tensor that a weighted layer reads.

    Args:
        source: an FP32 file.
        batches: of images (B, 1, S, S) float32 in [0, 1]; one is held at a time.
        method: "minmax": all values; "percentile": all but the outermost 0.001 %; "entropy": the range with the
            smallest Kullback-Leibler divergence from the distribution.

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
                for images in batches:
                    calibrator.collect_data(_Images(images))
                data = calibrator.compute_data().data
        except OSError:
            raise
        except Exception as error:  # ONNX Runtime raises many kinds
            raise ModelError(f"{source} cannot be calibrated ({type(error).__name__}: {error})") from error
    inputs = {node.input[0] for node in onnx.load(source).graph.node if node.name in weighted_layers(source)}
    ranges = {name: tuple(float(np.ravel(end)[0]) for end in data[name].range_value) for name in inputs}
    return {name: (low, high) for name, (low, high) in ranges.items()}


class _Images:
    """A source of one batch for ONNX Runtime's calibrators."""

    def __init__(self, images: FloatArray) -> None:
        self._batches = iter([{INPUT: images}])

    def get_next(self) -> dict[str, FloatArray] | None:
        """Return the batch once, then None."""
        return next(self._batches, None)


def _prepared(source: Path, folder: Path) -> Path:
    """Write a copy with all tensor shapes, which the quantiser needs, unoptimised."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = folder / "shapes.onnx"
    quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
    return prepared


def _input_shape(source: Path) -> tuple[int, ...]:
    shape = onnx.load(source, load_external_data=False).graph.input[0].type.tensor_type.shape
    return tuple(dimension.dim_value for dimension in shape.dim[1:])


def _tidy(graph: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """Restore the source file's metadata and operator sets, in place."""
    versions = {entry.domain: entry.version for entry in graph.opset_import}
    for entry in source.opset_import:
        if versions.get(entry.domain) != entry.version:
            raise ModelError(f"quantising changed operator set {entry.domain or 'ai.onnx'} to {versions}")
    del graph.opset_import[:]
    graph.opset_import.extend(source.opset_import)
    onnx.helper.set_model_props(graph, {entry.key: entry.value for entry in source.metadata_props})


def _join_casts(graph: onnx.ModelProto) -> None:
    """Remove casts from FP32 to FP16 and back, in place.

    Otherwise neighbours that both stay FP32, such as the parts of a LayerNorm, would lose precision between them.
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
    """Hide the output, warnings and logs of converters."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
