"""The rules of the house, see CONTRIBUTING.md; import-linter holds the walls between its wings."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

import edgecxr
from edgecxr.cli import COMMANDS

PACKAGE = Path(edgecxr.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
INSIDE = [path for path in MODULES if path.parent.name != "cli"]

LARGEST_FILE, LARGEST_FOLDER, LONGEST_SUMMARY = 350, 14, 12
TOO_LONG = {"benchmark/measure.py", "infer/film_readers.py", "workers/processes.py"}
"""Files that are still longer; none is to be added."""

HEAVY = ("torch", "torchvision", "timm", "onnx", "onnxscript", "safetensors", "matplotlib", "lightning_fabric")
WORKSTATION = {"models", "distill", "train", "export", "plots"}


def named(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_no_module_name_stands_twice_and_none_is_the_standard_library_s():
    counts = Counter(path.stem for path in INSIDE)
    assert {name for name, count in counts.items() if count > 1} == set()
    assert {path.stem for path in INSIDE} & set(sys.stdlib_module_names) == set()


def test_the_files_of_cli_are_the_commands():
    files = {path.stem for path in MODULES if path.parent.name == "cli"}
    assert files == {*COMMANDS, "app", "options"}


def test_folders_and_files_stay_small():
    folders = Counter(path.parent for path in INSIDE)
    assert {named(folder): count for folder, count in folders.items() if count > LARGEST_FOLDER} == {}
    lengths = {named(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name for name, lines in lengths.items() if lines > LARGEST_FILE} == TOO_LONG


def test_heavy_libraries_are_imported_in_the_workstation_s_wings_only():
    found = {
        named(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        for module in imported(node)
        if module.partition(".")[0] in HEAVY
    }
    assert {name.partition("/")[0] for name in found} == WORKSTATION


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def test_processes_are_forked_and_bound_to_their_parent_in_one_place():
    words = ("os.fork(", "forkserver", "prctl")
    found = {named(path) for path in MODULES if any(word in path.read_text() for word in words)}
    # Three pools until there is one: see workers/.
    assert found <= {"workers/processes.py", "infer/film_readers.py", "train/launch.py"}


@pytest.mark.parametrize("wing", sorted({path.parent for path in INSIDE} - {PACKAGE}), ids=named)
def test_every_wing_says_what_it_is(wing: Path):
    assert ast.get_docstring(ast.parse((wing / "__init__.py").read_text()))


@pytest.mark.parametrize("page", ["film-to-result.md", "data-to-bundle.md"])
def test_the_pages_that_lead_through_the_rooms_name_rooms_that_are_there(page: str):
    named_there = re.findall(r"`([a-z_/0-9]+(?:\.py|/))`", (Path(__file__).parents[1] / "docs" / page).read_text())
    assert len(named_there) > 20
    # Beside a folder, the files that follow are in it.
    folders = [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir())]
    assert [name for name in named_there if not any((folder / name).exists() for folder in folders)] == []
