from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecxr.errors import InputError
from edgecxr.films import image_file as module
from edgecxr.films.read import read_radiograph

GREY = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)  # fifths


def save(folder: Path, picture: Image.Image, name: str = "film.png", **options: object) -> Path:
    path = folder / name
    picture.save(path, **options)
    return path


def reason(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_radiograph(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return caught.value.reason


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "LA", "RGBA"])
def test_grey_comes_out_the_same_however_it_is_stored(tmp_path: Path, mode: str) -> None:
    radiograph = read_radiograph(save(tmp_path, Image.fromarray(GREY).convert(mode)))
    assert radiograph.pixels.dtype == np.float32
    assert np.allclose(radiograph.pixels, GREY / 255, atol=1e-6)
    assert not any("colour" in text for text in radiograph.warnings)
    assert radiograph.view is None


def test_transparency_is_ignored(tmp_path: Path) -> None:
    alpha = np.array([[0, 128, 255], [255, 0, 7]], np.uint8)
    picture = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    assert np.allclose(read_radiograph(save(tmp_path, picture)).pixels, GREY / 255)
    picture = Image.merge("RGBA", [Image.fromarray(GREY)] * 3 + [Image.fromarray(alpha)])
    assert np.allclose(read_radiograph(save(tmp_path, picture)).pixels, GREY / 255, atol=1e-6)


def test_colour_becomes_luminance_with_a_warning(tmp_path: Path) -> None:
    radiograph = read_radiograph(save(tmp_path, Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8))))
    assert np.allclose(radiograph.pixels, [[0.299, 0.114]])
    assert any("colour" in text for text in radiograph.warnings)


def test_sixteen_bits(tmp_path: Path) -> None:
    radiograph = read_radiograph(save(tmp_path, Image.fromarray(np.array([[0, 257], [32896, 65535]], np.uint16))))
    assert np.allclose(radiograph.pixels, [[0, 1 / 255], [128 / 255, 1]])
    assert not any("percentiles" in text for text in radiograph.warnings)


def test_twelve_bits_in_sixteen_are_not_left_black(tmp_path: Path) -> None:
    radiograph = read_radiograph(save(tmp_path, Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64))))
    assert radiograph.pixels.max() == 1
    assert abs(radiograph.pixels.mean() - 0.5) < 0.01
    assert any("percentiles" in text for text in radiograph.warnings)


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to display
    radiograph = read_radiograph(save(tmp_path, Image.fromarray(GREY), exif=exif))
    assert np.allclose(radiograph.pixels, np.rot90(GREY, -1) / 255)


def test_small_images_are_warned_of(tmp_path: Path) -> None:
    assert any("2 x 3" in text for text in read_radiograph(save(tmp_path, Image.fromarray(GREY))).warnings)
    large = Image.fromarray(np.tile(GREY, (200, 200)))
    assert read_radiograph(save(tmp_path, large)).warnings == ()


def test_kind_is_told_by_content(tmp_path: Path) -> None:
    path = save(tmp_path, Image.fromarray(GREY), format="PNG", name="film.dcm")
    assert read_radiograph(path).pixels.shape == (2, 3)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_truncated(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300)).astype(np.uint8)
    path = save(tmp_path, Image.fromarray(noise), f"film.{kind}")
    whole = path.read_bytes()
    for length in (10, len(whole) // 2, len(whole) - 1000):
        path.write_bytes(whole[:length])
        assert reason(path) == "malformed"


def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, Image.fromarray(GREY))
    monkeypatch.setattr(module, "MAX_PIXELS", 5)
    assert reason(path) == "unsupported"
    monkeypatch.setattr(module, "MAX_PIXELS", 6)
    assert read_radiograph(path).pixels.shape == (2, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)  # Pillow's own limit raises at twice that
    assert reason(path) == "unsupported"


def test_floating_point_pixels(tmp_path: Path) -> None:
    assert reason(save(tmp_path, Image.fromarray(np.eye(4, dtype=np.float32)), "film.tif")) == "unsupported"


def test_blank(tmp_path: Path) -> None:
    assert reason(save(tmp_path, Image.new("L", (300, 300), 7))) == "blank"


def test_what_is_no_image(tmp_path: Path) -> None:
    assert reason(tmp_path / "missing.png") == "not-found"
    assert reason(tmp_path) == "not-an-image"
    for name, content in {"empty": b"", "page": b"<html><body>DICM</body></html>" * 20, "zeros": bytes(1000)}.items():
        (tmp_path / name).write_bytes(content)
        assert reason(tmp_path / name) == "not-an-image"


def png(folder: Path, values: np.ndarray) -> Path:
    """Write (H, W, C) of 16 bits, which Pillow cannot, as PNG."""
    rows, columns, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in (
        (b"IHDR", struct.pack(">2L5B", columns, rows, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines, 1)),
        (b"IEND", b""),
    ):
        content += struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))
    path = folder / "film.png"
    path.write_bytes(content)
    return path


def tiff(folder: Path, values: np.ndarray) -> Path:
    """Write (H, W, 3) of 16 bits, which Pillow cannot, as TIFF."""
    rows, columns, channels = values.shape
    data = values.astype("<u2").tobytes()
    tags = [
        (256, 4, 1, columns), (257, 4, 1, rows), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 14),
        (277, 3, 1, channels), (278, 4, 1, rows), (279, 4, 1, len(data)),
    ]  # fmt: skip
    bits = struct.pack("<3H", 16, 16, 16)
    content = b"II*\0" + struct.pack("<L", 14 + len(data)) + bits + data + struct.pack("<H", len(tags))
    content += b"".join(struct.pack("<2H2L", *tag) for tag in tags) + bytes(4)
    path = folder / "film.tif"
    path.write_bytes(content)
    return path


def ppm(folder: Path, values: np.ndarray) -> Path:
    path = folder / "film.ppm"
    path.write_bytes(b"P6 %d %d 65535\n" % values.shape[1::-1] + values.astype(">u2").tobytes())
    return path


@pytest.mark.parametrize("bits", [10, 12, 15, 16])
@pytest.mark.parametrize(("writer", "channels"), [(png, 2), (png, 3), (png, 4), (tiff, 3), (ppm, 3)])
def test_colours_of_sixteen_bits_that_use_few_are_never_left_black(
    tmp_path: Path, writer: Callable[[Path, np.ndarray], Path], channels: int, bits: int
) -> None:
    grey = np.random.default_rng(bits).integers(0, 1 << bits, (60, 70))
    values = np.stack([grey] * channels, axis=-1)
    if channels in (2, 4):
        values[..., -1] = 65535
    values[0, 0] = 65535  # a hot pixel
    path = writer(tmp_path, values)
    if bits == 16:
        assert np.allclose(read_radiograph(path).pixels[1:], grey[1:] / 65535, atol=1 / 200)
    else:
        assert reason(path) == "unsupported"


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_grey_of_sixteen_bits_in_a_png_is_read_as_before(tmp_path: Path, bits: int) -> None:
    grey = np.random.default_rng(bits).integers(0, 1 << bits, (60, 70))
    assert read_radiograph(png(tmp_path, grey[..., None])).pixels.mean() == pytest.approx(0.5, abs=0.02)
