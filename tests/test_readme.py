"""Every command in README works, every one in the docs is one that edgecxr takes, and links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from edgecxr.engines.tensorrt.library import MODULES
from edgecxr.phantom.disease import LABELS
from tests.cli_workspace import copied, edgecxr, image_folder, trained, whole
from tests.test_cli import scan

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# What a test has no time for is made small; an option that is given twice counts as it is given last.
SMALLER = {
    "prepare phantom": "--n 40",
    # The phantom, which is written in this layout, has fewer findings.
    "prepare vindr": f"--labels '{','.join(LABELS)}'",
    "train": "--epochs 1 --batch 16 --patch 56 --depth 2",
    "distill": "--epochs 1 --batch 16",
    "benchmark": "--backend onnxruntime --precision fp32 --passes 1 --max-batch 1 --replicates 100",
}


def commands(page: Path) -> list[str]:
    """Return the commands that begin with "edgecxr" in a page's blocks, without their remarks."""
    command_lines = []
    for kind, block in re.findall(r"^```(console)?\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL):
        mark = "$ " if kind else ""
        lines = (line.removeprefix(mark) for line in block.splitlines() if line.startswith(f"{mark}edgecxr "))
        lines = (line for line in lines if not line.startswith("edgecxr --"))
        command_lines += [re.split(r" #| >| \|", line)[0].strip() for line in lines]
    return command_lines


# The development install brings TensorRT-RTX where that exists; it builds engines without a GPU.
TENSORRT = any(importlib.util.find_spec(name) for name in MODULES)

SHOWN = [(page, command) for page in PAGES for command in commands(page)]


def test_the_pages_show_commands():
    assert len(commands(README)) > 8
    assert len(SHOWN) > 30


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=lambda value: getattr(value, "name", value))
def test_a_shown_command_is_understood(page, command):
    group = every_command = whole()
    arguments = shlex.split(command)[1:]
    while isinstance(group, type(every_command)):
        context = group.make_context("edgecxr", arguments[:1], resilient_parsing=True)
        _, group, _ = group.resolve_command(context, arguments[:1])
        arguments = arguments[1:]
    # Parsing alone: an unknown option, a missing argument or a value of the wrong type raises.
    group.make_context(group.name, arguments)


def test_the_commands_of_readme_work_one_after_the_other(tmp_path, tmp_path_factory, monkeypatch):
    # `make demo` comes first, and leaves a bundle.
    copied(trained(tmp_path_factory), tmp_path / "runs")
    image_folder(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    scan(tmp_path / "here", "scan.dcm")
    scan(tmp_path / "here" / "archive", "1.dcm")
    for command in commands(README):
        small = next((more for verb, more in SMALLER.items() if command.startswith(f"edgecxr {verb}")), "")
        small = command.replace("/data/vindr-cxr", str(tmp_path / "runs" / "phantom")) + " " + small
        if "edgecxr build" in small and not TENSORRT:
            continue
        typed = edgecxr(*shlex.split(small)[1:], runs=tmp_path / "runs")
        assert typed.code == 0, (small, typed.err)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
