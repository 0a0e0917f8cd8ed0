"""A state folder with films of every state, copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edgecxr.infer.predictor import Predictor


@pytest.fixture(scope="session")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    from edgecxr.infer.predictor import Predictor
    from tests.tiny_bundle import tiny_bundle

    return Predictor(tiny_bundle(tmp_path_factory.mktemp("model") / "model"))


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, predictor: Predictor) -> Path:
    from tests.node.web.pages import fill

    folder = tmp_path_factory.mktemp("filled")
    fill(folder / "state", folder, predictor)
    return folder / "state"


@pytest.fixture
def state(filled: Path, tmp_path: Path) -> Path:
    """Return a folder that the test may change."""
    return Path(shutil.copytree(filled, tmp_path / "state"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make hashes of passwords cheap."""
    from edgecxr.node.web import users

    monkeypatch.setattr(users, "_N", 2)
    monkeypatch.setattr(users, "_P", 1)
