"""Who can read what a command has written about patients."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from edgecxr.cli import app_of
from edgecxr.storage.permissions import PRIVATE
from tests.cli_workspace import edgecxr, image_folder
from tests.films.dicom_files import film, write
from tests.tiny_bundle import tiny_bundle


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    assert os.umask(before) == 0o022, "a command leaves it as it was"


def modes(folder: Path) -> tuple[set[int], set[int]]:
    """Return the permissions of all folders, and of all files."""
    entries = [folder, *folder.rglob("*")]
    of = {entry: stat.S_IMODE(entry.stat().st_mode) for entry in entries}
    return {of[entry] for entry in entries if entry.is_dir()}, {of[entry] for entry in entries if entry.is_file()}


@pytest.mark.parametrize(
    ("options", "folders", "files"),
    [((), 0o700, 0o600), (("--umask", "027"), 0o750, 0o640), (("--umask", "022"), 0o755, 0o644)],
)
def test_results_are_their_user_s_alone_unless_asked_otherwise(
    tmp_path: Path, options: tuple[str, ...], folders: int, files: int
) -> None:
    tiny_bundle(tmp_path / "bundle")
    scan = write(film(np.arange(4096, dtype=np.uint16).reshape(64, 64), BitsStored=12), tmp_path)
    out = tmp_path / "out"
    words = (
        "--json",
        "--resume",
        out / "lines" / "results.jsonl",
        "--overlay",
        out / "pictures",
        "--dicom",
        out / "dicom",
    )
    typed = edgecxr(
        "infer", scan, "--force", "--any-view", "--model", tmp_path / "bundle", *words, *options, runs=tmp_path / "runs"
    )
    assert typed.code in (0, 3), typed
    assert (out / "lines" / "results.jsonl").stat().st_size and list((out / "pictures").iterdir())
    assert modes(out) == ({folders}, {files})


def test_a_prepared_data_set_and_its_pack_are_their_user_s_alone(tmp_path: Path) -> None:
    image_folder(tmp_path / "films", 12)
    runs = tmp_path / "runs"
    assert edgecxr("prepare", "folder", tmp_path / "films", "--workers", "1", runs=runs).code == 0
    assert edgecxr("data", "pack", "--out", runs / "pack.npz", runs=runs).code == 0
    assert edgecxr("data", "show", runs=runs).code == 0
    assert list(runs.glob("montage-*.png"))
    assert modes(runs) == ({0o700}, {0o600})


NO_PATIENTS = {
    *("demo", "train", "distill", "export", "evaluate", "build", "serve", "send", "list"),
    *("doctor", "benchmark", "report"),
    *("data check", "bundle show", "bundle verify", "bundle keygen", "bundle sign"),
    *("node status", "node retry", "node echo", "node ca", "node audit"),
    *("node user add", "node user remove", "node user list"),
}  # fmt: skip
"""Commands that need no --umask.

They write nothing of a patient: models, numbers, phantoms. Or, as `evaluate`, `serve` and `node`, files that are always
their user's alone.
"""


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name, command


def test_each_command_that_writes_of_patients_says_who_may_read_it() -> None:
    by_name = dict(commands(typer.main.get_command(app_of())))
    private = {name for name, command in by_name.items() if any(each.name == "umask" for each in command.params)}
    assert private | NO_PATIENTS == set(by_name) and not private & NO_PATIENTS
    assert all(each.default == PRIVATE for name in private for each in by_name[name].params if each.name == "umask")


@pytest.mark.parametrize("octal", ["777", "9", "private", ""])
def test_a_umask_that_is_none_is_a_mistake_of_usage(tmp_path: Path, octal: str) -> None:
    typed = edgecxr("infer", tmp_path, "--umask", octal, runs=tmp_path / "runs")
    assert typed.code == 2 and "--umask" in typed.error
