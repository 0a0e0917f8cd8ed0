import os
from pathlib import Path

import pytest

from edgecxr.errors import InputError, ModelError, UsageError
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.folders import atomic_folder
from edgecxr.workspace import Workspace


def finish(folder: Path, marker: str, time: int) -> Path:
    folder.mkdir(parents=True)
    (folder / marker).write_text("{}")
    os.utime(folder / marker, (time, time))
    return folder


def test_the_default_workspace_is_runs_unless_the_variable_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGECXR_RUNS", raising=False)
    assert Workspace.default().root == Path("runs")
    monkeypatch.setenv("EDGECXR_RUNS", "/elsewhere")
    assert Workspace.default().root == Path("/elsewhere")


def test_latest_dataset_is_the_one_finished_last_and_unfinished_ones_do_not_count(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    finish(workspace.data_dir("a"), "dataset.json", 200)
    finish(workspace.data_dir("b"), "dataset.json", 100)
    workspace.data_dir("c").mkdir()
    finish(tmp_path / "data" / ".d.partial", "dataset.json", 300)
    assert workspace.latest_dataset() == workspace.data_dir("a")
    assert workspace.latest_dataset("b") == workspace.data_dir("b")
    with pytest.raises(InputError, match=r"'c'.*there are: a, b.*edgecxr prepare phantom --n 2000") as caught:
        workspace.latest_dataset("c")
    assert caught.value.reason == "dataset"


def test_a_missing_artefact_names_the_command_that_makes_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "none")
    with pytest.raises(InputError, match="edgecxr prepare phantom --n 2000"):
        workspace.latest_dataset()
    with pytest.raises(ModelError, match="`edgecxr export`"):
        workspace.latest_bundle()
    assert not workspace.root.exists()


def test_new_runs_are_numbered_and_runs_lists_the_last_made_first(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "runs")
    runs = [workspace.new_run("teacher-tiny-224") for _ in range(11)]
    assert [run.name for run in runs[:3]] == ["teacher-tiny-224", "teacher-tiny-224-2", "teacher-tiny-224-3"]
    workspace.new_run("teacher-tiny-224-mlcak")
    assert workspace.runs("teacher-tiny-224") == runs[::-1]


def test_runs_are_finished_or_not_and_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    old = finish(tmp_path / "mine", "card.json", 100)
    new = finish(tmp_path / "teacher-small-224", "card.json", 200)
    begun = finish(tmp_path / "begun", "config.json", 300)
    (tmp_path / "teacher-base-224").mkdir()
    assert workspace.finished_runs() == [new, old]
    assert workspace.unfinished_runs() == [begun]
    for name in ("mine", "data", "export", "../mine", ".mine", ""):
        with pytest.raises(UsageError):
            workspace.check_free(name)
    workspace.check_free("begun")
    with pytest.raises(UsageError, match="--name"):
        workspace.new_run("begun", numbered=False)
    assert workspace.new_run("next", numbered=False) == tmp_path / "next"


def test_latest_bundle(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    finish(workspace.export_dir("b"), "card.json", 100)
    finish(workspace.export_dir("a"), "card.json", 200)
    assert workspace.latest_bundle() == workspace.export_dir("a")


@pytest.mark.parametrize("name", ["../x", "/x", "", "a/b", ".hidden"])
def test_a_name_cannot_lead_out_of_the_workspace(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        Workspace(tmp_path).data_dir(name)


def test_a_workspace_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    workspace = Workspace(tmp_path / "runs")
    for write in (
        lambda: workspace.new_run("teacher"),
        lambda: atomic_write(workspace.root / "a" / "b", "x"),
        lambda: atomic_folder(workspace.root / "a").__enter__(),
    ):
        with pytest.raises(UsageError, match="cannot be written") as caught:
            write()
        assert "\n" not in str(caught.value)
