"""Figures are drawn as the user has set it, and not as the current folder has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = """
import os
from pathlib import Path
exists = os.path.exists
from edgecxr.plots.curves import Figure
from edgecxr.plots.figure import save
import matplotlib
assert os.path.exists is exists
figure = Figure(figsize=(2, 2))
figure.subplots().set_title("x")
save(figure, Path("figure.png"))
print(matplotlib.rcParams["text.usetex"], matplotlib.rcParams["figure.dpi"], matplotlib.matplotlib_fname())
"""


def settings(path: Path) -> None:
    path.write_text("text.usetex: True\nfigure.dpi: 7\n")


@pytest.mark.parametrize("plant", [settings, os.mkfifo])
def test_settings_in_the_current_folder_are_not_read(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    plant(tmp_path / "matplotlibrc")
    done = drawn(tmp_path, {})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[:2] == ["False", "100.0"]
    assert (tmp_path / "figure.png").stat().st_size > 500


def test_settings_of_the_user_are_read(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "matplotlibrc").write_text("figure.dpi: 50\n")
    settings(tmp_path / "matplotlibrc")
    done = drawn(tmp_path, {"MATPLOTLIBRC": str(own)})
    assert done.stdout.split()[:2] == ["False", "50.0"], done.stderr


def drawn(folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    # A home of its own, with the list of fonts that takes seconds to make.
    kept = {name: value for name, value in os.environ.items() if name != "MATPLOTLIBRC"}
    config = folder / "config"
    config.mkdir(exist_ok=True)
    import matplotlib

    for cache in Path(matplotlib.get_cachedir()).glob("fontlist*.json"):
        shutil.copy(cache, config)
    kept |= {"MPLCONFIGDIR": str(config), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, cwd=folder, env=kept | variables, capture_output=True, text=True, timeout=60)
