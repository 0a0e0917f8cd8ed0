from __future__ import annotations

import json
import re
import sys
from functools import partial
from importlib.metadata import distributions
from pathlib import Path

import pytest

from edgecxr import extras

METADATA = """Metadata-Version: 2.1
Name: edgecxr
Version: 1.0
Requires-Dist: numpy>=1.24
Requires-Dist: elsewhere; sys_platform == "none"
Requires-Dist: torch>=2.4; extra == "train"
Requires-Dist: edgecxr[train]; extra == "export"
Requires-Dist: onnx_script>=0.2; extra == "export"
Requires-Dist: edgecxr[export]; extra == "all"
Provides-Extra: train
Provides-Extra: export
Provides-Extra: all
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes edgecxr look installed with a direct_url.json."""

    def as_from(origin: dict | None) -> None:
        folder = tmp_path / "site" / "edgecxr-1.0.dist-info"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "METADATA").write_text(METADATA)
        if origin is not None:
            (folder / "direct_url.json").write_text(json.dumps(origin))
        monkeypatch.setattr(extras, "distributions", partial(distributions, path=[str(folder.parent)]))
        monkeypatch.setattr(extras, "__file__", str(tmp_path / "site" / "edgecxr" / "extras.py"))
        monkeypatch.setattr(extras, "pip", lambda: "pip")

    return as_from


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "the source"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    return folder


def test_an_extra_brings_what_it_includes(install) -> None:
    install(None)
    names = {extra: {need.name for need in needs} for extra, needs in extras.requirements().items()}
    assert names == {
        "": {"numpy"},
        "train": {"torch"},
        "export": {"torch", "onnx_script"},
        "all": {"torch", "onnx_script"},
    }


@pytest.mark.parametrize(
    ("package", "extra"), [("numpy", ""), ("torch", "train"), ("onnx-script", "export"), ("elsewhere", None)]
)
def test_the_smallest_extra_that_states_a_package_is_named(install, package: str, extra: str | None) -> None:
    install(None)
    assert extras.extra_of(package) == extra


def test_from_an_index_the_name_is_enough(install) -> None:
    install(None)
    assert extras.command("train") == "pip install 'edgecxr[train]'"
    assert extras.command("") == "pip install edgecxr"


@pytest.mark.parametrize(("editable", "option"), [(True, "-e "), (False, "")])
def test_from_a_checkout_the_folder_is_named(install, checkout, monkeypatch, editable: bool, option: str) -> None:
    install({"url": checkout.as_uri(), "dir_info": {"editable": True} if editable else {}})
    assert extras.command("train") == f"pip install {option}'{checkout}[train]'"
    monkeypatch.chdir(checkout)
    assert extras.command("train") == f"pip install {option}'.[train]'"
    assert extras.command("") == f"pip install {option}."


def test_a_checkout_that_is_gone_is_not_named(install, tmp_path: Path) -> None:
    install({"url": (tmp_path / "gone").as_uri(), "dir_info": {}})
    assert extras.command("train") == "pip install 'edgecxr[train]'"


def test_from_a_repository_its_address_is_named(install) -> None:
    git = {"url": "https://example.org/edgecxr.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
    install(git)
    assert extras.command("train") == "pip install 'edgecxr[train] @ git+https://example.org/edgecxr.git@abc'"


def test_run_from_a_checkout_without_installation(install, checkout, monkeypatch) -> None:
    install(None)
    monkeypatch.setattr(extras, "distributions", partial(distributions, path=[]))
    monkeypatch.setattr(extras, "__file__", str(checkout / "edgecxr" / "extras.py"))
    assert extras.requirements() == {}
    assert extras.command("all") == f"pip install -e '{checkout}[all]'"


def test_the_pip_of_another_python_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert extras.pip() == f"{sys.executable} -m pip"
    (tmp_path / "pip").touch(mode=0o755)
    assert extras.pip() == f"{sys.executable} -m pip"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert extras.pip() == "pip"


def test_this_installation_states_the_workstation_packages() -> None:
    assert {extras.extra_of(name) for name in ("torch", "timm", "safetensors", "matplotlib")} == {"train"}
    assert extras.extra_of("onnx") == "export"
    assert re.search(r"pip install .*\[train\]'$", extras.command("train"))
