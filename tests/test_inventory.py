"""What `edgecxr list` shows of a workspace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from edgecxr import resolve
from tests.cli_workspace import STUDENT, TEACHER, copied, edgecxr, trained

SHIPPED = resolve.SHIPPED


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory)


def listed(runs: Path) -> dict[tuple[str, str], dict]:
    typed = edgecxr("list", "--json", runs=runs)
    assert typed.code == 0, typed
    return {(row["kind"], row["name"]): row for row in json.loads(typed.out)}


def test_each_artefact_is_listed_with_its_facts(runs: Path) -> None:
    rows = listed(runs)
    assert set(rows) == {("data", "phantom"), ("teacher", TEACHER), ("student", STUDENT), ("bundle", STUDENT)}
    student, teacher = rows["student", STUDENT], rows["teacher", TEACHER]
    assert (student["data"], student["px"], student["tokens"], student["split"]) == ("phantom", 28, 49, "test")
    assert (student["exported"], teacher["exported"], teacher["split"]) == (True, False, "val")
    record = json.loads((runs / STUDENT / "card.json").read_text())["metrics"]["phantom/test"]
    assert student["abnormal"] == record["abnormal"]["auroc"]
    table = edgecxr("list", runs=runs).out.splitlines()
    assert max(map(len, table)) <= 100
    assert sum(STUDENT in line for line in table) == 2 and sum(TEACHER in line for line in table) == 1


def test_damaged_and_unfinished_artefacts_are_listed_too(runs: Path, tmp_path: Path) -> None:
    mine = copied(runs, tmp_path / "runs")
    shutil.copytree(mine / TEACHER, mine / "begun")
    (mine / "begun" / "card.json").unlink()
    (mine / TEACHER / "card.json").write_text("{}")
    (mine / "data" / "phantom" / "dataset.json").write_text("[")
    (mine / STUDENT / "history.csv").write_text("epoch\nx\n")
    (mine / "odd").mkdir()
    (mine / "odd" / "config.json").write_text("[]")
    rows = listed(mine)
    assert rows["teacher", "begun"]["epochs"] == [1, 1]
    assert {name for (_, name), row in rows.items() if "problem" in row} == {TEACHER, "phantom", "odd"}
    assert edgecxr("list", runs=mine).code == 0


def test_an_empty_workspace_says_how_to_begin(tmp_path: Path) -> None:
    typed = edgecxr("list", runs=tmp_path / "none")
    assert typed.code == 0 and "edgecxr prepare" in typed.out and not (tmp_path / "none").exists()
    assert listed(tmp_path / "none") == {}


@pytest.mark.parametrize("own", [True, False])
def test_the_bundle_that_comes_with_edgecxr_is_listed_apart(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    monkeypatch.setattr(resolve, "SHIPPED", SHIPPED)
    place = runs if own else tmp_path / "none"
    (row,) = [row for row in json.loads(edgecxr("list", "--json", runs=place).out) if "shipped" in row]
    assert (row["kind"], row["name"], row["data"], row["px"]) == ("bundle", "research-28", "research", 28)
    assert row["split"] == "test" and 0.5 < row["abnormal"] < 1
    table = edgecxr("list", runs=place).out
    *_, after = table.partition("comes with edgecxr")
    assert table.count("research-28") == after.count("research-28") == 1
