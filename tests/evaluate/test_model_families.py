from __future__ import annotations

import dataclasses
import os
import shutil

import numpy as np
import pytest

from edgecxr.bundle.card import read_card
from edgecxr.errors import InputError, ModelError
from edgecxr.evaluate import model_families
from edgecxr.evaluate.evaluation import evaluate_model
from edgecxr.workspace import Workspace
from tests.conftest import LABELS, striped, write_prepared


@pytest.fixture
def workspace(finished, tmp_path) -> Workspace:
    return Workspace(shutil.copytree(finished.workspace.root, tmp_path / "runs"))


def add(workspace: Workspace, like: str, name: str, age: int, **changes) -> None:
    """Add a run whose card is that of another, but for `changes`; a higher `age` is more recent."""
    folder = workspace.root / name
    shutil.copytree(workspace.root / like, folder)
    card = dataclasses.replace(read_card(folder), name=name, **changes)
    (folder / "card.json").write_text(card.to_json())
    os.utime(folder / "card.json", (4e9 + age, 4e9 + age))


def test_a_figure_takes_the_latest_student_its_teacher_and_an_undistilled_one(workspace, finished, capsys):
    student, teacher = finished.student.name, finished.teacher.name
    assert model_families.figure_three(workspace, None) == [teacher, student]
    command = capsys.readouterr().err.splitlines()[-1].split("`")[1]
    assert command.startswith("edgecxr distill --res 28 ")
    assert {"--method none", "--depth 2", "--tokens 49"} <= {f"--{option.strip()}" for option in command.split("--")}
    assert command.endswith(f" --teacher {teacher}")
    add(workspace, student, "plain-56", 3, method="none", size=56)
    add(workspace, student, "plain-of-16-tokens", 4, method="none", tokens=16)
    add(workspace, student, "plain-28", 1, method="none")
    assert model_families.figure_three(workspace, None) == [teacher, "plain-28", student]
    add(workspace, student, "later", 5)
    # The latest that has an undistilled student like it comes before the latest without.
    add(workspace, student, "latest-112", 9, size=112)
    # A later teacher is not the one that the student learnt from.
    add(workspace, teacher, "teacher-new", 6, sha256="0" * 64)
    assert model_families.figure_three(workspace, "clinic") == [teacher, "plain-28", "later"]
    assert model_families.every_resolution(workspace, "clinic") == [teacher, "latest-112", "later"]


def test_a_figure_draws_what_there_is(workspace, finished):
    student, teacher = finished.student.name, finished.teacher.name
    add(workspace, student, "plain", 1, method="none")
    shutil.rmtree(workspace.root / teacher)
    assert model_families.figure_three(workspace, None) == ["plain", student]
    shutil.rmtree(workspace.root / student)
    assert model_families.figure_three(workspace, None) == ["plain"]
    shutil.rmtree(workspace.root / "plain")
    with pytest.raises(ModelError, match="edgecxr train"):
        model_families.figure_three(workspace, None)


def test_every_resolution_has_its_latest_distilled_student(workspace, finished):
    student, teacher = finished.student.name, finished.teacher.name
    add(workspace, student, "old-112", 1, size=112)
    add(workspace, student, "new-112", 2, size=112, method="vanilla")
    add(workspace, student, "plain", 3, method="none", size=56)
    add(workspace, student, "of-another-teacher", 4, size=56, training={"teacher_sha256": "0" * 64})
    add(workspace, student, student + "-2", 5)
    assert model_families.every_resolution(workspace, None) == [teacher, "new-112", student + "-2"]
    for run in (student, student + "-2", "old-112", "new-112", "of-another-teacher"):
        shutil.rmtree(workspace.root / run)
    with pytest.raises(ModelError, match="edgecxr distill --res 28"):
        model_families.every_resolution(workspace, None)


def test_models_of_other_films_are_compared_only_on_data_that_is_named(workspace, finished):
    names = [finished.teacher.name, finished.student.name]
    shown = model_families.answers(workspace, names, None, "test")
    assert [model.card.name for model in shown] == names
    assert all(len(model.outputs.findings) == 12 for model in shown)
    # Another division of films: what is test there may have been learnt from here.
    images, targets, abnormal, splits = striped(48, seed=6)
    targets = np.column_stack([targets, targets[:, :1]])
    other = write_prepared(workspace.data_dir("other"), images, targets, abnormal, splits, (*LABELS, "Edema"))
    data = read_card(finished.student).data | {"name": "other", "hash": other.hash}
    add(workspace, finished.student.name, "stranger", 1, data=data)
    names.append("stranger")
    message = r"stranger was trained on other data \(other\) than .* \(clinic\): name the data set .* with --data"
    with pytest.raises(InputError, match=message):
        model_families.answers(workspace, names, None, "test")
    with pytest.raises(InputError, match=message):
        evaluate_model(workspace, finished.student.name, None, "test", 10, against="stranger")
    assert len(model_families.answers(workspace, names, "other", "test")) == 3
    assert "stranger" not in model_families.every_resolution(workspace, "clinic")
