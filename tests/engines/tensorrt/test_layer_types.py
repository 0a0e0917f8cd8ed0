"""Layers as the builder's log and the inspector describe them."""

from __future__ import annotations

import pytest

from edgecxr.engines.tensorrt.layer_types import converted_weights, from_inspector, from_log, products, types_of
from edgecxr.engines.tensorrt.layers import unfused_stem


def tensor(kind: str, *sides: int) -> str:
    shape = ",".join(map(str, sides))
    return (
        f"{{ Name: x, Dimensions: [{shape}], Strides: [{shape}], StrideOrder: [1,0], Datatype: {kind}, "
        "Format: (Linear) Row major linear format }"
    )


def line(name: str, kind: str, inputs: str, constants: str, outputs: str, *nodes: str) -> str:
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {inputs}], Constants: [ {constants}], Outputs: [ {outputs}], "
        "TacticName: t, StreamId: 0, Metadata: " + "".join(f"[ONNX Layer: {node}]" for node in nodes)
    )


LOG = "\n".join(
    [
        "Layers:",
        "Name: shapes_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , Metadata: ",
        line("cast_1", "kgen", "", tensor("Int8", 192, 576), tensor("Half", 1, 192, 576), "w_DequantizeLinear"),
        line(
            "v+k_2", "gemm", tensor("Int8", -1, 192), f"{tensor('Float', 1)}, {tensor('Int8', 192, 384)}",
            tensor("Half", -1, 384), "blocks.0.attn.v", "blocks.0.attn.k",
        ),
        "",
        "I/O Tensors:",
        " Name: image, IOMode: Input, DataType: Float, Dimensions: [-1,1,28,28], Location: Device",
    ]
)  # fmt: skip


def test_the_log_names_the_types_of_each_product() -> None:
    layers = from_log(LOG)
    assert [(layer.kind, layer.inputs, layer.weights, layer.outputs) for layer in layers] == [
        ("shape_call", (), None, ()), ("kgen", (), "int8", ("fp16",)), ("gemm", ("int8",), "int8", ("fp16",)),
    ]  # fmt: skip
    assert types_of(layers) == {"cast_1": "fp16", "v+k_2": "int8 x int8 -> fp16"}
    types = products(layers, ("blocks.0.attn.v", "blocks.0.attn.k", "blocks.0.attn.q"))
    assert types == dict.fromkeys(("blocks.0.attn.v", "blocks.0.attn.k"), "int8 x int8 -> fp16")
    assert [layer.name for layer in converted_weights(layers)] == ["cast_1"]


@pytest.mark.parametrize(
    ("lines", "unfused", "stages"),
    [
        ([("runtime_fusion", "node_gelu", "patch_embed.backbone.0"), ("runtime_fusion", "patch_embed.backbone.3", "g"),
          ("correlation", "patch_embed.proj")], 0, 2),
        ([("correlation", "patch_embed.backbone.0", "div_DequantizeLinear",
           "vit.patch_embed.backbone.0.weight_DequantizeLinear"), ("kgen", "node_gelu", "gelu_QuantizeLinear"),
          ("runtime_fusion", "patch_embed.backbone.3", "node_gelu_1")], 1, 2),
        ([("kgen", "node_sub", "patch_embed.backbone.0"), ("correlation", "patch_embed.backbone.0", "node_gelu"),
          ("correlation", "patch_embed.backbone.0")], 1, 1),
        ([("correlation", "patch_embed.proj"), ("gemm", "blocks.0.mlp.fc1", "node_gelu")], 0, 0),
    ],
)  # fmt: skip
def test_stages_of_a_stem_that_are_not_fused_are_counted(
    lines: list[tuple[str, ...]], unfused: int, stages: int
) -> None:
    text = "\n".join(line("x", kind, tensor("Half", 1), "", tensor("Half", 1), *nodes) for kind, *nodes in lines)
    assert unfused_stem(from_log(text)) == (unfused, stages)


def test_a_layer_of_tensorrt_8_names_its_parts() -> None:
    described = {"LayerType": "CaskConvolution", "Outputs": [{"Format/Datatype": "Row major linear FP16 format"}]}
    names = ("patch_embed.backbone.0 + PWN(PWN(/Erf), /Mul)", "patch_embed.backbone.3", "patch_embed.proj")
    assert unfused_stem(from_inspector(described | {"Name": name}) for name in names) == (1, 2)


def test_weights_that_were_converted_come_as_an_input() -> None:
    layer = from_inspector(
        {
            "Name": "fc", "LayerType": "runtime_fusion", "Metadata": "[ONNX Layer: fc1]",
            "Inputs": [{"Format/Datatype": "Int8"}, {"Format/Datatype": "Row major linear FP16 format"}],
            "Outputs": [{"Format/Datatype": "Half"}],
        }
    )  # fmt: skip
    assert products([layer], ["fc1"]) == {"fc1": "int8 x fp16 -> fp16"}
    assert not list(converted_weights([layer]))
