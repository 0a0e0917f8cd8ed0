from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgecxr.benchmark.candidates import find
from edgecxr.bundle.bundle import Bundle
from edgecxr.engines.backend import open_backend
from edgecxr.errors import ModelError, UsageError
from edgecxr.registry import BACKENDS, OF_CHECKPOINTS
from edgecxr.workspace import Workspace
from tests.benchmark.benchmarked import STUDENT, TEACHER, workspace
from tests.conftest import TrainedWorkspace
from tests.tiny_bundle import tiny_bundle


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return workspace(tmp_path / "runs")


def test_every_bundle_meets_every_engine_of_model_files(place: Workspace) -> None:
    candidates, unusable = find(place, [], [], [], threads=2)
    assert not unusable
    assert {each.backend for each in candidates} == set(BACKENDS) - set(OF_CHECKPOINTS)
    assert {each.model.name for each in candidates} == {TEACHER, STUDENT}
    groups = [each.group for each in candidates]
    assert groups == sorted(groups, key=groups.index), "those of one engine and precision lie side by side"
    assert [each.arguments.get("threads") for each in candidates if each.backend == "onnxruntime"] == [2, 2]
    assert {each.backend for each in candidates if "threads" not in each.arguments} == {"tensorrt"}


def test_a_student_knows_its_teacher_and_an_untrained_model_is_random(place: Workspace, tmp_path: Path) -> None:
    untrained = tiny_bundle(tmp_path / "untrained", name="untrained")
    candidates, _ = find(place, [STUDENT, str(untrained.path)], ["onnxruntime"], [], threads=1)
    models = {each.model.name: each.model for each in candidates}
    assert models[STUDENT].teacher_sha256 == "a" * 64 and models[STUDENT].weights == "trained"
    assert models["untrained"].weights == "random"


def test_two_models_of_one_name_stay_apart(place: Workspace, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "other", name=STUDENT, sha256="f" * 64)
    candidates, _ = find(place, [STUDENT, str(other.path), str(other.path)], ["onnxruntime"], [], threads=1)
    assert sorted(each.model.name for each in candidates) == [STUDENT, f"{STUDENT} #2"]


def test_two_bundles_of_one_checkpoint_stay_apart_too(place: Workspace, tmp_path: Path) -> None:
    again = tiny_bundle(tmp_path / "again", 56, name=STUDENT, sha256="b" * 64)
    candidates, _ = find(place, [STUDENT, str(again.path)], ["onnxruntime"], [], threads=1)
    assert sorted(each.model.name for each in candidates) == [STUDENT, f"{STUDENT} #2"]


def test_a_name_stands_for_the_run_and_for_its_bundle(
    finished: TrainedWorkspace, bundled: Bundle, tmp_path: Path
) -> None:
    name = finished.student.name
    shutil.copytree(finished.student, tmp_path / "runs" / name)
    alone, _ = find(Workspace(tmp_path / "runs"), [name], [], [], threads=1)
    assert [each.backend for each in alone] == ["torch", "torch-cuda"]
    assert [each.gpu for each in alone] == [False, True]
    shutil.copytree(bundled.path, tmp_path / "runs" / "export" / name)
    both, _ = find(Workspace(tmp_path / "runs"), [name], [], [], threads=1)
    assert {each.backend for each in both} == set(BACKENDS) and {each.model.name for each in both} == {name}


def test_what_a_killed_export_left_is_no_bundle(place: Workspace) -> None:
    left = place.root / "export" / f".{STUDENT}.tmp"
    shutil.copytree(place.export_dir(STUDENT), left)
    candidates, _ = find(place, [], ["onnxruntime"], [], threads=1)
    assert all(left not in (each.file or left).parents for each in candidates) and len(candidates) == 2


def test_a_damaged_bundle_is_left_out_unless_it_is_named(place: Workspace) -> None:
    (place.export_dir(STUDENT) / "model.onnx").write_bytes(b"damaged")
    candidates, unusable = find(place, [], [], [], threads=1)
    assert {each.model.name for each in candidates} == {TEACHER}
    assert list(unusable) == [STUDENT] and "has changed" in unusable[STUDENT]
    with pytest.raises(ModelError, match="has changed"):
        find(place, [STUDENT], [], [], threads=1)


def test_what_cannot_be_measured(place: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'openvino'"):
        find(place, [], ["openvin"], [], threads=1)
    with pytest.raises(UsageError, match="int4"):
        find(place, [], [], ["int4"], threads=1)
    with pytest.raises(ModelError, match=r"run with int8: there are .* fp32"):
        find(place, [], [], ["int8"], threads=1)
    with pytest.raises(ModelError, match="edgecxr export"):
        find(Workspace(tmp_path / "empty"), [], [], [], threads=1)
    for name in (STUDENT, TEACHER):
        (place.export_dir(name) / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="has changed since"):
        find(place, [], [], [], threads=1)
    with pytest.raises(ModelError, match="gone"):
        find(place, ["gone"], [], [], threads=1)


def test_a_process_of_its_own_takes_no_other_model_than_was_checked(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    other = tiny_bundle(tmp_path / "other", name="other").path
    candidates, _ = find(Workspace(tmp_path), [str(bundle.path)], ["onnxruntime"], [], threads=1)
    assert candidates[0].arguments["sha256"] == bundle.sums["model.onnx"]
    open_backend(**candidates[0].arguments).close()
    (bundle.path / "model.onnx").write_bytes((other / "model.onnx").read_bytes() + b"\x12\x00")
    with pytest.raises(ModelError, match="has changed since"):
        open_backend(**candidates[0].arguments)
