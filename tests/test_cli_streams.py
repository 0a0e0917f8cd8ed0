"""Standard output and error that are full, closed or no longer read; empty arguments; paths that cannot be read."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

import edgecxr as package
from edgecxr.cli import COMMANDS, app_of
from edgecxr.errors import UsageError
from tests.cli_workspace import edgecxr
from tests.test_cli import scan
from tests.tiny_bundle import tiny_bundle

GROUP = typer.main.get_command(app_of())
assert isinstance(GROUP, TyperGroup)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "model").path


def typed(line: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Type a line in a shell, in which `edgecxr` is this one."""
    function = f'edgecxr() {{ {shlex.quote(sys.executable)} -m edgecxr "$@"; }}; '
    environment = os.environ | {"EDGECXR_RUNS": str(folder / "runs"), "PYTHONUNBUFFERED": "", **variables}
    command = ["bash", "-c", function + line]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
def test_a_result_that_cannot_be_written_is_one_line_and_no_success(tmp_path: Path, model: Path, where: str) -> None:
    scan(tmp_path)
    commands = ("infer film.dcm --json --model model", "infer film.dcm --model model", "bundle show model", "infer -h")
    for number, command in enumerate(commands):
        ended = typed(f"edgecxr {command} {where}", tmp_path, PYTHONUNBUFFERED="1" if number % 2 else "")
        (line,) = ended.stderr.splitlines()
        assert (ended.returncode, ended.stdout) == (2, "") and line.startswith("error: ")
        assert "standard output" in line and "unexpected" not in line


def test_a_reader_that_has_ended_ends_any_command_quietly(tmp_path: Path, model: Path) -> None:
    for command in ("bundle show model", "infer -h"):
        ended = typed(f"edgecxr {command} | true; exit ${{PIPESTATUS[0]}}", tmp_path)
        # A short result fits into the pipe if it comes first.
        assert ended.returncode in (0, 141) and ended.stderr == ""


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
def test_messages_that_cannot_be_written_cost_no_work_and_do_not_go_among_the_results(
    tmp_path: Path, model: Path, where: str
) -> None:
    scan(tmp_path)
    ended = typed(f"edgecxr infer film.dcm gone.dcm --json --overlay pictures --model model {where}", tmp_path)
    assert ended.returncode == 3 and ended.stderr == ""
    assert [json.loads(line)["status"] for line in ended.stdout.splitlines()] == ["ok", "rejected"]
    assert (tmp_path / "pictures" / "film.dcm.png").exists()
    assert typed(f"edgecxr bundle show gone {where}", tmp_path).returncode == 4


def test_results_in_a_file_need_no_standard_output(tmp_path: Path, model: Path) -> None:
    scan(tmp_path)
    ended = typed("edgecxr infer film.dcm --json --resume results.jsonl --model model >&- <&-", tmp_path)
    assert ended.returncode == 0
    assert json.loads((tmp_path / "results.jsonl").read_text())["status"] == "ok"


def lines_with_a_value() -> list[list[str]]:
    """Return a command line for each argument and option of each command that takes a value, which is left out."""
    command_lines = []
    groups = [([], GROUP)]
    for before, group in groups:
        for name, command in group.commands.items():
            if isinstance(command, TyperGroup):
                groups.append(([*before, name], command))
                continue
            for parameter in command.params:
                if parameter.param_type_name == "argument":
                    command_lines.append([*before, name])
                elif not parameter.is_flag:
                    command_lines.append([*before, name, parameter.opts[0]])
    assert {line[0] for line in command_lines} == set(COMMANDS) - {"list"}
    return command_lines


def test_an_empty_argument_of_any_command_is_a_usage_error(tmp_path: Path) -> None:
    for line in lines_with_a_value():
        for args in ([*line, ""], [*line[:-1], f"{line[-1]}="] if line[-1].startswith("--") else [*line, "x", ""]):
            ended = edgecxr(*args, runs=tmp_path / "runs")
            assert (ended.code, ended.out) == (2, ""), args
            assert "is empty" in ended.error and (not line[-1].startswith("--") or line[-1] in ended.error)
    with pytest.raises(UsageError):
        package.load("")


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may read anything")
def test_a_path_that_cannot_be_read_is_one_rejected_row_and_the_others_are_predicted(
    tmp_path: Path, model: Path
) -> None:
    for name in ("good.dcm", "secret.dcm", "locked/film.dcm", "unlisted/film.dcm"):
        scan((tmp_path / name).parent, Path(name).name)
    os.mkfifo(tmp_path / "pipe")
    for name, mode in (("secret.dcm", 0), ("locked", 0), ("unlisted", 0o100)):
        (tmp_path / name).chmod(mode)
    paths = ["secret.dcm", "locked", "locked/film.dcm", "unlisted", "unlisted/film.dcm", "pipe", "/dev/zero"]
    paths.append("good.dcm")
    without = "-dac_override,-dac_read_search"
    drop = f"setpriv --bounding-set={without} --inh-caps={without}" if os.geteuid() == 0 else ""
    command = f"{drop} {shlex.quote(sys.executable)} -m edgecxr infer --json --model model {' '.join(paths)}"
    try:
        ended = typed(command, tmp_path)
    finally:
        for name in ("locked", "unlisted"):
            (tmp_path / name).chmod(0o700)
    rows = {row["source"]: row.get("reason", "ok") for row in map(json.loads, ended.stdout.splitlines())}
    assert (ended.returncode, len(ended.stderr.splitlines()), list(rows)) == (3, 1, paths)
    assert ended.stderr.startswith("8 films: 2 predicted, 6 ")
    expected = ["not-found"] * 4 + ["ok", "not-an-image", "not-an-image", "ok"]
    assert list(rows.values()) == expected
