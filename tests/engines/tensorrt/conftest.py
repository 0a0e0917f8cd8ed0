from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecxr.bundle.bundle import Bundle
from tests.fake_tensorrt import Fake, installed
from tests.tiny_bundle import tiny_bundle


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECXR_STATE", str(tmp_path / "state"))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with installed(Fake(), monkeypatch) as fake:
        yield fake


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "tiny")
