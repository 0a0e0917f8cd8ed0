"""What pip installs: one package, whole, with the version and the dependencies that the device needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

import edgecxr

pytest.importorskip("setuptools", minversion="77")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel in a copy, without a network: the sources' folder must not fill with build files."""
    copy, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for folder in ("edgecxr", "export", "benchmarks", "tests", "docs"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(dist), str(copy)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = dist.iterdir()
    return path


def contents(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(next(n for n in archive.namelist() if n.endswith("/METADATA"))))


def test_edgecxr_is_the_only_name_in_site_packages(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in contents(wheel)}
    assert tops == {"edgecxr", f"edgecxr-{edgecxr.__version__}.dist-info"}


def test_every_module_is_in_the_wheel(wheel: Path) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "edgecxr").rglob("*.py")}
    assert modules - set(contents(wheel)) == set()
    assert {"edgecxr/cli/app.py", "edgecxr/infer/run.py", "edgecxr/phantom/make.py"} <= modules


def test_type_checkers_are_told_that_there_are_types(wheel: Path) -> None:
    assert "edgecxr/py.typed" in contents(wheel)


def test_the_targets_come_with_the_wheel(wheel: Path, tmp_path: Path) -> None:
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "edgecxr/engines/targets").iterdir()}
    assert "edgecxr/engines/targets/v100.toml" in shipped and shipped <= set(contents(wheel))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import edgecxr; from edgecxr.engines.target import load_target, target_names; "
        "print(edgecxr.__file__, *(load_target(name).name for name in target_names()))"
    )
    # Not from the sources: the working folder is the unpacked wheel, which -c puts first.
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    place, *names = done.stdout.split()
    assert Path(place).parent == tmp_path / "edgecxr"
    assert names == sorted(Path(path).stem for path in shipped)


def test_a_bundle_comes_with_the_wheel(wheel: Path) -> None:
    files = [path for path in (ROOT / "export" / "bundles").rglob("*") if path.is_file()]
    inside = {f"edgecxr/bundles/{path.relative_to(ROOT / 'export' / 'bundles').as_posix()}" for path in files}
    assert len(inside) > 4 and inside - set(contents(wheel)) <= {"edgecxr/bundles/README.md"}


def test_every_folder_of_modules_is_a_package() -> None:
    # Without __init__.py a folder would be found in the sources and be missing after installation.
    folders = {path.parent for path in (ROOT / "edgecxr").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_version_licence_and_command_are_stated(wheel: Path) -> None:
    stated = metadata(wheel)
    assert stated["Name"] == "edgecxr" and stated["Version"] == edgecxr.__version__
    assert stated["License-Expression"] == "Apache-2.0"
    with zipfile.ZipFile(wheel) as archive:
        scripts = archive.read(next(n for n in archive.namelist() if n.endswith("/entry_points.txt"))).decode()
    assert "edgecxr = edgecxr.cli:main" in scripts


def test_the_workstation_packages_come_with_an_extra_only(wheel: Path) -> None:
    required = metadata(wheel).get_all("Requires-Dist") or []
    always = {line.partition(">")[0].strip().lower() for line in required if "extra ==" not in line}
    assert {"numpy", "pydicom", "pillow", "typer", "onnxruntime"} <= always
    assert any(line.startswith("tomli") and "python_version < " in line for line in required)
    assert not always & {"torch", "torchvision", "timm", "onnx", "onnxscript", "safetensors", "matplotlib", "highdicom"}
