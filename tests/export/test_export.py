from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch

from edgecxr.errors import CheckFailed, InputError
from edgecxr.export import bundle as exporting
from edgecxr.export.bundle import export_bundle
from edgecxr.export.onnx import OPSET, check_parity, compare, export_fp32
from edgecxr.models.reference import TorchBackend
from edgecxr.models.vit import TwoHeadViT
from edgecxr.runtime.bundle import Bundle
from edgecxr.runtime.onnxruntime import OnnxRuntimeBackend
from edgecxr.runtime.types import ModelCard, Outputs
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.train.teacher import train_teacher
from edgecxr.workspace import Workspace
from tests.conftest import striped, write_prepared


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model of random weights and its ONNX file."""
    torch.manual_seed(0)
    model = TwoHeadViT("tiny", 28, 4, labels=3, depth=2).eval()
    card = ModelCard("student", ("A", "B", "C"), 28, 49, 4, "tiny", 2, "mlcak")
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_fp32(model, card, path)
    return model, path


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnxruntime_gives_what_torch_gives_at_any_batch_size(exported, batch):
    model, path = exported
    images = np.random.default_rng(batch).random((batch, 1, 28, 28), dtype=np.float32)
    differences = compare(TorchBackend(model), OnnxRuntimeBackend(path), images)
    assert differences["images"] == batch
    assert differences["max_logit_difference"] < 1e-4
    assert differences["max_attention_difference"] < 1e-4


def test_the_file_names_its_tensors_and_carries_its_card(exported):
    graph = onnx.load(exported[1])
    assert [i.name for i in graph.graph.input] == ["image"]
    assert [o.name for o in graph.graph.output] == ["findings", "abnormal", "attention"]
    shape = graph.graph.input[0].type.tensor_type.shape.dim
    assert shape[0].dim_param
    assert [d.dim_value for d in shape[1:]] == [1, 28, 28]
    assert {o.domain: o.version for o in graph.opset_import}[""] == OPSET
    assert json.loads({p.key: p.value for p in graph.metadata_props}["edgecxr_card"])["labels"] == ["A", "B", "C"]
    ops = {node.op_type for node in graph.graph.node}
    assert "LayerNormalization" in ops
    assert "Attention" not in ops  # of opset 23, which TensorRT has no FP32 kernel for


def outputs(shift: float) -> Outputs:
    return Outputs(
        np.zeros((2, 3), np.float32) + shift, np.zeros(2, np.float32), np.full((2, 7, 7), 1 / 49, np.float32)
    )


class Fixed:
    def __init__(self, shift: float) -> None:
        self.shift = shift

    def run(self, images):
        return outputs(self.shift)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("shift", [2e-4, float("nan"), float("inf")])
def test_a_difference_fails_the_check(shift):
    differences = compare(Fixed(0.0), Fixed(shift), np.zeros((2, 1, 28, 28), np.float32))
    with pytest.raises(CheckFailed, match="was not written"):
        check_parity(differences, "student")
    check_parity(compare(Fixed(0.0), Fixed(5e-5), np.zeros((2, 1, 28, 28), np.float32)), "student")


@pytest.fixture
def trained(prepared, tmp_path):
    config = TrainConfig(prepared.name, prepared.hash, patch=56, depth=2, init="random", epochs=1, batch=16)
    device = Device(torch.device("cpu"), "fp32")
    return train_teacher(Workspace(tmp_path / "runs"), prepared, config, device, lambda *_: None)


def test_a_bundle_holds_what_was_checked_and_a_failing_export_leaves_it(trained, prepared, tmp_path, monkeypatch):
    bundle, differences = export_bundle(trained, prepared, tmp_path / "bundle")
    assert differences["images"] == 15  # all of the validation split
    assert all(whole for _, whole in bundle.verify())
    facts = Bundle.open(tmp_path / "bundle").card.artefacts["model.onnx"]
    assert facts["precision"] == "fp32"
    assert facts["parity"]["max_logit_difference"] == differences["max_logit_difference"]

    before = {p.name: p.read_bytes() for p in (tmp_path / "bundle").iterdir()}
    monkeypatch.setattr(exporting, "OnnxRuntimeBackend", lambda path: Fixed(1.0))
    monkeypatch.setattr(exporting, "compare", lambda *_: differences | {"max_logit_difference": 1.0})
    with pytest.raises(CheckFailed):
        export_bundle(trained, prepared, tmp_path / "bundle")
    assert {p.name: p.read_bytes() for p in (tmp_path / "bundle").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_without_validation_images_there_is_nothing_to_check_on(trained, tmp_path):
    images, targets, abnormal, _ = striped(24)
    no_val = write_prepared(tmp_path / "noval", images, targets, abnormal, ["train"] * 24)
    with pytest.raises(InputError, match="no validation images"):
        export_bundle(trained, no_val, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
