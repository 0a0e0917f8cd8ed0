"""Every option of every command with values that nobody should type, in workspaces in every state."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.core import TyperGroup

from edgecxr.cli import app_of
from tests.cli_workspace import STUDENT, copied, edgecxr, image_folder, trained
from tests.test_cli import scan
from tests.tiny_bundle import tiny_bundle

GROUP = typer.main.get_command(app_of())
assert isinstance(GROUP, TyperGroup)


def options() -> list[tuple[tuple[str, ...], str]]:
    """Return every command with every option that takes a value."""
    pairs = []
    groups = [((), GROUP)]
    for path, group in groups:
        for name, command in group.commands.items():
            if isinstance(command, TyperGroup):
                groups.append(((*path, name), command))
                continue
            for option in command.params:
                if option.param_type_name == "option" and not option.is_flag:
                    pairs.append(((*path, name), option.opts[0]))
    return pairs


# What makes a command run through in a second, so that the option in question is what may stop it.
QUICK = {
    ("prepare",): ("folder", "shades", "--workers", "1"),
    ("demo",): ("--n", "4", "--epochs", "1"),
    ("train",): ("--init", "random", "--epochs", "1", "--batch", "16", "--patch", "56", "--depth", "2"),
    ("distill",): ("--res", "28", "--epochs", "1", "--batch", "16"),
    ("evaluate",): ("--replicates", "100"),
    ("infer",): ("film.dcm",),
    ("benchmark",): ("bundle", "--backend", "onnxruntime", "--passes", "1", "--max-batch", "1", "--film", "film.dcm"),
}
# These decide how long a command works: any whole number is a fair wish.
LASTING = {"--n", "--epochs", "--replicates", "--passes", "--max-batch"}

NUMBERS = ["-1", "0", "1.5", "nan", "inf", "-inf", "1e400", "99999999999999999999", "0x10", "1_000", "½"]
WORDS = ["", " ", "-", "--", "abc", "none", "TINY", "a,b", ",", "a\nb", "\x1b[31m", "影像", "x" * 300, "\ud800"]
PATHS = [".", "/proc", "/dev/null", "/dev/full", "shades", "shades/0.png", "file.txt", "file.txt/below", "gone",
         "gone/below", "bundle", "bundle/card.json", "naïve 影.dcm", "y/" * 2100, "pipe", "loop"]  # fmt: skip
ANYTHING = st.text(st.characters(exclude_characters="\0/"), max_size=9)
STATES = ["empty", "trained", "newer", "damaged", "files"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to stand in, with a workspace in each of the states; not to be changed."""
    place = tmp_path_factory.mktemp("place")
    image_folder(place / "shades", 12)
    scan(place, "film.dcm")
    scan(place, "naïve 影.dcm")
    (place / "file.txt").write_text("no film")
    tiny_bundle(place / "bundle")
    whole = trained(tmp_path_factory)
    (place / "empty").mkdir()
    for state in STATES[1:]:
        copied(whole, place / state)
    for file in [*(place / "newer").rglob("card.json"), *(place / "newer").rglob("dataset.json")]:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99, "version": "9.0"}))
    for file in [*(place / "damaged").rglob("*.json"), *(place / "damaged").rglob("*.safetensors")]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    for folder in (place / "files" / STUDENT, place / "files" / "data" / "phantom", place / "files" / "export"):
        shutil.rmtree(folder)
        folder.touch()
    return place


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    option=st.sampled_from(options()),
    value=st.one_of(
        st.sampled_from(NUMBERS + WORDS + PATHS), st.text(st.characters(exclude_characters="\0"), max_size=9)
    ),
    state=st.sampled_from(STATES),
)
@example(option=(("evaluate",), "--out"), value="/proc", state="trained")
@pytest.mark.long
def test_a_value_that_nobody_should_type_ends_in_one_line_and_loses_nothing(
    option: tuple[tuple[str, ...], str], value: str, state: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, name = option
    if name in LASTING and value.strip().lstrip("+").replace("_", "").isdecimal() and value != "0":
        return
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder) / "here"
        others = [place / other for other in STATES if other != state]
        shutil.copytree(place, here, symlinks=True, ignore=lambda _, names: [path.name for path in others])
        (here / "loop").symlink_to("loop")
        monkeypatch.chdir(here)
        before = contents(here)
        typed = edgecxr(*command, *QUICK.get(command, ()), name, value, runs=here / state)
        after = contents(here)
        monkeypatch.undo()
    assert "Traceback" not in typed.err and "unexpected" not in typed.err, typed
    assert typed.code in (0, 2, 3, 4, 5, 6), typed
    if typed.code:
        errors = [line for line in typed.err.splitlines() if line.lower().startswith("error:")]
        rejected = command == ("infer",) and typed.code == 3
        assert len(errors) == 1 or (rejected and not errors), typed
    lost = {file for file, digest in before.items() if after.get(file) != digest}
    assert not lost if typed.code else all(Path(file).parts[0] == state for file in lost), (typed, lost)
