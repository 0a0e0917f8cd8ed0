"""No Python is started that imports from the folder that a user stands in."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import edgecxr
from edgecxr.workers import new_python
from tests.cli_workspace import image_folder
from tests.films.dicom_files import film, write
from tests.tiny_bundle import tiny_bundle
from tests.traps import NAMES, laid

ROOT = str(Path(__file__).parents[2])
PACKAGE = Path(edgecxr.__file__).parent

# The program of a user: it has a folder of its own first on its path, and then what the test adds.
POOL = """
import os, sys
sys.path[1:1] = {before!r}
from edgecxr.workers.new_python import run_edgecxr
from edgecxr.workers.pool import Pool
from edgecxr.workers.work import Work, run
from tests.traps import answer
with Pool(Work(answer, lambda item, said, data: said, lambda item, ended: ended), 1) as pool:
    print(*dict(run(pool, [7])).values(), flush=True)
sys.path[:0] = {first!r}
print(run_edgecxr(["--version"]) if {command} else "")
"""
TYPED = "from edgecxr.cli import main\nmain()\n"


@cache
def pythons() -> dict[str, str]:
    """Return the Pythons of this machine that edgecxr is for."""
    by_version = {}
    for minor in range(10, 14):
        place = shutil.which(f"python3.{minor}")
        if place and not subprocess.run([place, "-c", "0"], capture_output=True).returncode:
            by_version[f"3.{minor}"] = place
    return by_version | {f"3.{sys.version_info[1]}": sys.executable}


def started(
    *command: str | Path, here: Path, python_path: str = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": python_path, "EDGECXR_MODEL": "", **variables}
    return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("minor", ["3.10", "3.11", "3.12", "3.13"])
def test_workers_and_commands_import_nothing_from_the_folder_that_a_user_is_in(tmp_path: Path, minor: str) -> None:
    if minor not in pythons():
        pytest.skip(f"there is no Python {minor}")
    here = tmp_path / "films"
    sprung = laid(here)
    program = tmp_path / "program.py"
    # Commands need packages, which Pythons without a virtual environment lack.
    own = pythons()[minor] == sys.executable
    program.write_text(POOL.format(before=["", str(here), "."], first=["", str(here)], command=own))
    # Modules that this program imports itself come before the folder: they are in an earlier entry.
    program.write_text("import edgecxr.workers.pool, tests.traps, subprocess\n" + program.read_text())
    done = started(pythons()[minor], program, here=here)
    assert done.returncode == 0 and done.stdout.split()[0] == "7", done.stderr
    assert not own or done.stdout.split()[-1] == "0"
    assert not sprung.exists(), sprung.read_text()


@pytest.mark.parametrize("entries", [["", ROOT], [ROOT, ""], [".", ROOT, ".."], ["films", ROOT]])
def test_a_child_s_variables_name_no_folder_that_depends_on_where_one_is(
    entries: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(entries))
    assert new_python.environment()["PYTHONPATH"] == ROOT
    monkeypatch.setenv("PYTHONPATH", "")
    assert "PYTHONPATH" not in new_python.environment(), "an empty one would be the current folder"
    sprung = laid(tmp_path / "films")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(entries))
    monkeypatch.chdir(tmp_path / "films")
    command = new_python.command("edgecxr.cli:main", "--version")
    done = subprocess.run(command, env=new_python.environment(), capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("edgecxr "), done.stderr
    assert not sprung.exists(), sprung.read_text()


def test_the_current_folder_stays_on_the_path_only_where_its_whole_name_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", ".", str(tmp_path), "/elsewhere", *sys.path])
    assert new_python.import_path()[0] == "/elsewhere"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert new_python.import_path()[:2] == [str(tmp_path), "/elsewhere"]
    monkeypatch.chdir(PACKAGE.parent)
    assert new_python.import_path()[:2] == [str(tmp_path), "/elsewhere"]
    assert str(PACKAGE.parent) in [os.path.realpath(place) for place in new_python.import_path()]


def test_a_folder_that_was_removed_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert new_python.import_path()


# ---- commands


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace, and beside it a stranger's folder of films and modules."""
    folder = tmp_path_factory.mktemp("place")
    tiny_bundle(folder / "runs" / "export" / "student")
    laid(folder / "films")
    write(film(np.arange(4096, dtype=np.uint16).reshape(64, 64), BitsStored=12), folder / "films")
    image_folder(folder / "labelled", 4)
    (folder / "entry.py").write_text(TYPED)
    return folder


QUICK = {
    "infer": ("infer", ".", "--json", "--any-view", "--force"),
    "prepare": ("prepare", "folder", "../labelled"),
}
LONG = {
    "benchmark": ("benchmark", "student", "--backend", "onnxruntime", "--max-batch", "1", "--passes", "1"),
    "doctor": ("doctor",),
    "phantom": ("prepare", "phantom", "--n", "40"),
    "demo": ("demo", "--n", "40", "--epochs", "2"),
    "devices": ("train", "--data", "phantom", "--init", "random", "--patch", "56", "--depth", "2", "--epochs", "1",
                "--batch", "8", "--device", "cpu", "--devices", "2"),
    "ray": ("infer", ".", "--json", "--any-view", "--force", "--executor", "ray"),
    "ray prepare": ("prepare", "folder", "../labelled", "--name", "again", "--executor", "ray"),
}  # fmt: skip


def typed(place: Path, words: tuple[str, ...], python_path: str = ROOT) -> subprocess.CompletedProcess[str]:
    variables = {"EDGECXR_RUNS": str(place / "runs"), "EDGECXR_STATE": str(place / "state"), "TMPDIR": "/tmp"}
    return started(
        sys.executable, place / "entry.py", *words, here=place / "films", python_path=python_path, **variables
    )


@pytest.mark.parametrize("words", QUICK.values(), ids=QUICK)
def test_commands_import_nothing_from_the_folder_that_a_user_is_in(place: Path, words: tuple[str, ...]) -> None:
    done = typed(place, words)
    assert done.returncode in (0, 3), done.stderr
    assert not (place / "films.sprung").exists(), (place / "films.sprung").read_text()


@pytest.mark.long
@pytest.mark.parametrize("words", LONG.values(), ids=LONG)
def test_all_that_start_processes_import_nothing_from_there(place: Path, words: tuple[str, ...]) -> None:
    if words[-1] == "ray":
        pytest.importorskip("ray")
    if "--devices" in words and not (place / "runs" / "data" / "phantom").exists():
        assert typed(place, LONG["phantom"]).returncode == 0
    done = typed(place, words)
    assert done.returncode in (0, 3), done.stderr
    assert not (place / "films.sprung").exists(), (place / "films.sprung").read_text()


def test_python_m_leaves_the_folder_before_it_imports_a_package(place: Path) -> None:
    here = place / "m"
    # Python itself imports a few modules before edgecxr can say anything.
    early = {"edgecxr", *(name.partition(".")[0] for name in sys.modules if name in sys.stdlib_module_names)}
    sprung = laid(here, [name for name in NAMES if name not in early or name in ("random", "json", "socket", "numpy")])
    done = started(sys.executable, "-m", "edgecxr", "infer", "../films", "--json", here=here, EDGECXR_RUNS="../runs")
    assert done.returncode in (0, 3), done.stderr
    assert not sprung.exists(), sprung.read_text()


# ---- the rule

PLACES: dict[str, set[str]] = {
    # The supervisor starts what new_python.command says, with its environment; authority.py starts openssl.
    "subprocess": {"machine/system.py", "node/supervisor.py", "node/tls/authority.py", "workers/new_python.py"},
    "multiprocessing": set(),
    "ray": {"workers/cluster.py"},
    "torch.distributed.launcher.api": {"train/launch.py"},
    "runpy": set(),
    "pty": set(),
    "asyncio.subprocess": set(),
}  # fmt: skip
_ENDINGS = ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")
_NOWHERE = ("system", "popen", "posix_spawnp", "forkpty", *(k + end for k in ("exec", "spawn") for end in _ENDINGS))
CALLS: dict[str, set[str]] = {f"os.{name}": set() for name in _NOWHERE} | {
    "sys.executable": {"workers/new_python.py", "doctor/machine_rows.py", "extras.py"},  # the last two print it
    "os.posix_spawn": {"workers/template.py"},
    "os.fork": {"workers/template.py", "workers/confine.py"},
    "asyncio.create_subprocess_exec": set(),
    "asyncio.create_subprocess_shell": set(),
    "concurrent.futures.ProcessPoolExecutor": set(),
}  # fmt: skip
SUSPECT = ("os", "sys", "asyncio")


def test_pythons_are_started_in_one_place() -> None:
    by_rule: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in SUSPECT:
                modules = [f"{node.value.id}.{node.attr}"]
            for module in modules:
                for rule in PLACES:
                    if module == rule or module.startswith(f"{rule}."):
                        by_rule.setdefault(rule, set()).add(name)
                if module in CALLS:
                    by_rule.setdefault(module, set()).add(name)
    assert {rule: places for rule, places in (PLACES | CALLS).items() if places} == by_rule
