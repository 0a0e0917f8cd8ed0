"""The walkthrough is a recording; what it shows is of this version."""

from __future__ import annotations

import json
import re
from pathlib import Path

from edgecxr import __version__
from edgecxr.doctor.examine import examine
from edgecxr.infer.json_line import SCHEMA

PAGE = (Path(__file__).parents[1] / "docs" / "walkthrough.md").read_text()


def test_the_version_and_the_json_lines_are_those_of_now() -> None:
    assert f"$ edgecxr --version\nedgecxr {__version__}\n" in PAGE
    lines = [json.loads(line) for line in PAGE.splitlines() if line.startswith('{"')]
    assert lines and {line["schema"] for line in lines} == {SCHEMA}


def test_doctor_shows_the_sections_and_rows_of_now() -> None:
    shown = PAGE[PAGE.index("$ edgecxr doctor") : PAGE.index("## A data set")]
    for section in dict.fromkeys(row.section for row in examine()):
        assert re.search(rf"^{section}$", shown, re.M), section


def test_the_runs_that_it_uses_are_those_that_its_commands_made() -> None:
    runs = set(re.findall(r"^runs/((?:teacher|student)-[\w.-]+)$", PAGE, re.M))
    used = set(re.findall(r"\b((?:teacher|student)-tiny-\d+(?:-\w+)?-phantom)\b", PAGE))
    assert runs == used and len(runs) == 3
