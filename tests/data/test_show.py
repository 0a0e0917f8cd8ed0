from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from edgecxr.data.prepared import Prepared
from edgecxr.data.sheet import montage
from edgecxr.data.show import show
from tests.cli_workspace import edgecxr
from tests.data.layouts import nih_layout


def test_a_data_set_says_what_is_in_it_and_where_it_came_from(tmp_path: Path) -> None:
    typed = edgecxr(
        "prepare", "nih", nih_layout(tmp_path / "nih"), "--labels", "vindr14", "--workers", "1", runs=tmp_path / "runs"
    )
    assert typed.code == 0
    shown = edgecxr("data", "show", "nih", runs=tmp_path / "runs")
    assert shown.code == 0
    (effusion, ild) = (
        next(line for line in shown.out.splitlines() if line.startswith(name)) for name in ("Pleural effusion", "ILD")
    )
    assert effusion.endswith("1 (33.3%)") and ild.split()[1:] == ["not", "known"] * 3
    assert f"from     nih, {tmp_path / 'nih'}" in shown.out
    assert re.search(r"films {4}rows and columns .* 96 x 96 to 96 x 96", shown.out) and "takes    " in shown.out
    assert "label    Nodule/Mass: Nodule, Mass" in shown.out and "label    ILD: not known there" in shown.out
    assert "warning  NIH ChestX-ray14 does not know of Aortic enlargement" in shown.out
    assert re.search(r"film {5}the image .*only 96 x 96 pixels; .*enlarged to 224 x 224: 10", shown.out)
    with Image.open(tmp_path / "runs" / "montage-nih.png") as picture:
        assert picture.width == 6 * 232 + 8
    checked = edgecxr("data", "check", "nih", runs=tmp_path / "runs")
    assert checked.code == 0 and ": OK, 10 images, " in checked.out
    images = tmp_path / "runs" / "data" / "nih" / "images.npy"
    content = bytearray(images.read_bytes())
    content[-1] ^= 1
    images.write_bytes(content)
    changed = edgecxr("data", "check", "nih", runs=tmp_path / "runs")
    assert changed.code == 3 and "have changed since" in changed.error


def test_a_montage_has_a_line_for_each_finding_that_there_is(clinic: Prepared, tmp_path: Path) -> None:
    montage(clinic, tmp_path / "montage.png")
    with Image.open(tmp_path / "montage.png") as picture:
        pixels = np.asarray(picture)
    # Normal and two findings, of six films each; nobody has the third.
    line = 232 + 60
    assert picture.height == 3 * line + 32
    first = pixels[32 : 32 + 224, 8 : 8 + 224]
    normal = clinic.images[np.flatnonzero(clinic.abnormal == 0)[0]]
    np.testing.assert_array_equal(first, normal)
    assert "not known" not in show(clinic) and "Cardiomegaly" in show(clinic)
