from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.onnxruntime_gpu import Gpu


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Gpu:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Gpu(monkeypatch)
