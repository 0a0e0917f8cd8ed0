"""The graph in an ONNX file, read without the onnx package.

Only what edgecxr exports can be read. A tensor outside the file is refused, and graphs inside nodes, functions and
whatever else ONNX knows have no field here, so that no model of a stranger can have them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.bundle.protobuf import Field, Malformed, Message, parse, schema

Ints = NDArray[np.int64]

FLOAT, INT8, INT32, INT64, BOOL, FLOAT16 = 1, 3, 6, 7, 9, 10
"""Kinds of numbers, with the numbers of ONNX's TensorProto.DataType."""

BYTES = {FLOAT: 4, INT8: 1, INT32: 4, INT64: 8, BOOL: 1, FLOAT16: 2}

MOST_KNOWN = 256
"""Largest number of integers that may be a shape, axes or indices, and whose values are read."""

OPSETS = range(13, 21)
"""Versions of the operators that are known here; the exports have 13, 17 and 20."""

MOST_SIDES = 8
"""Largest number of dimensions of a tensor."""

_MOST_FIELDS = 1 << 18  # some times as many as the largest export, INT8 of ViT-B
LARGEST_SIDE = 1 << 24

_PAIR = schema({1: Field("key", "text"), 2: Field("value", "bytes")})
_PAIRS = Field("metadata", "message", True, _PAIR)
_NOTE = Field("note", "bytes")
_TENSOR = schema({
    1: Field("dims", "int", True), 2: Field("kind", "int"), 4: Field("floats", "bytes"), 5: Field("int32s", "ints"),
    7: Field("int64s", "ints"), 8: Field("name", "text"), 9: Field("raw", "bytes"), 12: _NOTE,
    13: Field("elsewhere", "message", True, _PAIR), 14: Field("location", "int"), 16: _PAIRS,
})  # fmt: skip
_ATTRIBUTE = schema({
    1: Field("name", "text"), 2: Field("f", "float"), 3: Field("i", "int"), 4: Field("s", "text"),
    5: Field("t", "message", False, _TENSOR), 8: Field("ints", "int", True), 13: _NOTE, 20: Field("type", "int"),
})  # fmt: skip
_NODE = schema({
    1: Field("input", "text", True), 2: Field("output", "text", True), 3: Field("name", "text"),
    4: Field("operator", "text"), 5: Field("attribute", "message", True, _ATTRIBUTE), 6: _NOTE,
    7: Field("domain", "text"), 9: _PAIRS,
})  # fmt: skip
_SIDE = schema({1: Field("size", "int"), 2: Field("free", "text")})
_SHAPE = schema({1: Field("side", "message", True, _SIDE)})
_ARRAY = schema({1: Field("kind", "int"), 2: Field("shape", "message", False, _SHAPE)})
_TYPE = schema({1: Field("array", "message", False, _ARRAY)})
_VALUE = schema({1: Field("name", "text"), 2: Field("type", "message", False, _TYPE), 3: _NOTE, 4: _PAIRS})
_GRAPH = schema({
    1: Field("node", "message", True, _NODE), 2: Field("name", "text"), 5: Field("tensor", "message", True, _TENSOR),
    10: _NOTE, 11: Field("input", "message", True, _VALUE), 12: Field("output", "message", True, _VALUE),
    13: Field("value", "message", True, _VALUE), 16: _PAIRS,
})  # fmt: skip
_OPSET = schema({1: Field("domain", "text"), 2: Field("version", "int")})
_MODEL = schema({
    1: Field("ir_version", "int"), 2: Field("producer", "text"), 3: Field("producer_version", "text"),
    4: Field("domain", "text"), 5: Field("version", "int"), 6: _NOTE, 7: Field("graph", "message", False, _GRAPH),
    8: Field("opset", "message", True, _OPSET), 14: _PAIRS,
})  # fmt: skip

# Number of ONNX's AttributeProto.AttributeType -> the field with the value.
_CONTENT = {1: "f", 2: "i", 3: "s", 4: "t", 7: "ints"}


class ExternalData(Malformed):
    """A model that takes weights from other files."""


@dataclass(frozen=True)
class Tensor:
    """A constant.

    Attributes:
        kind: of its numbers.
        shape: its sides.
        values: its numbers, if they are a few integers; else None.
    """

    kind: int
    shape: tuple[int, ...]
    values: Ints | None


@dataclass(frozen=True)
class Node:
    """A node of the graph.

    Attributes:
        operator: its operator in ONNX's own domain.
        inputs: names of tensors; "" where an optional one is left out.
        outputs: likewise.
        attributes: name -> an int, text, `Tensor` or tuple of ints; None for a float.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """A model's graph.

    Attributes:
        nodes: in the order of the file.
        constants: name -> initializer.
        inputs: name -> kind and shape; None for a side of free size.
        outputs: names.
    """

    nodes: tuple[Node, ...]
    constants: dict[str, Tensor]
    inputs: dict[str, tuple[int, tuple[int | None, ...]]]
    outputs: tuple[str, ...] = field(default=())


def read_graph(content: bytes) -> Graph:
    """Return the graph of a model file.

    Args:
        content: the whole file.

    Raises:
        ExternalData: the model takes weights from other files.
        Malformed: it is no ONNX file, or has something that no export of edgecxr has.
    """
    model = parse(content, _MODEL, _MOST_FIELDS)
    opsets = {(opset.get("domain", ""), opset.get("version")) for opset in model.get("opset", ())}
    if len(model.get("opset", ())) != 1 or not all(domain == "" and version in OPSETS for domain, version in opsets):
        shown = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(opsets, key=str)[:4])
        raise Malformed(f"it has the operator sets {shown or 'of none'}")
    graph = model.get("graph", {})
    constants = _named((tensor.get("name", ""), _tensor(content, tensor)) for tensor in graph.get("tensor", ()))
    for value in graph.get("value", ()):
        _array(value)
    return Graph(
        tuple(_node(content, node) for node in graph.get("node", ())),
        constants,
        _named((value.get("name", ""), _array(value)) for value in graph.get("input", ())),
        tuple(_named((value.get("name", ""), _array(value)) for value in graph.get("output", ()))),
    )


def _named(items: Iterator[tuple[str, Any]]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, value in items:
        if not name or name in named:
            raise Malformed("a tensor has no name of its own")
        named[name] = value
    return named


def _tensor(content: bytes, tensor: Message) -> Tensor:
    if tensor.get("elsewhere") or tensor.get("location", 0) != 0:
        raise ExternalData("it takes weights from other files")
    kind, shape = tensor.get("kind", 0), _sides(tensor.get("dims", ()))
    if kind not in BYTES:
        raise Malformed("a tensor is of a kind that no export has")
    count = math.prod(shape)
    stored = [name for name in ("raw", "floats", "int32s", "int64s") if name in tensor]
    if stored == ["raw"]:
        start, end = tensor["raw"]
        whole = end - start == count * BYTES[kind]
        keeps_values = kind == INT64 and count <= MOST_KNOWN and whole
        values = np.frombuffer(content, "<i8", count, start).astype(np.int64) if keeps_values else None
    elif stored == ["floats"]:
        start, end = tensor["floats"]
        whole, values = kind == FLOAT and end - start == 4 * count, None
    elif stored == ["int32s"]:
        whole, values = kind in (INT8, INT32, FLOAT16, BOOL) and len(tensor["int32s"]) == count, None
    elif stored == ["int64s"]:
        whole = kind == INT64 and len(tensor["int64s"]) == count
        values = np.array(tensor["int64s"], np.int64) if count <= MOST_KNOWN and whole else None
    else:
        whole, values = not stored and count == 0, np.empty(0, np.int64) if kind == INT64 and count == 0 else None
    if not whole:
        raise Malformed("a tensor has not as many numbers as its shape says")
    return Tensor(kind, shape, None if values is None else values.reshape(shape))


def _sides(dims: Sequence[int]) -> tuple[int, ...]:
    # Before any product: one of thousands of numbers lasts for seconds, and NumPy knows no more than 64 dimensions.
    if len(dims) > MOST_SIDES or not all(0 <= side <= LARGEST_SIDE for side in dims):
        raise Malformed("a tensor has a shape that no export has")
    return tuple(dims)


def _node(content: bytes, node: Message) -> Node:
    if node.get("domain"):
        raise Malformed("it has an operator of another domain than ONNX's own")
    attributes: dict[str, Any] = {}
    for attribute in node.get("attribute", ()):
        name, kind = attribute.get("name", ""), _CONTENT.get(attribute.get("type", 0))
        present = [key for key in ("f", "i", "s", "t", "ints") if key in attribute]
        # An empty list is not written at all.
        if kind is None or name in attributes or (present != [kind] and (kind, present) != ("ints", [])):
            raise Malformed("a node has an attribute that no export has")
        value = attribute.get(kind, ())
        if kind == "t":
            value = _tensor(content, value)
        attributes[name] = None if kind == "f" else tuple(value) if kind == "ints" else value
    return Node(node.get("operator", ""), tuple(node.get("input", ())), tuple(node.get("output", ())), attributes)


def _array(value: Message) -> tuple[int, tuple[int | None, ...]]:
    """Return the kind and shape that the file states.

    Both may be left out of intermediate values.
    """
    array = value.get("type", {}).get("array", {})
    sides = array.get("shape", {}).get("side", ())
    if any(len(side) > 1 for side in sides):
        raise Malformed("a tensor has a side that no export has")
    _sides([side.get("size", 0) for side in sides])
    return array.get("kind", 0), tuple(side.get("size") for side in sides)
