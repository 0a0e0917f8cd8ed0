"""The command line as a user types it, in this process, and one workspace in which every command has run once."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import typer
from PIL import Image

from edgecxr import cli
from tests.made_once import made_once

FILMS = 40
STEPS = {
    "prepare": ("prepare", "phantom", "--n", str(FILMS), "--workers", "1"),
    "train": ("train", "--init", "random", "--patch", "56", "--depth", "2", "--epochs", "1", "--batch", "16"),
    "distill": ("distill", "--res", "28", "--epochs", "1", "--batch", "16"),
    "evaluate": ("evaluate",),
    "export": ("export",),
}
TEACHER, STUDENT = "teacher-tiny-224-phantom", "student-tiny-28-mlcak-phantom"


@dataclass(frozen=True)
class CommandResult:
    """What a command left on the screen."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that a failed command ends with; there must be nothing of a traceback."""
        lines = [line for line in self.err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1 and "Traceback" not in self.err and "unexpected" not in lines[0], self
        return lines[0]


_make = typer.main.get_command


@functools.cache
def whole() -> object:
    """Return all commands, which Typer takes a fifth of a second to make of their functions."""
    return _make(cli.app_of())


def edgecxr(*args: str | Path, runs: Path, **variables: str) -> CommandResult:
    """Type `edgecxr args...` with EDGECXR_RUNS and other variables set."""
    out, err = io.StringIO(), io.StringIO()
    environment = {
        "EDGECXR_MODEL": "",
        "EDGECXR_RUNS": str(runs),
        "EDGECXR_STATE": str(runs.parent / "state"),
        **variables,
    }
    code: object = 0
    with (
        mock.patch("sys.argv", ["edgecxr", *map(str, args)]),
        mock.patch("typer.main.get_command", lambda _: whole()),
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
    assert isinstance(code, int)
    return CommandResult(code, out.getvalue(), err.getvalue())


def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the workspace that `STEPS` made; not to be changed."""

    def make(place: Path) -> None:
        steps = {name: edgecxr(*args, runs=place / "runs") for name, args in STEPS.items()}
        (place / "steps.json").write_text(json.dumps({name: asdict(step) for name, step in steps.items()}))

    return made_once(tmp_path_factory, "trained", make) / "runs"


def steps(runs: Path) -> dict[str, CommandResult]:
    """Return what the commands that made the workspace printed."""
    recorded = json.loads((runs.parent / "steps.json").read_text())
    return {name: CommandResult(**step) for name, step in recorded.items()}


def copied(runs: Path, to: Path) -> Path:
    """Return a copy of a workspace that may be changed, without the films; times stay, so "latest" does."""
    return shutil.copytree(runs, to, ignore=shutil.ignore_patterns("last.pt", "*.dicom"))


def image_folder(folder: Path, count: int = 24) -> Path:
    """Write grey PNGs and labels.csv (image, Dark), which `prepare folder` takes; pixels tell the label."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    lines = ["image,Dark"]
    for index in range(count):
        pixels = random.integers(0, 100, (32, 32)) + (0 if index % 2 else 150)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{index % 2}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder
