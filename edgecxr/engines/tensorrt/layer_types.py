"""Types of the layers that TensorRT makes of a model.

They come from an engine's inspector, or from the builder's verbose log, which needs no GPU.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

_KINDS = {
    "int8": r"int8", "int4": r"int4", "fp8": r"fp8", "bf16": r"bf16|bfloat16", "fp16": r"fp16|half",
    "fp32": r"fp32|tf32|float", "int64": r"int64", "int32": r"int32", "bool": r"bool",
}  # fmt: skip

_BYTES = {"int8": 1, "fp8": 1, "bool": 1, "fp16": 2, "bf16": 2, "fp32": 4, "int32": 4, "int64": 8}

_LINE = re.compile(
    r"^Name: (?P<Name>.*?), LayerType: (?P<LayerType>\w+), Inputs: \[(?P<Inputs>.*?)\]"
    r"(?:, Constants: \[(?P<Constants>.*?)\])?"
    r", Outputs: \[(?P<Outputs>.*?)\], TacticName: .*?Metadata: (?P<Metadata>.*)$",
    re.M,
)
_TENSOR = re.compile(
    r"\{ Name: .*?, Dimensions: \[(?P<Dimensions>[-\d,]*)\].*?(?:Datatype: (?P<Datatype>\w+))?, Format.*?\}"
)
_PRODUCT = re.compile(r"gemm|correlation|conv|matri?x?_?mul|runtime_fusion", re.I)


@dataclass(frozen=True)
class Layer:
    """A layer of an engine.

    Attributes:
        name: TensorRT's name for it.
        kind: TensorRT's word, such as "gemm", "correlation" or "kgen".
        inputs: types of what it reads.
        weights: type of its largest constant; None without one.
        constant_bytes: size of all its constants.
        outputs: types of its results.
        nodes: names of the ONNX nodes that it computes.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    weights: str | None
    constant_bytes: int
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def types(self) -> str:
        """Type of the result, or of a product and its factors."""
        result = self.outputs[0] if self.outputs else "other"
        factors = [*self.inputs, self.weights] if self.weights else list(self.inputs)
        if len(factors) < 2 or not _PRODUCT.search(self.kind):
            return result
        return f"{self.inputs[0] if self.inputs else factors[0]} x {self.weights or factors[1]} -> {result}"


def from_log(text: str) -> list[Layer]:
    """Return the layers that the builder's verbose log lists."""
    layers = []
    for match in _LINE.finditer(text):
        described: dict[str, Any] = match.groupdict()
        for key in ("Inputs", "Constants", "Outputs"):
            described[key] = [
                {
                    "Dimensions": [int(side) for side in tensor["Dimensions"].split(",") if side],
                    "Datatype": tensor["Datatype"],
                }
                for tensor in _TENSOR.finditer(described[key] or "")
            ]
        layers.append(from_inspector(described))
    return layers


def from_inspector(layer: dict[str, Any]) -> Layer:
    """Return a layer of the inspector's JSON.

    Raises:
        KeyError: it has no name.
        TypeError, AttributeError: its parts have other types than the inspector's.
    """
    constants = layer.get("Constants") or []
    numbers = [math.prod(abs(side) for side in tensor["Dimensions"]) for tensor in constants]
    largest = constants[numbers.index(max(numbers))] if constants else None
    return Layer(
        name=str(layer["Name"]),
        kind=str(layer.get("LayerType", "")),
        inputs=tuple(kind_of(tensor) for tensor in layer.get("Inputs") or []),
        weights=kind_of(largest) if largest else None,
        constant_bytes=sum(
            count * _BYTES.get(kind_of(tensor), 0) for count, tensor in zip(numbers, constants, strict=True)
        ),
        outputs=tuple(kind_of(tensor) for tensor in layer.get("Outputs") or []),
        nodes=tuple(re.findall(r"\[ONNX Layer: (.*?)\]", str(layer.get("Metadata", "")))),
    )


def kind_of(tensor: dict[str, Any]) -> str:
    """Return the type named in TensorRT's description of a tensor.

    Descriptions are such as "Row major linear FP32", "Half" or "Two wide channel vectorized FP16".
    """
    text = " ".join(str(tensor[key]) for key in ("Datatype", "Format/Datatype", "Format") if key in tensor).lower()
    return next((kind for kind, words in _KINDS.items() if re.search(words, text)), "other")


def types_of(layers: Iterable[Layer]) -> dict[str, str]:
    """Return layer name -> types, of the layers that have a result."""
    return {layer.name: layer.types for layer in layers if layer.outputs}


def products(layers: Iterable[Layer], names: Collection[str]) -> dict[str, str]:
    """Return how the nodes with weights are multiplied.

    Args:
        layers: of an engine.
        names: of the ONNX nodes with weights.

    Returns:
        Node -> `Layer.types`; nodes that no product names are left out.
    """
    return {
        node: layer.types
        for layer in layers
        for node in sorted(set(layer.nodes) & set(names))
        if layer.inputs and " x " in layer.types
    }


def converted_weights(layers: Iterable[Layer]) -> Iterator[Layer]:
    """Yield the layers that do nothing but convert constants, at every run."""
    for layer in layers:
        if not layer.inputs and layer.weights is not None and layer.outputs:
            yield layer
