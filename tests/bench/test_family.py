from __future__ import annotations

import dataclasses
import os
import shutil

import pytest

from edgecxr.bench import family
from edgecxr.errors import InputError, ModelError
from edgecxr.select import card_of
from edgecxr.workspace import Workspace
from tests.conftest import striped, write_prepared


@pytest.fixture
def workspace(finished, tmp_path) -> Workspace:
    return Workspace(shutil.copytree(finished.workspace.root, tmp_path / "runs"))


def add(workspace: Workspace, like: str, name: str, age: int, **changes) -> None:
    """Add a run whose card is that of another, but for `changes`; a higher `age` is more recent."""
    folder = workspace.root / name
    shutil.copytree(workspace.root / like, folder)
    card = dataclasses.replace(card_of(folder), name=name, **changes)
    (folder / "card.json").write_text(card.to_json())
    os.utime(folder / "card.json", (4e9 + age, 4e9 + age))


def test_a_figure_takes_the_latest_student_its_teacher_and_an_undistilled_one(workspace, finished):
    student, teacher = finished.student.name, finished.teacher.name
    with pytest.raises(ModelError, match="edgecxr distill --res 28 --method none"):
        family.figure_three(workspace, None)
    add(workspace, student, "plain-56", 3, method="none", size=56)
    add(workspace, student, "plain-28", 1, method="none")
    assert family.figure_three(workspace, None) == [teacher, "plain-28", student]
    add(workspace, student, "later", 5)
    assert family.figure_three(workspace, "clinic") == [teacher, "plain-28", "later"]
    with pytest.raises(ModelError, match="edgecxr distill --res 28"):
        family.figure_three(workspace, "other")


def test_every_resolution_has_its_latest_distilled_student(workspace, finished):
    student, teacher = finished.student.name, finished.teacher.name
    add(workspace, student, "old-112", 1, size=112)
    add(workspace, student, "new-112", 2, size=112, method="vanilla")
    add(workspace, student, "plain", 3, method="none", size=56)
    assert family.every_resolution(workspace, None) == [teacher, "new-112", student]
    for run in (student, "old-112", "new-112"):
        shutil.rmtree(workspace.root / run)
    with pytest.raises(ModelError, match="no distilled student"):
        family.every_resolution(workspace, None)


def test_models_of_other_labels_are_not_compared(workspace, finished):
    shown = family.answers(workspace, [finished.teacher.name, finished.student.name], None, "test")
    assert [model.card.name for model in shown] == [finished.teacher.name, finished.student.name]
    assert all(len(model.outputs.findings) == 12 for model in shown)
    write_prepared(workspace.data_dir("other"), *striped(24), labels=("A", "B", "C")[:2])
    with pytest.raises(InputError, match="data set other has A, B"):
        family.answers(workspace, [finished.teacher.name], "other", "test")
