"""What the ONNX file of a trained student says and computes."""

from __future__ import annotations

import json
import math

import numpy as np
import onnx
import pytest
import timm.layers
import torch
from onnx import numpy_helper

from edgecxr.bundle.card import ModelCard
from edgecxr.engines.backend import Outputs
from edgecxr.engines.onnxruntime import OnnxRuntimeBackend
from edgecxr.errors import CheckFailed, ModelError
from edgecxr.export.onnx import OPSETS, export_fp32
from edgecxr.export.parity import check_parity, compare
from edgecxr.films.resize import box_mean
from edgecxr.models.vit import TwoHeadViT
from edgecxr.train.checkpoint import load_run
from edgecxr.train.checkpoint_backend import TorchBackend


@pytest.fixture(scope="module")
def exported(finished, bundled):
    """The checkpoint and the ONNX file of a student."""
    return load_run(finished.student)[0], bundled.path / "model.onnx"


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_trained_student_answers_real_films_as_its_checkpoint_does(exported, finished, batch):
    model, path = exported
    images = box_mean(finished.prepared.images[:batch], 28)[:, None]
    check_parity(compare(TorchBackend(model), OnnxRuntimeBackend(path), images), "student", tolerance=1e-5)


def test_an_upsampling_student_takes_small_films_and_answers_as_its_checkpoint_does(tmp_path):
    model = TwoHeadViT("tiny", 28, 32, labels=2, depth=2, input="upsample").eval()
    card = ModelCard("student", ("A", "B"), 28, 49, 32, "tiny", 2, "mlcak", input="upsample")
    export_fp32(model, card, tmp_path / "model.onnx")
    images = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    differences = compare(TorchBackend(model), OnnxRuntimeBackend(tmp_path / "model.onnx"), images)
    check_parity(differences, "student", tolerance=1e-5)


@pytest.mark.parametrize(
    ("profile", "size", "patch"),
    [("legacy", 28, 4), ("modern", 224, 32), ("recent", 28, 4)]
    + [pytest.param(profile, 28, 2, marks=pytest.mark.long) for profile in OPSETS]
    + [pytest.param(profile, 224, 32, marks=pytest.mark.long) for profile in ("legacy", "recent")],
)
def test_a_convolutional_stem_is_exported_without_batch_norm_and_answers_as_its_checkpoint(
    tmp_path, profile, size, patch
):
    model = TwoHeadViT("tiny", size, patch, labels=2, depth=2, stem="conv")
    for _ in range(5):
        model.trace(torch.rand(8, 1, size, size))  # batch norms that have seen films
    tokens = model.grid**2
    card = ModelCard("student", ("A", "B"), size, tokens, patch, "tiny", 2, "mlcak", stem="conv")
    export_fp32(model.eval(), card, tmp_path / "model.onnx", profile)
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    convolutions = [node.name for node in graph.node if node.op_type == "Conv"]
    stages = len(convolutions) - 1
    assert 2**stages == patch
    assert convolutions == [*(f"patch_embed.backbone.{3 * i}" for i in range(stages)), "patch_embed.proj"]
    images = np.random.default_rng(0).random((3, 1, size, size), dtype=np.float32)
    check_parity(compare(TorchBackend(model), OnnxRuntimeBackend(tmp_path / "model.onnx"), images), "s", tolerance=1e-5)


def test_the_normalisation_is_inside_the_graph(exported):
    model, path = exported
    images = np.random.default_rng(0).random((2, 1, 28, 28), dtype=np.float32)
    with torch.no_grad():
        token = model.vit.forward_features(torch.from_numpy(images) * 2 - 1)[:, 0]
        expected = model.findings_head(token).numpy()
    assert np.allclose(OnnxRuntimeBackend(path).run(images).findings, expected, atol=1e-5)


def test_the_answer_for_a_film_does_not_depend_on_its_batch(exported):
    backend = OnnxRuntimeBackend(exported[1])
    images = np.random.default_rng(1).random((5, 1, 28, 28), dtype=np.float32)
    together = backend.run(images)
    alone = [backend.run(image[None]) for image in images]
    assert np.allclose(together.findings, np.concatenate([each.findings for each in alone]), atol=1e-5)
    assert np.allclose(together.abnormal, np.concatenate([each.abnormal for each in alone]), atol=1e-5)
    assert np.allclose(together.attention.sum((1, 2)), 1, atol=1e-5)


def test_the_file_is_one_piece_of_plain_float32_operators(exported):
    path = exported[1]
    # No external data beside it.
    assert {file.name for file in path.parent.iterdir()} == {"model.onnx", "gate.npy", "card.json", "SHA256SUMS"}
    graph = onnx.load(path)
    assert (
        {opset.domain: opset.version for opset in graph.opset_import if not opset.domain}
        == {"": OPSETS["modern"]}
        == {"": 17}
    )
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    assert "Attention" not in {node.op_type for node in graph.graph.node}
    floats = [tensor for tensor in graph.graph.initializer if numpy_helper.to_array(tensor).dtype.kind == "f"]
    assert {tensor.data_type for tensor in floats} == {onnx.TensorProto.FLOAT}
    learnt = sum(parameter.numel() for parameter in exported[0].parameters())
    assert sum(numpy_helper.to_array(tensor).size for tensor in floats) == pytest.approx(learnt, rel=0.01)


def test_the_card_inside_is_that_of_the_run_in_float32(exported, finished):
    properties = {prop.key: prop.value for prop in onnx.load(exported[1]).metadata_props}
    card = ModelCard.from_json(properties["edgecxr_card"], "model.onnx")
    assert card == load_run(finished.student)[1]
    assert json.loads(properties["edgecxr_card"])["precision"] == "fp32"
    assert "not for diagnosis" in properties["notice"]


class Fixed:
    """A backend that always answers the same: zeros, but for what is given."""

    def __init__(self, findings: float = 0.0, abnormal: float = 0.0, attention: float = 0.0) -> None:
        self.outputs = Outputs(*(np.zeros(shape, np.float32) for shape in ((2, 3), (2,), (2, 7, 7))))
        self.outputs.findings[1, 2], self.outputs.abnormal[1] = findings, abnormal
        self.outputs.attention[1, 6, 6] = attention

    def run(self, images):
        return self.outputs

    def close(self) -> None:
        pass


IMAGES = np.zeros((2, 1, 28, 28), np.float32)


@pytest.mark.parametrize("output", ["findings", "abnormal", "attention"])
@pytest.mark.parametrize("value", [2e-4, -2e-4, math.nan, math.inf])
def test_one_wrong_number_in_any_output_fails_the_check(output, value):
    for pair in ((Fixed(), Fixed(**{output: value})), (Fixed(**{output: value}), Fixed())):
        with pytest.raises(CheckFailed, match=r"ONNX file of m differs .* on 2 images"):
            check_parity(compare(*pair, IMAGES), "m", tolerance=1e-4)


def test_differences_by_hand():
    differences = compare(
        Fixed(findings=0.5, abnormal=-0.25, attention=0.125), Fixed(findings=0.25, abnormal=1.0), IMAGES
    )
    assert differences == {"images": 2, "max_logit_difference": 1.25, "max_attention_difference": 0.125}
    check_parity(differences, "m", tolerance=1.25)


def test_an_export_leaves_models_that_are_made_afterwards_alone(exported):
    assert timm.layers.use_fused_attn()
    assert TwoHeadViT("tiny", 28, 14, labels=2, depth=2).vit.blocks[0].attn.fused_attn


def test_a_failing_exporter_is_named_with_the_model(exported, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyError("aten::nothing")

    monkeypatch.setattr(torch.onnx, "export", fail)
    model, _ = exported
    card = ModelCard("student-x", ("A",), 28, 49, 4, "tiny", 2, "mlcak")
    with pytest.raises(ModelError, match=r"could not export student-x to ONNX \(KeyError: .*aten::nothing"):
        export_fp32(model, card, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_onnx_runtime_computes_each_gelu_and_layernorm_in_one_kernel(exported, tmp_path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(exported[1]), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert "Erf" not in kinds and sum("Gelu" in kind for kind in kinds) == 2  # as many as blocks


def test_the_last_block_is_computed_for_the_class_token_alone(exported):
    graph = onnx.load(exported[1]).graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    weights = {node.name: shapes.get(node.input[1]) for node in graph.node if node.op_type == "MatMul"}
    assert weights["blocks.1.attn.q"] == (192, 192) and weights["blocks.1.attn.kv"] == (192, 384)
    assert "blocks.1.attn.qkv" not in weights
