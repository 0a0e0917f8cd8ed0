"""Memory and work of a model's graph, before an engine sees it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from edgecxr.bundle.onnx_call import Array, Call
from edgecxr.bundle.onnx_graph import LARGEST_SIDE, MOST_SIDES, Graph, Node
from edgecxr.bundle.onnx_operators import RULES
from edgecxr.bundle.protobuf import Malformed

BATCHES = (1, 16)
"""Numbers of images that are worked out; `edgecxr infer` gives up to 16 at a time."""

MOST_HELD = 1 << 26
"""Limit of the numbers that are held at once, for each image; ViT-Base with 784 tokens holds 15 million."""

MOST_VALUES = 1 << 31
"""Limit of the numbers in all results together, for each image; ViT-Base with 784 tokens has up to a billion."""

MOST_FIXED = 1 << 24
"""Limit of the numbers that no image changes, which engines compute and keep, beyond twice as many as the file has.

Weights in INT8 are scaled, and some cast to FP16.
"""

MOST_PRODUCTS = 1 << 37
"""Limit of the multiplications for one image."""

_MOST_NODES = 20_000


class Work:
    """Sums over the nodes of a graph, for a batch.

    Attributes:
        batch: images in it.
        held: the most numbers that are held at once.
        values: numbers in all results.
        fixed: numbers in results that no image changes; they are in no other sum.
        products: multiplications.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.held = self.values = self.fixed = self.products = 0


def check_sizes(graph: Graph) -> list[Work]:
    """Return what a graph needs for each of `BATCHES`.

    Raises:
        Malformed: it has another operator than those of an export, needs too much, or its shapes do not fit.
    """
    if len(graph.nodes) > _MOST_NODES:
        raise Malformed(f"it has more than {_MOST_NODES} nodes")
    for node in graph.nodes:
        if node.operator not in RULES:
            raise Malformed(f"no export has an operator {node.operator!r}")
        if not RULES[node.operator][1].issuperset(node.attributes):
            raise Malformed(f"a node {node.operator} has an attribute that no export has")
    return [_work(graph, batch) for batch in BATCHES]


def _work(graph: Graph, batch: int) -> Work:
    arrays = {name: Array(constant.shape, constant.values) for name, constant in graph.constants.items()}
    most_fixed = MOST_FIXED + 2 * _numbers(arrays.values())
    for name, (_, sides) in graph.inputs.items():
        if name in arrays:
            raise Malformed("an input is a constant, too")
        arrays[name] = Array(tuple(batch if side is None else side for side in sides))
    work, changing, last_reader = Work(batch), set(graph.inputs), _last_readers(graph)
    held: dict[str, int] = {}
    now = 0
    for place, node in enumerate(graph.nodes):
        results = dict(zip(node.outputs, _results(node, arrays, work), strict=True))
        if len(results) < len(node.outputs) or "" in results or not arrays.keys().isdisjoint(results):
            raise Malformed("a result has no name of its own")
        arrays |= results
        if changing.isdisjoint(node.inputs):
            work.fixed += _numbers(results.values())
        else:
            changing.update(results)
            held |= {name: math.prod(result.shape) for name, result in results.items()}
            now += _numbers(results.values())
            work.values += _numbers(results.values())
            work.held = max(work.held, now)
            for name in (*node.inputs, *node.outputs):
                if last_reader.get(name, place) <= place:
                    now -= held.pop(name, 0)
        if (
            work.held > MOST_HELD * batch
            or work.values > MOST_VALUES * batch
            or work.fixed > most_fixed
            or work.products > MOST_PRODUCTS * batch
        ):
            raise Malformed(f"it needs more memory or time than any export, at a node {node.operator}")
    if not arrays.keys() >= set(graph.outputs):
        raise Malformed("no node makes one of its outputs")
    return work


def _last_readers(graph: Graph) -> dict[str, int]:
    """Return name -> place of its last reader.

    Outputs of the graph have a place beyond all nodes.
    """
    last = {name: place for place, node in enumerate(graph.nodes) for name in node.inputs}
    return last | dict.fromkeys(graph.outputs, len(graph.nodes))


def _numbers(arrays: Iterable[Array]) -> int:
    return sum(math.prod(array.shape) for array in arrays)


def _results(node: Node, arrays: dict[str, Array], work: Work) -> list[Array]:
    """Return what is known of a node's results."""
    missing = [name for name in node.inputs if name and name not in arrays]
    if missing:
        raise Malformed(f"a node {node.operator} reads what no node before it has made")
    call = Call(node, [arrays.get(name) for name in node.inputs])
    try:
        results = RULES[node.operator][0](call)
    except (IndexError, KeyError, ValueError, TypeError, OverflowError):
        raise Malformed(f"the shapes at a node {node.operator} do not fit") from None
    if len(results) != len(node.outputs) or any(
        len(result.shape) > MOST_SIDES or not all(0 <= side <= LARGEST_SIDE * work.batch for side in result.shape)
        for result in results
    ):
        raise Malformed(f"the results of a node {node.operator} do not fit")
    work.products += call.products
    return results
