"""The device side starts without the workstation's packages, and says which extra brings what is missing.

Each test starts a fresh interpreter: in this one, other tests have imported everything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgecxr.data.prepared import Prepared
from edgecxr.workspace import Workspace
from tests.cli_workspace import edgecxr, image_folder
from tests.films.dicom_files import film, write
from tests.tiny_bundle import tiny_bundle, tiny_card

WORKSTATION = {"torch", "torchvision", "timm", "onnx", "onnxscript", "matplotlib", "safetensors"}

ALL = ",".join(sorted(WORKSTATION))

# argv: file for the modules' names, packages that are "not installed" joined by commas, what is typed after `edgecxr`.
TYPE = """
import importlib.abc, json, pathlib, sys

report, absent, *args = sys.argv[1:]

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent.split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = ["edgecxr", *args]
try:
    if args:
        from edgecxr.cli import main
        main()
    else:
        import edgecxr
finally:
    pathlib.Path(report).write_text(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def python(*args: str | Path, runs: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"EDGECXR_RUNS": str(runs), "EDGECXR_MODEL": ""}
    command = [sys.executable, *map(str, args)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def loaded_by(*args: str | Path, runs: Path, code: int = 0) -> set[str]:
    """Return the top-level packages that `edgecxr args...` loads; without arguments those of `import edgecxr`."""
    report = runs.parent / "modules.json"
    ended = python("-c", TYPE, report, "", *args, runs=runs)
    assert ended.returncode == code, ended
    return set(json.loads(report.read_text()))


def without(absent: str, *args: str | Path, runs: Path) -> subprocess.CompletedProcess[str]:
    return python("-c", TYPE, runs.parent / "modules.json", absent, *args, runs=runs)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write(film(np.arange(4096, dtype=np.uint16).reshape(64, 64), BitsStored=12), tmp_path)


@pytest.mark.parametrize("args", [(), ("--help",), ("--version",), ("infer", "--help"), ("train", "--help")])
def test_start_and_help_load_neither_the_workstation_nor_the_readers(args: tuple[str, ...], runs: Path) -> None:
    modules = loaded_by(*args, runs=runs)
    assert "edgecxr" in modules
    assert not modules & (WORKSTATION | {"numpy", "pydicom", "onnxruntime", "PIL"})


def test_importing_the_command_line_loads_no_numbers(runs: Path) -> None:
    code = "import edgecxr.cli, sys; print(*sys.modules)"
    modules = {name.partition(".")[0] for name in python("-c", code, runs=runs).stdout.split()}
    assert "typer" in modules
    assert not modules & (WORKSTATION | {"numpy", "pydicom", "onnxruntime", "PIL"})


def test_reading_a_film_loads_nothing_of_the_workstation(scan: Path, runs: Path) -> None:
    code = "import sys; from edgecxr.films.read import read_film; read_film(sys.argv[1]); print(*sys.modules)"
    modules = {name.partition(".")[0] for name in python("-c", code, scan, runs=runs).stdout.split()}
    assert "pydicom" in modules and not modules & WORKSTATION


@pytest.mark.parametrize("options", [(), ("--json", "--attention"), ("--overlay", "pictures")])
def test_infer_on_dicom_loads_nothing_of_the_workstation(
    options: tuple[str, ...], scan: Path, runs: Path, tmp_path: Path
) -> None:
    model = tiny_bundle(tmp_path / "model").path
    options = tuple(str(tmp_path / option) if option == "pictures" else option for option in options)
    modules = loaded_by("infer", scan, "--model", model, *options, runs=runs)
    assert "onnxruntime" in modules
    assert not modules & (WORKSTATION | {"highdicom"})


def test_preparing_images_loads_no_dicom_reader(runs: Path, tmp_path: Path) -> None:
    modules = loaded_by("prepare", "folder", image_folder(tmp_path / "images"), "--workers", "1", runs=runs)
    assert "PIL" in modules and (runs / "data" / "images" / "images.npy").exists()
    assert not modules & (WORKSTATION | {"pydicom", "onnxruntime"})


def test_preparing_phantoms_and_looking_at_bundles_load_nothing_of_the_workstation(runs: Path, tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "model")
    for args in (("prepare", "phantom", "--n", "8", "--workers", "1"), ("bundle", "verify", tmp_path / "model")):
        assert not loaded_by(*args, runs=runs) & WORKSTATION


# ---- a package that is not installed


@pytest.fixture
def workspace(runs: Path, tmp_path: Path) -> Path:
    """Return a workspace with data and the card of a run, all that a command needs before it imports torch."""
    assert edgecxr("prepare", "folder", image_folder(tmp_path / "images"), "--workers", "1", runs=runs).code == 0
    prepared = Prepared.open(Workspace(runs).data_dir("images"))
    card = tiny_card(labels=prepared.labels, artefacts={}, data=prepared.summary())
    for name in ("student-tiny-28-mlcak-phantom", "teacher-tiny-224-phantom"):
        (runs / name).mkdir()
        (runs / name / "card.json").write_text(card.to_json())
    return runs


@pytest.mark.parametrize(
    ("absent", "args", "package", "extra"),
    [
        ("torch", ("train",), "torch", "train"),
        ("timm", ("train",), "timm", "train"),
        ("torch", ("distill", "--res", "28"), "torch", "train"),
        ("torch", ("evaluate",), "torch", "train"),
        (ALL, ("export",), "onnx", "export"),
        ("onnx", ("export",), "onnx", "export"),
        (ALL, ("demo",), "onnx", "export"),
        ("onnxruntime", ("infer", "film.dcm", "--model", "model"), "onnxruntime", ""),
        ("highdicom", ("infer", "film.dcm", "--model", "model", "--dicom", "results"), "highdicom", "sr"),
    ],
)
def test_a_missing_package_exits_with_5_and_names_the_extra_that_brings_it(
    workspace: Path, tmp_path: Path, absent: str, args: tuple[str, ...], package: str, extra: str
) -> None:
    model = tiny_bundle(tmp_path / "model").path
    ended = without(absent, *(str(model) if arg == "model" else arg for arg in args), runs=workspace)
    assert (ended.returncode, ended.stdout) == (5, ""), ended
    *before, line = ended.stderr.splitlines()
    assert line.startswith("error: ") and (before == [] or args == ("evaluate",))
    assert f"needs {package}, which is not installed: " in line
    assert "pip install" in line
    assert line.endswith(f"[{extra}]'") if extra else "[" not in line


def test_doctor_without_the_workstation_packages_names_the_extras(runs: Path) -> None:
    ended = without(ALL, "doctor", "--json", runs=runs)
    rows = {row["name"]: row for row in json.loads(ended.stdout)["rows"]}
    assert rows["torch"]["status"] == "absent" and rows["torch"]["commands"][0].endswith("[train]'")


def test_a_device_without_the_workstation_packages_predicts(scan: Path, runs: Path, tmp_path: Path) -> None:
    model = tiny_bundle(tmp_path / "model").path
    ended = without(ALL, "infer", scan, "--model", model, "--json", runs=runs)
    assert ended.returncode == 0 and json.loads(ended.stdout)["status"] == "ok"


def test_a_fault_of_our_own_is_not_taken_for_a_missing_package(workspace: Path) -> None:
    ended = without("edgecxr_none", "train", "--init", "random", "--epochs", "0", runs=workspace)
    assert ended.returncode == 2 and "--epochs 0" in ended.stderr


def test_the_module_can_be_run(runs: Path) -> None:
    ended = python("-m", "edgecxr", "--version", runs=runs)
    assert ended.returncode == 0 and ended.stdout.startswith("edgecxr ")
