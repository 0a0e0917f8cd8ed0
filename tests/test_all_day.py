from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from edgecxr.cli import app_of

UNITS = Path(__file__).parents[1] / "docs" / "systemd"


def test_the_units_are_valid(tmp_path: Path) -> None:
    if not (analyze := shutil.which("systemd-analyze")):
        pytest.skip("systemd is not installed")
    for unit in UNITS.iterdir():  # programs that need not be on this machine
        text = re.sub(r"^(Exec\w+=)\S+", r"\1/bin/true", unit.read_text(), flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run([analyze, "verify", *tmp_path.iterdir()], capture_output=True, text=True)
    if "Failed to" in done.stderr and "bus" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert (done.returncode, done.stderr) == (0, "")


def test_the_node_runs_as_a_user_whom_its_page_makes() -> None:
    lines = (UNITS / "edgecxr-node.service").read_text().splitlines()
    (user,) = [line.partition("=")[2] for line in lines if line.startswith("User=")]
    # The state folder of a dynamic user is a link, and the node trusts no link.
    assert not any(line.startswith("DynamicUser") for line in lines)
    assert re.search(rf"^sudo useradd --system .*\b{user}$", (UNITS.parent / "node.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("place", ["systemd/edgecxr-infer.service", "all-day.md"])
def test_the_command_of_the_page_has_options_that_infer_has(place: str) -> None:
    text = (UNITS.parent / place).read_text().replace("\\\n", " ")
    command = next(line for line in text.splitlines() if "edgecxr infer " in line and "--watch" in line)
    parameters = typer.main.get_command(app_of()).commands["infer"].params  # type: ignore[attr-defined]
    infer_options = {option for parameter in parameters for option in parameter.opts}
    options = set(re.findall(r" (--?[a-z][a-z-]*)", command))
    assert {"--watch", "--resume"} <= options <= infer_options
