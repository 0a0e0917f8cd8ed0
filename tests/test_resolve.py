"""Which artefact a command takes; the artefacts are cards and folders only."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from edgecxr import resolve
from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.describe import checked_files
from edgecxr.data.prepared import Prepared
from edgecxr.errors import InputError, ModelError
from edgecxr.workspace import Workspace
from tests.cli_workspace import edgecxr, image_folder
from tests.tiny_bundle import tiny_bundle, tiny_card

SHIPPED = resolve.shipped()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "runs")


def finished(workspace: Workspace, name: str, time: int, **changes: Any) -> Path:
    folder = workspace.root / name
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(tiny_card(name=name, artefacts={}, **changes).to_json())
    os.utime(folder / "card.json", (time, time))
    return folder


@pytest.fixture
def prepared(workspace: Workspace, tmp_path: Path) -> Prepared:
    source = image_folder(tmp_path / "shades")
    assert edgecxr("prepare", "folder", source, "--workers", "1", runs=workspace.root).code == 0
    return Prepared.open(workspace.data_dir("shades"))


def test_a_run_is_found_by_name_by_path_and_else_the_latest_of_its_kind(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = finished(workspace, "a", 100)
    new = finished(workspace, "student-b", 200)
    teacher = finished(workspace, "c", 300, method="teacher")
    elsewhere = finished(Workspace(tmp_path / "other"), "run", 50)
    assert resolve.run(workspace, "a") == old
    assert resolve.run(workspace, str(elsewhere)) == elsewhere
    assert capsys.readouterr().err == ""
    assert resolve.run(workspace, None, "student") == new
    assert "student-b" in capsys.readouterr().err
    assert resolve.run(workspace, None) == teacher
    assert resolve.run(workspace, None, "student", lambda card: card.name == "a") == old


def test_without_a_run_the_message_has_the_command_that_makes_one(workspace: Workspace) -> None:
    for kind, command in (("teacher", "`edgecxr train`"), ("student", "`edgecxr distill`"), ("", "`edgecxr train`")):
        with pytest.raises(ModelError, match=command):
            resolve.run(workspace, None, kind)


def test_a_teacher_that_is_named_brings_its_data_along(
    workspace: Workspace, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(workspace, "mine", 100, method="teacher", labels=prepared.labels, data=prepared.summary())
    later = image_folder(tmp_path / "later")
    assert edgecxr("prepare", "folder", later, "--workers", "1", runs=workspace.root).code == 0
    assert resolve.training_data(workspace, None, None).name == "later"
    assert "later" in capsys.readouterr().err
    assert resolve.training_data(workspace, None, "mine").name == "shades"
    assert "shades" in capsys.readouterr().err
    assert resolve.training_data(workspace, "later", "mine").name == "later"


def test_a_run_that_is_not_finished_is_none(workspace: Workspace) -> None:
    with pytest.raises(ModelError, match=r"student-a is no finished run.*`edgecxr train`"):
        resolve.run(workspace, "student-a")
    (workspace.root / "student-a").mkdir(parents=True)
    finished(workspace, "student-b", 100)
    with pytest.raises(ModelError, match=r"student-a is no finished run.*there are student-b$"):
        resolve.run(workspace, "student-a")


def test_the_teacher_is_the_latest_with_the_same_data_and_labels(workspace: Workspace, prepared: Prepared) -> None:
    data = prepared.summary()
    right = finished(workspace, "teacher-right", 100, method="teacher", labels=prepared.labels, data=data)
    finished(workspace, "teacher-data", 200, method="teacher", labels=prepared.labels, data=data | {"hash": "other"})
    finished(workspace, "teacher-labels", 300, method="teacher", labels=("Other",), data=data)
    finished(workspace, "teacher-method", 400, method="none", labels=prepared.labels, data=data)
    assert resolve.teacher(workspace, None, prepared) == right
    assert resolve.teacher(workspace, "teacher-labels", prepared).name == "teacher-labels"
    (right / "card.json").unlink()
    with pytest.raises(ModelError, match=r"`edgecxr train --data shades`"):
        resolve.teacher(workspace, None, prepared)
    with pytest.raises(ModelError, match="teacher-right is no finished run"):
        resolve.teacher(workspace, "teacher-right", prepared)


def test_the_data_of_a_model_is_its_own_unless_another_is_named(workspace: Workspace, prepared: Prepared) -> None:
    own = tiny_card(data=prepared.summary())
    assert resolve.dataset_of(workspace, own, None).path == prepared.path
    changed = tiny_card(data=prepared.summary() | {"hash": "other"})
    with pytest.raises(InputError, match=r"not the one that tiny-test was trained on.*--data"):
        resolve.dataset_of(workspace, changed, None)
    assert resolve.dataset_of(workspace, changed, "shades").path == prepared.path
    with pytest.raises(InputError, match=r"tiny-test does not say .*data"):
        resolve.dataset_of(workspace, tiny_card(), None)


def test_a_bundle_of_the_workspace_gives_way_to_a_path_that_exists(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGECXR_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    inside = tiny_bundle(workspace.export_dir("model")).path
    assert resolve.bundle(workspace, "model") == resolve.bundle(workspace, None) == inside
    with pytest.raises(ModelError, match=r"\.\./gone does not exist.* \(there are model\)"):
        resolve.bundle(workspace, "../gone")
    tiny_bundle(tmp_path / "model")
    assert resolve.bundle(workspace, "model") == Path("model")


def test_a_run_comes_before_a_bundle_of_its_name(workspace: Workspace) -> None:
    bundle = tiny_bundle(workspace.export_dir("student-a")).path
    assert resolve.run_or_bundle(workspace, "student-a") == bundle
    run = finished(workspace, "student-a", 100)
    assert resolve.run_or_bundle(workspace, "student-a") == resolve.run_or_bundle(workspace, None) == run
    assert resolve.run_or_bundle(workspace, str(bundle)) == bundle
    with pytest.raises(ModelError, match=r"neither a finished run .*there are student-a$"):
        resolve.run_or_bundle(workspace, "student-z")


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "a\0b"])
def test_names_that_no_file_system_takes_are_missing_models(workspace: Workspace, name: str) -> None:
    for find in (resolve.run, resolve.run_or_bundle):
        with pytest.raises(ModelError, match=r"no finished run|neither a finished run"):
            find(workspace, name)
    with pytest.raises(ModelError, match=r"does not exist, nor .*bundle"):
        resolve.bundle(workspace, name)


def test_a_device_without_a_workspace_is_told_of_the_bundle_that_lies_here(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGECXR_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"EDGECXR_MODEL, .*`edgecxr export`$"):
        resolve.bundle(workspace, None)
    tiny_bundle(tmp_path / "copied")
    (tmp_path / "other").mkdir()
    with pytest.raises(ModelError, match=r"EDGECXR_MODEL \(there are copied\), or make"):
        resolve.bundle(workspace, None)


def test_a_data_set_that_is_not_prepared_names_its_own_adapter(workspace: Workspace, prepared: Prepared) -> None:
    with pytest.raises(InputError, match=r"name one of those, .*`edgecxr prepare vindr PATH`"):
        resolve.dataset(workspace, "vindr")


def test_the_data_set_is_the_one_named_or_the_latest(workspace: Workspace, prepared: Prepared) -> None:
    assert resolve.dataset(workspace, None).path == resolve.dataset(workspace, "shades").path == prepared.path
    with pytest.raises(InputError, match=r"'shade'.*there are: shades"):
        resolve.dataset(workspace, "shade")


def test_who_names_no_bundle_is_told_which_one_is_taken_and_why(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EDGECXR_MODEL", raising=False)
    first = tiny_bundle(workspace.export_dir("first")).path
    assert resolve.chosen_bundle(workspace, None, own=True) == first
    assert "first, the only bundle" in capsys.readouterr().err
    second = tiny_bundle(workspace.export_dir("second")).path
    os.utime(first / "card.json", ns=(1, 1))
    assert resolve.chosen_bundle(workspace, None) == second
    message = capsys.readouterr().err
    assert "second, the latest of 2" in message and str(second.parent) in message
    assert resolve.chosen_bundle(workspace, "first") == first and capsys.readouterr().err == ""
    monkeypatch.setenv("EDGECXR_MODEL", "first")
    assert resolve.chosen_bundle(workspace, None) == first
    assert re.search("first, .*EDGECXR_MODEL", capsys.readouterr().err)
    assert resolve.chosen_bundle(workspace, "second") == second and capsys.readouterr().err == ""


def test_a_bundle_that_comes_with_edgecxr_is_for_who_has_none(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resolve, "SHIPPED", tmp_path / "shipped")
    monkeypatch.delenv("EDGECXR_MODEL", raising=False)
    with pytest.raises(ModelError):
        resolve.bundle(workspace, None)
    shipped = tiny_bundle(tmp_path / "shipped" / "first-try").path
    assert resolve.bundle(workspace, None) == resolve.bundle(workspace, "first-try") == shipped
    assert "first-try" in capsys.readouterr().err
    assert resolve.bundle(workspace, "first-try", own=True) == shipped, "it is named"
    for name in (None, "nothing"):
        with pytest.raises(ModelError, match="first-try"):
            resolve.bundle(workspace, name, own=True)
    with pytest.raises(ModelError, match="first-try"):
        resolve.run_or_bundle(workspace, "nothing")
    own = tiny_bundle(workspace.root / "export" / "own").path
    assert resolve.bundle(workspace, None) == own and capsys.readouterr().err.count("first-try") == 0


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_what_comes_with_edgecxr_is_whole_small_and_says_what_it_is(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert {entry["precision"] for entry in bundle.card.artefacts.values()} == {"fp32", "int8"}
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 8 << 20
    assert checked_files(folder)[1] and not bundle.card.data["phantom"]
    assert "films" in (folder.parent / "README.md").read_text()


def test_there_is_a_bundle_that_comes_with_edgecxr() -> None:
    assert [folder.name for folder in SHIPPED] == ["research-28"]


def test_every_command_that_takes_a_bundle_knows_the_one_that_comes_with_edgecxr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = SHIPPED[0].name
    monkeypatch.setattr(resolve, "SHIPPED", SHIPPED[0].parent)
    before = sorted(SHIPPED[0].rglob("*"))
    shown = edgecxr("bundle", "show", name, runs=tmp_path)
    assert shown.code == 0
    # An engine and a signature are files in the bundle; however it is named, those of the installation stay.
    for named in (name, os.path.relpath(SHIPPED[0])):
        for command in (("build", named), ("bundle", "sign", named, "--key", tmp_path / "a.key")):
            refused = edgecxr(*command, runs=tmp_path)
            assert refused.code == 2 and f"cp -r {named}" in refused.err.replace(str(SHIPPED[0]), name), refused
    assert sorted(SHIPPED[0].rglob("*")) == before
    assert edgecxr("benchmark", name, "--backend", "nothing", runs=tmp_path).code == 2
    config = tmp_path / "node.toml"
    config.write_text(f'model = "{name}"\nstate = "{tmp_path / "state"}"\n[web]\nenabled = false\n')
    served = edgecxr("serve", "--check", "--config", config, runs=tmp_path)
    assert served.code == 0 and f"model: {name}" in served.out, served
    for other in ("", 'model = "nothing"\n'):
        config.write_text(f'{other}state = "{tmp_path / "state"}"\n')
        refused = edgecxr("serve", "--check", "--config", config, runs=tmp_path)
        assert refused.code not in (0, 1) and name in refused.err
