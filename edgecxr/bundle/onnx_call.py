"""A node of a graph with what is known of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgecxr.bundle.onnx_graph import Ints, Node

LARGEST_INTEGER = 1 << 40
"""Limit of a number that a shape is worked out from."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Array:
    """What is known of a tensor.

    Attributes:
        shape: its sides.
        values: its numbers, if they are integers that follow from shapes; else None.
    """

    shape: Shape
    values: Ints | None = None


class Call:
    """A node with what is known of its inputs.

    A rule that asks for what is not there or not known fails with one of the errors that `check_sizes` catches.
    """

    def __init__(self, node: Node, inputs: Sequence[Array | None]) -> None:
        self.node, self.inputs, self.products = node, inputs, 0

    def has(self, place: int) -> bool:
        """Return whether an input is given."""
        return len(self.inputs) > place and self.inputs[place] is not None

    def array(self, place: int) -> Array:
        """Return an input, which must be given."""
        array = self.inputs[place]
        if array is None:
            raise ValueError("a left out input")
        return array

    def shape(self, place: int = 0) -> Shape:
        """Return the sides of an input."""
        return self.array(place).shape

    def integers(self, place: int) -> list[int]:
        """Return the integers of an input of at most one dimension."""
        array = self.array(place)
        if array.values is None or len(array.shape) > 1:
            raise ValueError("not known")
        return [int(value) for value in array.values.ravel()]

    def number(self, name: str, default: int) -> int:
        """Return an attribute that is an int."""
        value = self.node.attributes.get(name, default)
        if type(value) is not int or abs(value) > LARGEST_INTEGER:
            raise ValueError(name)
        return value

    def numbers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """Return an attribute that is a list of ints."""
        value = self.node.attributes.get(name, tuple(default))
        if not isinstance(value, tuple) or any(abs(number) > 1 << 16 for number in value):
            raise ValueError(name)
        return value

    def axis(self, default: int, sides: int | None = None) -> int:
        """Return the attribute "axis", from 0 on."""
        return in_range(self.number("axis", default), len(self.shape()) if sides is None else sides)

    def axes(self, place: int, sides: int) -> list[int]:
        """Return axes: an input, or an attribute in older operator sets."""
        axis_numbers = self.integers(place) if self.has(place) else self.numbers("axes", ())
        axes = [in_range(axis, sides) for axis in axis_numbers]
        if len(set(axes)) < len(axes):
            raise ValueError("axes")
        return axes


def in_range(axis: int, sides: int) -> int:
    """Return an axis, which may count from the end, from 0 on."""
    if not -sides <= axis < sides:
        raise IndexError(axis)
    return axis % sides


def broadcast(*shapes: Shape) -> Shape:
    """Return the common shape of arrays that are combined number by number."""
    sides = max(map(len, shapes))
    padded = [(1,) * (sides - len(shape)) + shape for shape in shapes]
    result: list[int] = []
    for column in zip(*padded, strict=True):
        large = {side for side in column if side != 1} or {1}
        if len(large) > 1:
            raise ValueError("no broadcast")
        result.extend(large)
    return tuple(result)
