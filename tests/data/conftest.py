from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.noise import folder_of_noise


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder_of_noise(tmp_path / "films")
