"""Rules of an export's operators: shapes of results, and multiplications.

Shapes follow from the size of the batch alone: a graph whose shapes depend on pixels or weights has no place here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgecxr.bundle.onnx_call import LARGEST_INTEGER, Array, Call, Shape, broadcast
from edgecxr.bundle.onnx_graph import BOOL, BYTES, INT32, INT64, MOST_KNOWN, MOST_SIDES, Tensor


def _elementwise(call: Call) -> list[Array]:
    return [Array(broadcast(*(call.shape(place) for place in range(len(call.inputs)))))]


def _same(call: Call) -> list[Array]:
    return [Array(call.shape())]


def _copy(call: Call) -> list[Array]:
    return [call.array(0)]


def _integers(function: Callable[..., Any]) -> Callable[[Call], list[Array]]:
    """Return the rule of an elementwise operator whose integers are worked out."""

    def rule(call: Call) -> list[Array]:
        (result,) = _elementwise(call)
        values = [call.array(place).values for place in range(len(call.inputs))]
        if any(value is None for value in values) or math.prod(result.shape) > MOST_KNOWN:
            return [result]
        # Engines would wrap around.
        if any((np.abs(value.astype(np.float64)) > LARGEST_INTEGER).any() for value in values if value is not None):
            return [result]
        with np.errstate(all="ignore"):
            answer = np.asarray(function(*values))
        if (np.abs(answer.astype(np.float64)) > LARGEST_INTEGER).any():
            return [result]
        return [Array(result.shape, answer.astype(np.int64))]

    return rule


def _cast(call: Call) -> list[Array]:
    to, array = call.number("to", 0), call.array(0)
    if to not in BYTES:
        raise ValueError("to")
    if to == BOOL and array.values is not None:
        return [Array(array.shape, (array.values != 0).astype(np.int64))]
    return [array if to in (INT64, INT32) else Array(array.shape)]


def _constant(call: Call) -> list[Array]:
    value = call.node.attributes["value"]
    if not isinstance(value, Tensor):
        raise ValueError("value")
    return [Array(value.shape, value.values)]


def _shape_of(call: Call) -> list[Array]:
    shape = call.shape()[slice(call.number("start", 0), call.number("end", MOST_SIDES))]
    return [Array((len(shape),), np.array(shape, np.int64))]


def _filled(call: Call) -> list[Array]:
    shape = tuple(call.integers(0))
    value = call.node.attributes.get("value")
    if isinstance(value, Tensor) and value.shape != (1,):
        raise ValueError("value")
    if not isinstance(value, Tensor) or value.values is None or not 0 <= math.prod(shape) <= MOST_KNOWN:
        return [Array(shape)]
    return [Array(shape, np.broadcast_to(value.values, shape))]


def _concat(call: Call) -> list[Array]:
    arrays = [call.array(place) for place in range(len(call.inputs))]
    axis = call.axis(0)
    rest = {array.shape[:axis] + array.shape[axis + 1 :] for array in arrays}
    if "axis" not in call.node.attributes or len(rest) > 1:
        raise ValueError("axis")
    side = sum(array.shape[axis] for array in arrays)
    shape = (*arrays[0].shape[:axis], side, *arrays[0].shape[axis + 1 :])
    constants = [array.values for array in arrays if array.values is not None]
    if len(constants) < len(arrays) or math.prod(shape) > MOST_KNOWN:
        return [Array(shape)]
    return [Array(shape, np.concatenate(constants, axis))]


def _gather(call: Call) -> list[Array]:
    data, indices, axis = call.array(0), call.array(1), call.axis(0)
    side = data.shape[axis]
    shape = data.shape[:axis] + indices.shape + data.shape[axis + 1 :]
    if indices.values is None or any(not -side <= index < side for index in indices.values.ravel().tolist()):
        raise IndexError("indices")
    if data.values is None or math.prod(shape) > MOST_KNOWN:
        return [Array(shape)]
    return [Array(shape, np.take(data.values, indices.values, axis))]


def _slice(call: Call) -> list[Array]:
    data = call.array(0)
    starts, ends = call.integers(1), call.integers(2)
    axes = call.axes(3, len(data.shape)) if call.has(3) else list(range(len(starts)))
    steps = call.integers(4) if call.has(4) else [1] * len(starts)
    cuts = [slice(None)] * len(data.shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step == 0:
            raise ValueError("step")
        cuts[axis] = slice(start, end, step)
    shape = tuple(len(range(*cut.indices(side))) for cut, side in zip(cuts, data.shape, strict=True))
    return [Array(shape, None if data.values is None else data.values[tuple(cuts)])]


def _split(call: Call) -> list[Array]:
    shape, axis = call.shape(), call.axis(0)
    count = len(call.node.outputs)
    sides = call.integers(1) if call.has(1) else [shape[axis] // max(count, 1)] * count
    if sum(sides) != shape[axis] or len(sides) != count or min(sides, default=-1) < 0:
        raise ValueError("split")
    return [Array((*shape[:axis], side, *shape[axis + 1 :])) for side in sides]


def _reshaped(array: Array, shape: Sequence[int]) -> list[Array]:
    if math.prod(shape) != math.prod(array.shape):
        raise ValueError("another number of values")
    return [Array(tuple(shape), None if array.values is None else array.values.reshape(shape))]


def _reshape(call: Call) -> list[Array]:
    old, new_shape = call.shape(), call.integers(1)
    if not call.number("allowzero", 0):
        new_shape = [old[place] if side == 0 else side for place, side in enumerate(new_shape)]
    if (free := new_shape.count(-1)) > 1:
        raise ValueError("two free sides")
    if free:
        rest = math.prod(side for side in new_shape if side != -1)
        new_shape[new_shape.index(-1)] = math.prod(old) // rest if rest > 0 else -1
    return _reshaped(call.array(0), new_shape)


def _squeeze(call: Call) -> list[Array]:
    shape = call.shape()
    axes = call.axes(1, len(shape)) if call.has(1) else [place for place, side in enumerate(shape) if side == 1]
    return _reshaped(call.array(0), [side for place, side in enumerate(shape) if place not in axes])


def _unsqueeze(call: Call) -> list[Array]:
    shape = list(call.shape())
    for axis in sorted(call.axes(1, len(shape) + len(call.integers(1)))):
        shape.insert(axis, 1)
    return _reshaped(call.array(0), shape)


def _transpose(call: Call) -> list[Array]:
    shape = call.shape()
    order = call.numbers("perm", range(len(shape))[::-1])
    if sorted(order) != list(range(len(shape))):
        raise ValueError("perm")
    return [Array(tuple(shape[axis] for axis in order))]


def _expand(call: Call) -> list[Array]:
    return [Array(broadcast(call.shape(), tuple(call.integers(1))))]


def _reduce(call: Call) -> list[Array]:
    shape = call.shape()
    axes = call.axes(1, len(shape)) if len(shape) else []
    if not axes and not call.number("noop_with_empty_axes", 0):
        axes = list(range(len(shape)))
    keep = call.number("keepdims", 1)
    sides = [1 if place in axes else side for place, side in enumerate(shape) if keep or place not in axes]
    return [Array(tuple(sides))]


def _softmax(call: Call) -> list[Array]:
    call.axis(-1)
    return _same(call)


def _norm(call: Call) -> list[Array]:
    shape, axis = call.shape(), call.axis(-1)
    for place in range(1, len(call.inputs)):
        if broadcast(shape[axis:], call.shape(place)) != shape[axis:]:
            raise ValueError("scale")
    return [Array(shape)]


def _quantise(call: Call) -> list[Array]:
    shape, scale = call.shape(), call.shape(1)
    if math.prod(scale) != 1 and scale != (shape[call.axis(1)],):
        raise ValueError("scale")
    return [Array(shape)]


def _matmul(call: Call) -> list[Array]:
    a, b = call.shape(0), call.shape(1)
    if min(len(a), len(b)) < 2 or a[-1] != b[-2]:
        raise ValueError("inner sides")
    shape = (*broadcast(a[:-2], b[:-2]), a[-2], b[-1])
    call.products += math.prod(shape) * a[-1]
    return [Array(shape)]


def _gemm(call: Call) -> list[Array]:
    a, b = call.shape(0), call.shape(1)
    (rows, inner), (other, columns) = (
        shape[::-1] if call.number(name, 0) else shape for name, shape in (("transA", a), ("transB", b))
    )
    if inner != other or (call.has(2) and broadcast((rows, columns), call.shape(2)) != (rows, columns)):
        raise ValueError("inner sides")
    call.products += rows * columns * inner
    return [Array((rows, columns))]


def _windows(call: Call, sides: Shape, kernel: Sequence[int]) -> Shape:
    """Return how many places a window has along each side."""
    count = len(sides)
    strides, dilations = call.numbers("strides", [1] * count), call.numbers("dilations", [1] * count)
    pads = call.numbers("pads", [0] * 2 * count)
    if call.node.attributes.get("auto_pad", "NOTSET") != "NOTSET" or len(pads) != 2 * count or min(pads) < 0:
        raise ValueError("pads")
    if min((*kernel, *strides, *dilations)) < 1:
        raise ValueError("kernel")
    extra = call.number("ceil_mode", 0)
    places = []
    for side, window, stride, dilation, before, after in zip(
        sides, kernel, strides, dilations, pads[:count], pads[count:], strict=True
    ):
        room = side + before + after - (window - 1) * dilation - 1
        if room < 0 or max(before, after) >= (window - 1) * dilation + 1:
            raise ValueError("pads")
        places.append(1 + (room + (stride - 1 if extra else 0)) // stride)
    return tuple(places)


def _conv(call: Call) -> list[Array]:
    image, weight = call.shape(0), call.shape(1)
    kernel, group = weight[2:], call.number("group", 1)
    if image[1] != weight[1] * group or group < 1 or weight[0] % group:
        raise ValueError("channels")
    if call.numbers("kernel_shape", kernel) != kernel:
        raise ValueError("kernel")
    if call.has(2) and call.shape(2) != weight[:1]:
        raise ValueError("bias")
    shape = (image[0], weight[0], *_windows(call, image[2:], kernel))
    call.products += math.prod(shape) * math.prod(weight[1:])
    return [Array(shape)]


def _pool(call: Call) -> list[Array]:
    image, kernel = call.shape(), call.numbers("kernel_shape", ())
    shape = (*image[:2], *_windows(call, image[2:], kernel))
    call.products += math.prod(shape) * math.prod(kernel)
    return [Array(shape)]


def _resize(call: Call) -> list[Array]:
    old, new = call.shape(), tuple(call.integers(3))
    if call.has(1) or call.has(2) or len(new) != len(old):
        raise ValueError("sizes")
    if call.node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch" or call.number("antialias", 0):
        raise ValueError("policy")
    return [Array(new)]


Rule = Callable[[Call], list[Array]]

RULES: dict[str, tuple[Rule, frozenset[str]]] = {
    name: (rule, frozenset(attributes.split()))
    for names, rule, attributes in (
        ("Relu Erf Sqrt Tanh Sigmoid Neg Reciprocal", _same, ""),
        ("Gelu", _same, "approximate"),
        ("Identity", _copy, ""),
        ("Div Pow", _elementwise, ""),
        ("Add", _integers(np.add), ""),
        ("Sub", _integers(np.subtract), ""),
        ("Mul", _integers(np.multiply), ""),
        ("Equal", _integers(np.equal), ""),
        ("Where", _integers(np.where), ""),
        ("Cast", _cast, "to"),
        ("Constant", _constant, "value"),
        ("ConstantOfShape", _filled, "value"),
        ("Shape", _shape_of, "start end"),
        ("Concat", _concat, "axis"),
        ("Gather", _gather, "axis"),
        ("Slice", _slice, ""),
        ("Split", _split, "axis"),
        ("Reshape", _reshape, "allowzero"),
        ("Squeeze", _squeeze, ""),
        ("Unsqueeze", _unsqueeze, ""),
        ("Transpose", _transpose, "perm"),
        ("Expand", _expand, ""),
        ("ReduceMean", _reduce, "axes keepdims"),
        ("ReduceSum", _reduce, "keepdims noop_with_empty_axes"),
        ("Softmax", _softmax, "axis"),
        ("LayerNormalization", _norm, "axis epsilon stash_type"),
        ("QuantizeLinear DequantizeLinear", _quantise, "axis"),
        ("MatMul", _matmul, ""),
        ("Gemm", _gemm, "alpha beta transA transB"),
        ("Conv", _conv, "auto_pad dilations group kernel_shape pads strides"),
        ("AveragePool", _pool, "auto_pad ceil_mode count_include_pad kernel_shape pads strides"),
        (
            "Resize",
            _resize,
            "antialias coordinate_transformation_mode cubic_coeff_a exclude_outside extrapolation_value "
            "keep_aspect_ratio_policy mode nearest_mode",
        ),
    )
    for name in names.split()
}
