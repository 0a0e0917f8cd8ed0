"""TIFF files of all kinds: read rightly, or refused for a true reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecxr.errors import InputError
from edgecxr.films.read import read_radiograph
from tests.films.tiff_files import DEFLATE, PACKBITS, UNCOMPRESSED, write_tiff

ROWS, COLUMNS = 72, 100
GREY = np.add.outer(np.arange(ROWS) / ROWS * 0.5, np.arange(COLUMNS) / COLUMNS * 0.45) + 0.04
KINDS = [(8, "u"), (16, "u"), (12, "u"), (32, "u"), (32, "f"), (64, "f"), (16, "i"), (8, "i")]


@settings(deadline=None, max_examples=150)
@given(
    kind=st.sampled_from(KINDS), order=st.sampled_from("<>"), big=st.booleans(), photometric=st.sampled_from([0, 1]),
    compression=st.sampled_from([UNCOMPRESSED, DEFLATE, PACKBITS]), tile=st.sampled_from([0, 16, 64]),
    predictor=st.sampled_from([1, 2]), rows_per_strip=st.sampled_from([1, 30, ROWS]), colour=st.booleans(),
    planar=st.sampled_from([1, 2]),
)  # fmt: skip
def test_a_tiff_is_read_rightly_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: tuple[int, str], order: str, big: bool, photometric: int,
    compression: int, tile: int, predictor: int, rows_per_strip: int, colour: bool, planar: int,
) -> None:  # fmt: skip
    bits, form = kind
    colour = colour and bits in (8, 16) and form == "u"
    predictor = predictor if compression == DEFLATE and form == "u" and bits in (8, 16) else 1
    white = (1 << (bits - (form == "i"))) - 1
    stored = GREY if form == "f" else np.rint(GREY * white)
    pixels = stored.astype(f"{form}{4 if bits == 32 else 8}" if form == "f" else f"{form}{max(1, -(-bits // 8))}")
    path = tmp_path_factory.mktemp("tiff") / "film.tif"
    write_tiff(
        path, np.stack([pixels] * 3, axis=-1) if colour else pixels, bits=bits, order=order,
        compression=compression, photometric=2 if colour else photometric, planar=planar if colour else 1,
        predictor=predictor, tile=tile, rows_per_strip=rows_per_strip, big=big,
    )  # fmt: skip
    try:
        radiograph = read_radiograph(path)
    except InputError as error:
        assert error.reason == "unsupported", error
        plain = bits in (8, 16) and form == "u" and order == "<"
        assert not plain or (colour and (bits == 16 or planar == 2)), error
        return
    if not any("percentiles" in warning for warning in radiograph.warnings):
        assert abs(radiograph.pixels - (GREY if photometric or colour else 1 - GREY)).max() < 0.01
    else:
        right = GREY if photometric else 1 - GREY
        assert np.corrcoef(radiograph.pixels.ravel(), right.ravel())[0, 1] > 0.99 and bits in (12, 16)


@pytest.mark.parametrize("compression", ["zstd", "lzma", "webp", "group4"])
def test_compressions_that_hide_damage_are_refused(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "film.tif"
    picture = Image.fromarray((GREY * 255).astype(np.uint8)).convert("1" if compression == "group4" else "RGB")
    try:
        picture.save(path, compression=compression)
    except (OSError, ValueError, RuntimeError):
        pytest.skip("this Pillow does not write it")
    with pytest.raises(InputError) as caught:
        read_radiograph(path)
    assert caught.value.reason == "unsupported" and "TIFF" in str(caught.value)


def test_a_webp_image_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "film.webp"
    Image.fromarray((GREY * 255).astype(np.uint8)).save(path, "WEBP", lossless=True)
    with pytest.raises(InputError) as caught:
        read_radiograph(path)
    assert caught.value.reason == "unsupported" and "WebP" in str(caught.value)
