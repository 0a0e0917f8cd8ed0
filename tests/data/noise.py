"""A folder of images of noise, as the tests of preparing use it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecxr.data.adapters.folder import folder
from edgecxr.data.dataset import Dataset
from edgecxr.data.prepare import journal
from edgecxr.data.prepare.prepare import prepare

COUNT = 30


def folder_of_noise(folder: Path) -> Path:
    """Write 30 images of noise with two findings; 3 is text, 5 is missing, 7 is small, 8 is wide."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["image,patient,split,Edema,Nodule\n"]
    for i in range(COUNT):
        shape = (100, 100) if i == 7 else (240, 480 if i == 8 else 240)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,p{i},{('train', 'val', 'test')[i % 3]},{i % 2},{'' if i == 1 else 0.5}\n")
    (folder / "3.png").write_text("not a film")
    (folder / "5.png").unlink()
    (folder / "labels.csv").write_text("".join(lines))
    (folder / "boxes.csv").write_text(BOXES)
    return folder


BOXES = """image,label,x_min,y_min,x_max,y_max
9.png,Nodule,120,60,240,120
9.png,Edema,-10,200,60,300
3.png,Nodule,1,1,9,9
5.png,Nodule,1,1,9,9
9.png,Edema,240,10,300,20
9.png,Edema,10,10,10,20
7.png,Nodule,50,0,100,25
8.png,Nodule,48,24,96.5,60
8.png,Nodule,24,24,96.5,60
"""


def marked(films: Path) -> Dataset:
    return folder(films, boxes=films / "boxes.csv")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def interrupt(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare a folder, and stop after twelve images."""
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0)

    def stop(done: int, total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(folder(source), out, 1, stop)
