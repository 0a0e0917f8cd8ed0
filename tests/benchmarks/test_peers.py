"""benchmarks/peers: models of others beside our own, with small models of timm in the place of the large ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgecxr.benchmark import candidates
from edgecxr.errors import ModelError
from edgecxr.workspace import Workspace
from tests.tiny_bundle import tiny_bundle

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = "test_vit"
SIDE = 224


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from peers import models

    return models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model of random weights. Not to be changed."""
    folder = tmp_path_factory.mktemp("peers")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        from peers import models

        peer = models.make(SMALL, folder, None, False)
    assert (peer.weights, peer.source, peer.shape, peer.labels) == ("random", "random", (3, SIDE, SIDE), ())
    return folder


def images(count: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((count, channels, SIDE, SIDE), np.float32)


def test_both_engines_run_the_same_model_on_any_batch(models: ModuleType, folder: Path) -> None:
    exported = models.open_onnx(folder / f"{SMALL}.onnx", 1)
    checkpoint = models.open_torch(SMALL, folder / f"{SMALL}.safetensors", 1)
    for count in (1, 3):
        ours, theirs = exported.run(images(count)), checkpoint.run(images(count))
        assert ours.findings.shape == (count, 1000)
        np.testing.assert_allclose(ours.findings, theirs.findings, atol=1e-5)


def test_pixels_and_columns_are_those_of_the_model(models: ModuleType) -> None:
    batches = []

    def compute(batch: np.ndarray) -> list[np.ndarray]:
        batches.append(batch)
        return [np.array([[1, 2, 3], [6, 5, 4]], np.float32)]

    outputs = models.Opened(compute, (-1024.0, 1024.0), [2, 0]).run(np.array([0, 0.5, 1], np.float32))
    assert batches[0].tolist() == [-1024, 0, 1024] and batches[0].dtype == np.float32
    assert outputs.findings.tolist() == [[3, 1], [4, 6]]
    assert outputs.abnormal.tolist() == [3, 6]


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_weights_that_are_given_are_taken_and_said_to_be_trained(
    models: ModuleType, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    monkeypatch.setattr(models, "export_plainly", lambda *_: None)  # not what this is about
    theirs = timm.create_model(SMALL, img_size=SIDE).eval()
    weights_folder = tmp_path / "given"
    weights_folder.mkdir()
    save = save_file if ending == "safetensors" else torch.save
    save(theirs.state_dict(), weights_folder / f"{SMALL}.{ending}")
    assert models.make(SMALL, tmp_path, None, False).weights == "random"
    peer = models.make(SMALL, tmp_path, weights_folder, False)  # replaces it
    assert (peer.weights, peer.source) == ("trained", f"{SMALL}.{ending}")
    assert models.make(SMALL, tmp_path, None, False) == peer  # as it lies there
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(images(2))).numpy()
    logits = models.open_torch(SMALL, tmp_path / f"{SMALL}.safetensors", 1).run(images(2)).findings
    np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_what_is_no_weights_of_the_model_is_refused(models: ModuleType, tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / f"{SMALL}.pt")  # a pickle of a whole model could run anything
    with pytest.raises(ModelError, match=r"test_vit\.pt is no file of weights alone"):
        models.make(SMALL, tmp_path / "out", tmp_path, False)
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / f"{SMALL}.pt")
    with pytest.raises(ModelError, match=r"test_vit\.pt does not fit test_vit"):
        models.make(SMALL, tmp_path / "out", tmp_path, False)
    with pytest.raises(ModelError, match="has no model resnet51"):
        models.make("resnet51", tmp_path / "out", None, False)


def test_densenet_of_torchxrayvision_answers_for_the_findings_of_a_data_set(
    models: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xrv = pytest.importorskip("torchxrayvision")
    from peers.run import answers

    class Small(xrv.models.DenseNet):
        def __init__(self) -> None:
            super().__init__(growth_rate=2, block_config=(1, 1, 1, 1), num_init_features=4)

    monkeypatch.setattr(models, "_xrv", lambda: SimpleNamespace(models=SimpleNamespace(DenseNet=Small)))
    peer = models.make(models.XRV, tmp_path, None, False)
    assert (peer.weights, peer.shape, len(peer.labels)) == ("random", (1, SIDE, SIDE), 18)
    labels, columns = answers(peer, ("Edema", "Nodule"))
    assert labels == ("Edema", "Nodule") and [peer.labels[column] for column in columns] == ["Edema", "Nodule"]
    assert answers(peer, ("Edema", "Fever")) == (peer.labels, [])
    batch = images(2, channels=1)
    settings = {"threads": 1, "pixels": models.PIXELS[models.XRV], "columns": columns}
    ours = models.open_onnx(tmp_path / f"{models.XRV}.onnx", **settings).run(batch).findings
    theirs = models.open_torch(models.XRV, tmp_path / f"{models.XRV}.safetensors", **settings).run(batch).findings
    assert ours.shape == (2, 2)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_peers_join_the_groups_of_own_models(
    models: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peers import run

    def here(do: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
        return (do(*arguments), "") if arguments[0] == SMALL else (None, "no such thing")

    monkeypatch.setattr(run, "apart", here)
    args = Namespace(
        backend=[], precision=[], peer=[SMALL, models.XRV], weights=None, download=False, student=None, threads=1
    )
    peers = list(run.candidates(Workspace(tmp_path), args, folder, ()))
    assert [(each.model.name, each.backend, each.opener) for each in peers] == [
        (SMALL, "torch", "peers.models:open_torch"), (SMALL, "onnxruntime", "peers.models:open_onnx"),
        (models.XRV, "torch", "peers.models:refuse"), (models.XRV, "onnxruntime", "peers.models:refuse"),
    ]  # fmt: skip
    tiny_bundle(tmp_path / "export" / "tiny")
    own, _ = candidates.find(Workspace(tmp_path), [], [], [], 1)
    groups = [group for group, _ in groupby(candidates.in_order([*own, *peers]), key=lambda each: each.group)]
    assert len(groups) == len(set(groups)) and ("torch", "fp32") in groups
    args.precision = ["int8"]
    assert not list(run.candidates(Workspace(tmp_path), args, folder, ()))


def test_a_student_is_exported_plainly_and_can_be_scored(
    models: ModuleType, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peers import run

    from edgecxr.evaluate.scores import predict
    from edgecxr.train.checkpoint import open_checkpoint

    monkeypatch.setattr(run, "apart", lambda do, *arguments: (do(*arguments), ""))
    peer = run.student(finished.student, tmp_path, 1)
    assert peer.id == f"{finished.student.name}, plain export/onnxruntime/fp32"
    assert (peer.model.role, peer.model.weights, peer.model.labels) == ("peer", "trained", finished.prepared.labels)
    rows = finished.prepared.rows("test")
    ours = predict(models.open_onnx(**peer.arguments), finished.prepared, rows, 28, batch=5)
    theirs = predict(open_checkpoint(finished.student), finished.prepared, rows, 28)
    np.testing.assert_allclose(ours.findings, theirs.findings, atol=1e-4)


@pytest.mark.long
def test_peers_and_own_models_stand_in_one_record(
    models: ModuleType, folder: Path, clinic: Any, tmp_path: Path
) -> None:
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "torchxrayvision.py").write_text("raise ModuleNotFoundError('No module named torchxrayvision')\n")
    out, root = tmp_path / "record.json", clinic.path.parents[1]
    command = [sys.executable, BENCHMARKS / "peers" / "run.py", tiny_bundle(tmp_path / "tiny").path, "--data", "clinic"]
    command += ["--peer", models.XRV, "--peer", SMALL, "--folder", folder, "--out", out, "--backend", "onnxruntime"]
    command += ["--threads", "1", "--passes", "1", "--max-batch", "2", "--replicates", "100"]
    environment = os.environ | {"EDGECXR_RUNS": str(root), "PYTHONPATH": str(absent)}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    rows = {row["model"]: row for row in record["rows"]}
    assert [(name, row["status"]) for name, row in rows.items()] == [
        ("tiny-test", "ok"), (models.XRV, "failed"), (SMALL, "ok"),
    ]  # fmt: skip
    assert "install the dependency group peers" in rows[models.XRV]["reason"]
    assert (record["models"][SMALL]["role"], record["models"][SMALL]["weights"]) == ("peer", "random")
    assert rows[SMALL]["no_auroc"] == "its weights are random"
    assert f"{SMALL} (random weights)" in done.stdout and f"failed: {models.XRV}/onnxruntime/fp32" in done.stdout
