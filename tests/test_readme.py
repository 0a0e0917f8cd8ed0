"""Every command that README and docs show is one that edgecxr takes, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from edgecxr.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in re.findall(r"^```\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL):
            lines = (line.split("#")[0].split(">")[0].strip() for line in block.splitlines())
            found += [(page.name, line) for line in lines if line.startswith("edgecxr ")]
    return found


def test_the_pages_show_commands():
    assert len(commands()) > 20


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_shown_command_is_understood(page, command):
    group = typer.main.get_command(app)
    arguments = shlex.split(command)[1:]
    while isinstance(group, type(typer.main.get_command(app))):
        context = group.make_context("edgecxr", arguments[:1], resilient_parsing=True)
        _, group, _ = group.resolve_command(context, arguments[:1])
        arguments = arguments[1:]
    # Parsing alone: an unknown option, a missing argument or a value of the wrong type raises.
    group.make_context(group.name, arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
