"""FP16 and INT8 files of both profiles: what is in them, what they answer, and that TensorRT's parser takes them."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from edgecxr.bundle.card import ModelCard
from edgecxr.engines.onnxruntime import OnnxRuntimeBackend
from edgecxr.engines.tensorrt.layer_types import converted_weights, from_log, products
from edgecxr.errors import ModelError, UsageError
from edgecxr.export.lower_precision import calibrate, float32_nodes, to_fp16, to_int8, weighted_layers
from edgecxr.export.onnx import OPSETS, export_fp32
from edgecxr.models.vit import TwoHeadViT

IMAGES = np.random.default_rng(0).random((64, 1, 28, 28), dtype=np.float32)

# The operators that TensorRT's parser lists as supported in release 8.5, of those that a ViT could need.
LEGACY_OPS = {
    "Add", "AveragePool", "Cast", "Concat", "Constant", "ConstantOfShape", "Conv", "DequantizeLinear", "Div", "Equal",
    "Erf", "Expand", "Gather", "Gemm", "Identity", "MatMul", "Mul", "Pow", "QuantizeLinear", "ReduceMean", "ReduceSum",
    "Reshape", "Resize", "Shape", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze",
    "Where",
}  # fmt: skip
MODERN_OPS = LEGACY_OPS | {"LayerNormalization"}
ALLOWED = {"legacy": LEGACY_OPS, "modern": MODERN_OPS, "recent": MODERN_OPS | {"Gelu"}}
"""Profile -> operators; LayerNormalization is supported from release 8.6 on, Gelu from 10 on."""

SPLIT = ("recent", "legacy")
"""Profiles whose files are made here as for TensorRT, with separate products for query, key and value."""

FORMS = ("fp32", "fp16", "int8", "int8-fp16")


@pytest.fixture(scope="module", params=list(OPSETS))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Path]]:
    """A profile, and the files of a model with depth 3 and somewhat trained-looking weights."""
    torch.manual_seed(0)
    model = TwoHeadViT("tiny", 28, 4, labels=3, depth=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5).add_(0.02 * torch.randn_like(parameter))
    card = ModelCard("student", ("A", "B", "C"), 28, 49, 4, "tiny", 3, "none")
    folder = tmp_path_factory.mktemp(request.param)
    files = {form: folder / f"{form}.onnx" for form in FORMS}
    export_fp32(model, card, files["fp32"], request.param, split_attention=request.param in SPLIT)
    to_fp16(files["fp32"], files["fp16"])
    ranges = calibrate(files["fp32"], IMAGES, "minmax")
    to_int8(files["fp32"], files["int8"], ranges)
    to_int8(files["fp32"], files["int8-fp16"], ranges, "fp16")
    return request.param, files


def logits(path: Path) -> np.ndarray:
    outputs = OnnxRuntimeBackend(path).run(IMAGES)
    return np.column_stack([outputs.findings, outputs.abnormal])


def test_only_operators_that_the_profile_allows(exported):
    profile, files = exported
    for form, path in files.items():
        graph = onnx.load(path)
        assert {entry.domain: entry.version for entry in graph.opset_import} == {"": OPSETS[profile]}, form
        assert {node.op_type for node in graph.graph.node} <= ALLOWED[profile], form
        assert {node.domain for node in graph.graph.node} == {""}, form
        assert any(prop.key == "edgecxr_card" for prop in graph.metadata_props), form


def test_inputs_and_outputs_are_float32_in_every_form(exported):
    for form, path in exported[1].items():
        graph = onnx.load(path).graph
        ends = [*graph.input, *graph.output]
        assert [end.name for end in ends] == ["image", "findings", "abnormal", "attention", "features"], form
        assert {end.type.tensor_type.elem_type for end in ends} == {TensorProto.FLOAT}, form


def test_layers_have_the_names_of_modules(exported):
    profile, files = exported
    layers = weighted_layers(files["fp32"])
    split = ["attn.q", "attn.k", "attn.v"]
    rest = ["attn.proj", "mlp.fc1", "mlp.fc2"]
    joint = split if profile in SPLIT else ["attn.qkv"]
    # The last block answers for the class token alone: its query is a layer of its own.
    last = split if profile in SPLIT else ["attn.q", "attn.kv"]
    blocks = [f"blocks.{n}.{name}" for n, attn in enumerate([joint, joint, last]) for name in (*attn, *rest)]
    assert sorted(layers) == sorted(["patch_embed.proj", *blocks, "findings_head", "abnormal_head"])


def test_fp16_is_near_and_half_as_large(exported):
    files = exported[1]
    reference, half = logits(files["fp32"]), logits(files["fp16"])
    assert 0 < np.abs(half - reference).max() / np.abs(reference).max() < 5e-3
    assert files["fp16"].stat().st_size < 0.55 * files["fp32"].stat().st_size


def test_layernorm_and_softmax_stay_float32_with_no_half_in_between(exported):
    profile, files = exported
    graph = onnx.load(files["fp16"])
    kept = float32_nodes(graph)
    norms = 2 * 3 + 1 + 1  # the last block normalises the class token on its own, too
    assert len(kept) >= (6 * norms + 3 if profile == "legacy" else norms + 3)
    half = {
        node.output[0] for node in graph.graph.node
        if node.op_type == "Cast" and any(a.name == "to" and a.i == TensorProto.FLOAT16 for a in node.attribute)
    }  # fmt: skip
    weights = {t.name for t in graph.graph.initializer if t.data_type == TensorProto.FLOAT16}
    for node in graph.graph.node:
        if node.name in kept:
            assert not (set(node.input) & (half | weights)), node.name
    if profile == "legacy":
        # Between the parts of one LayerNorm there is no cast at all.
        squares = [node for node in graph.graph.node if node.op_type == "Pow"]
        maker = {output: node.op_type for node in graph.graph.node for output in node.output}
        assert len(squares) == norms and {maker[node.input[0]] for node in squares} == {"Sub"}


def test_a_residual_stream_that_half_precision_cannot_square_survives(tmp_path, exported):
    """Values of a few hundred are usual in ViTs; their squares overflow FP16."""
    profile, _ = exported
    torch.manual_seed(0)
    model = TwoHeadViT("tiny", 28, 4, labels=3, depth=2).eval()
    with torch.no_grad():
        model.vit.pos_embed.add_(400 * torch.randn_like(model.vit.pos_embed))
    export_fp32(model, ModelCard("s", ("A", "B", "C"), 28, 49, 4, "tiny", 2, "none"), tmp_path / "a.onnx", profile)
    to_fp16(tmp_path / "a.onnx", tmp_path / "b.onnx")
    reference, half = logits(tmp_path / "a.onnx"), logits(tmp_path / "b.onnx")
    assert np.isfinite(half).all()
    assert np.abs(half - reference).max() < 0.02 * np.abs(reference).max() + 0.01


@pytest.mark.parametrize("form", ["int8", "int8-fp16"])
def test_int8_quantises_weighted_layers_and_nothing_else(exported, form):
    graph = onnx.load(exported[1][form]).graph
    maker = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}

    def behind_casts(name: str) -> onnx.NodeProto:
        node = maker[name]
        return behind_casts(node.input[0]) if node.op_type == "Cast" and node.input[0] in maker else node

    layers = set(weighted_layers(exported[1]["fp32"]))
    quantised = 0
    for node in graph.node:
        fed = [behind_casts(name) for name in node.input if name in maker]
        if node.name in layers:
            quantised += 1
            assert [source.op_type for source in fed[:2]] == ["DequantizeLinear"] * 2, node.name
            weight = constants[fed[1].input[0]]
            assert weight.data_type == TensorProto.INT8
            scales = numpy_helper.to_array(constants[fed[1].input[1]])
            assert scales.size > 1 or node.name == "abnormal_head"  # per channel
            assert not numpy_helper.to_array(constants[fed[1].input[2]]).any()  # symmetric
        elif node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Cast", "Shape"):
            assert "DequantizeLinear" not in [source.op_type for source in fed], node.name
    assert quantised == len(layers)


def test_int8_answers_nearly_what_fp32_answers(exported):
    reference = logits(exported[1]["fp32"])
    for form in ("int8", "int8-fp16"):
        difference = np.abs(logits(exported[1][form]) - reference)
        assert 0 < difference.mean() < 0.05 * np.abs(reference).mean(), form


def test_methods_clip_differently(exported):
    path = exported[1]["fp32"]
    widths = {
        method: sum(high - low for low, high in calibrate(path, IMAGES, method).values())
        for method in ("minmax", "percentile", "entropy")
    }
    assert widths["percentile"] < widths["minmax"] and widths["entropy"] < widths["minmax"]


def test_ranges_do_not_depend_on_how_images_go_through(exported, monkeypatch):
    import edgecxr.export.lower_precision as module

    whole = calibrate(exported[1]["fp32"], IMAGES, "minmax")
    monkeypatch.setattr(module, "CALIBRATION_BATCH", 7)
    parts = calibrate(exported[1]["fp32"], IMAGES, "minmax")
    assert whole.keys() == parts.keys()
    for name, ends in whole.items():
        assert parts[name] == pytest.approx(ends, rel=1e-5)


def test_a_file_that_was_not_calibrated_is_refused(exported, tmp_path):
    with pytest.raises(ModelError, match="no calibrated range"):
        to_int8(exported[1]["fp32"], tmp_path / "x.onnx", {})
    assert list(tmp_path.iterdir()) == []


def test_keeping_every_layer_is_refused(exported, tmp_path):
    path = exported[1]["fp32"]
    ranges = calibrate(path, IMAGES[:8], "minmax")
    with pytest.raises(UsageError, match="lower --keep-float"):
        to_int8(path, tmp_path / "x.onnx", ranges, keep=weighted_layers(path))
    assert list(tmp_path.iterdir()) == []


RTX = importlib.util.find_spec("tensorrt_rtx_bindings")


@pytest.mark.skipif(RTX is None, reason="TensorRT-RTX is not installed (extra trt-rtx)")
@pytest.mark.parametrize("form", FORMS)
def test_tensorrt_rtx_parses_and_builds_it_without_a_gpu(exported, form):
    trt = importlib.import_module("tensorrt_rtx_bindings")
    messages: list[str] = []

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: object, text: str) -> None:
            messages.append(text)

    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(exported[1][form].read_bytes()), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    profile = builder.create_optimization_profile()
    profile.set_shape("image", *((batch, 1, 28, 28) for batch in (1, 2, 4)))
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    assert builder.build_serialized_network(network, config) is not None, messages[-5:]
    assert not [text for text in messages if "layernorm" in text.lower() and "fp16" in text.lower()]
    layers = from_log("\n".join(messages))
    names = weighted_layers(exported[1]["fp32"])
    types = products(layers, names)
    assert set(types) == set(names)
    if form == "fp32":
        assert set(types.values()) == {"fp32 x fp32 -> fp32"}
    elif form == "fp16":
        assert set(types.values()) == {"fp16 x fp16 -> fp16"}
    elif exported[0] in SPLIT:
        half = form == "int8-fp16" and exported[0] == "recent"  # before opset 19 a scale is FP32, and so is the result
        # TensorRT-RTX has no INT8 convolution with a result of FP16.
        results = {types[name].removeprefix("int8 x int8 -> ") for name in names if name != "patch_embed.proj"}
        assert results <= ({"fp16"} if half else {"fp32", "fp16"}), types
        assert types["patch_embed.proj"].startswith("int8 x int8")
        assert not list(converted_weights(layers))
