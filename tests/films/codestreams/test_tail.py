"""Films that end before their last rows: told from a share of them on, wherever the value is not padding or a frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import RLELossless

from edgecxr.films.codestreams.tail import FRAMED, LEAST, tail
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import read_radiograph
from tests.films.dicom_files import film, write

QUICK = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


def noise(rows: int, columns: int, bits: int = 12) -> np.ndarray:
    values = np.random.default_rng(rows).integers(1, (1 << bits) - 1, (rows, columns))
    return values.astype(np.uint16 if bits > 8 else np.uint8)


def cut(radiograph: Radiograph) -> bool:
    return any("may be cut off" in warning for warning in radiograph.warnings)


@QUICK
@given(
    rows=st.integers(50, 300), columns=st.integers(50, 300), count=st.integers(0, 250),
    value=st.sampled_from([0, 9, 4095]),
    frame=st.sampled_from(["", "top", "left", "right"]), other=st.booleans(), colour=st.booleans(),
)  # fmt: skip
def test_rows_of_one_value_are_told_from_a_share_on(
    rows: int, columns: int, count: int, value: int, frame: str, other: bool, colour: bool
) -> None:
    pixels = noise(rows, columns)
    count = min(count, rows - 20)
    pixels[rows - count :] = value
    border = value + 1 if other else value
    width = -(-max(rows, columns) // 20)
    part = {"top": pixels[:width], "left": pixels[:, :width], "right": pixels[:, columns - width :], "": pixels[:0]}[
        frame
    ]
    part[: rows - count] = border
    cut_off = tail(np.stack([pixels] * 3, -1) if colour else pixels)
    share = FRAMED if frame and not other else LEAST
    if frame in ("left", "right") and other:
        share = LEAST
    assert (cut_off is not None) == (count >= rows * share and count > 0)


@QUICK
@given(
    share=st.floats(0.15, 0.9), value=st.sampled_from([0, 100, 4095]), inverted=st.booleans(),
    stated=st.sampled_from(["no", "padding", "other padding", "shutter"]), packed=st.booleans(), high=st.booleans(),
)  # fmt: skip
def test_a_film_that_is_cut_off_is_told_unless_its_file_says_why(
    tmp_path_factory: pytest.TempPathFactory, share: float, value: int, inverted: bool, stated: str, packed: bool,
    high: bool,
) -> None:  # fmt: skip
    pixels = noise(120, 90)
    rows = 120 - int(120 * share)
    pixels[rows:] = value
    elements: dict[str, object] = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 3000}
    elements["PhotometricInterpretation"] = "MONOCHROME1" if inverted else "MONOCHROME2"
    if "padding" in stated:
        elements["PixelPaddingValue"] = value if stated == "padding" else 2222
    if stated == "shutter":
        elements |= {"ShutterShape": "RECTANGULAR", "ShutterLeftVerticalEdge": 1, "ShutterRightVerticalEdge": 90}
        elements |= {"ShutterUpperHorizontalEdge": 1, "ShutterLowerHorizontalEdge": rows}
    dataset = film(pixels << 4 if high else pixels, **elements, **({"HighBit": 15} if high else {}))
    if packed:
        dataset.compress(RLELossless, generate_instance_uid=False, encoding_plugin="pydicom")
    radiograph = read_radiograph(write(dataset, tmp_path_factory.mktemp("film")))
    zeros = stated == "padding" and value == 0 and rows < 80  # nothing tells such padding from a film that is cut off
    assert cut(radiograph) == (stated in ("no", "other padding") or zeros)


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "P", "LA"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_picture_that_is_cut_off_is_told_however_it_is_turned(tmp_path: Path, mode: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for rows in (0, 40):
        pixels = noise(120, 90, 16 if mode == "I;16" else 8)
        pixels[120 - rows :] = 128
        picture = Image.fromarray(pixels)
        (picture if mode == "I;16" else picture.convert(mode)).save(tmp_path / "film.png", exif=exif)
        assert cut(read_radiograph(tmp_path / "film.png")) == bool(rows)
