from __future__ import annotations

import numpy as np
import pytest

from edgecxr.films.radiograph import Radiograph
from edgecxr.films.resize import INPUT_SIZES, SIZES, box_mean, model_input, to_base, upscale_warning


def coverage(length: int, size: int) -> np.ndarray:
    """(size, length) share of each output cell that each input pixel covers, straight from the definition."""
    weights = np.zeros((size, length))
    for i in range(size):
        low, high = i * length / size, (i + 1) * length / size
        for j in range(length):
            weights[i, j] = max(0.0, min(high, j + 1) - max(low, j)) / (high - low)
    return weights


@pytest.mark.parametrize(("height", "width"), [(7, 5), (13, 29), (5, 64), (9, 6)])
def test_area_resize_is_the_weighted_mean(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).random((height, width), np.float32)
    mean = coverage(height, 5) @ pixels.astype(np.float64) @ coverage(width, 5).T
    # Away from the rounding edge, where the brute force itself is not exact.
    clear = np.abs((255 * mean + 0.5) % 1 - 0.5) < 0.499
    assert clear.mean() > 0.9
    assert np.array_equal(to_base(pixels, 5)[clear], np.floor(255 * mean + 0.5)[clear])


def test_integer_ratio_is_the_exact_block_mean_rounded_half_up() -> None:
    # Eighths are exact in float32; block means of 2 x 3 pixels, worked out in integers.
    eighths = np.random.default_rng(1).integers(0, 9, (8, 12))
    sums = eighths.reshape(4, 2, 4, 3).sum(axis=(1, 3))
    expected = (2 * 255 * sums + 48) // 96
    assert np.array_equal(to_base((eighths / 8).astype(np.float32), 4), expected)


def test_half_is_rounded_up() -> None:
    assert to_base(np.array([[0.0, 1.0]] * 2, np.float32), 1).item() == 128  # 127.5


def test_right_size_is_left_alone() -> None:
    base = np.random.default_rng(2).integers(0, 256, (224, 224)).astype(np.uint8)
    assert np.array_equal(to_base((base / 255).astype(np.float32)), base)


def test_small_image_is_enlarged_bilinearly_on_the_short_axis_only() -> None:
    ramp = np.tile(np.array([[0.0], [1.0]], np.float32), (1, 8))
    ramp[:, 4:] = 0
    enlarged = to_base(ramp, 4)
    assert enlarged.shape == (4, 4)
    assert enlarged[:, 0].tolist() == [0, 64, 191, 255]  # 0, 1/4, 3/4, 1
    assert enlarged[:, 3].tolist() == [0, 0, 0, 0]


def test_film_is_not_turned_or_mirrored() -> None:
    pixels = np.zeros((600, 400), np.float32)
    pixels[:300, 200:] = 1
    base = to_base(pixels)
    assert base[:112, 112:].min() == 255
    assert base.sum() == 112 * 112 * 255


def test_box_mean_divides_exact_sums_once() -> None:
    base = np.random.default_rng(3).integers(0, 256, (2, 224, 224)).astype(np.uint8)
    for size in SIZES:
        k = 224 // size
        sums = [int(base[1, y * k : y * k + k, x * k : x * k + k].sum(dtype=int)) for y in (0, 5) for x in (1, 7)]
        small = box_mean(base, size)
        assert small.dtype == np.float32
        assert small.shape == (2, size, size)
        means = small[1][np.ix_((0, 5), (1, 7))].ravel()
        assert means.tolist() == [float(np.float32(s) / np.float32(255 * k * k)) for s in sums]


def test_white_stays_white_at_every_size() -> None:
    white = Radiograph(np.ones((300, 500), np.float32), "test")
    for size in INPUT_SIZES:
        image = model_input(white, size)
        assert image.shape == (1, 1, size, size)
        assert image.min() == 1.0


def test_a_teacher_of_448_px_sees_the_film_at_that_size() -> None:
    film = Radiograph(np.random.default_rng(4).random((900, 700), np.float32), "test")
    image = model_input(film, 448)
    assert image.dtype == np.float32
    assert np.array_equal(image[0, 0], to_base(film.pixels, 448) / np.float32(255))


def test_only_the_five_sizes_each_of_its_own_base() -> None:
    for base, size in ((224, 64), (224, 448), (448, 224), (448, 28)):
        with pytest.raises(ValueError, match=r"64 is not one of|cannot reshape"):
            box_mean(np.zeros((2, base, base), np.uint8), size)


@pytest.mark.parametrize(("shape", "small"), [((224, 224), False), ((2000, 223), True), ((100, 100), True)])
def test_warning_of_small_films(shape: tuple[int, int], small: bool) -> None:
    assert (upscale_warning(shape) is not None) == small
    assert (upscale_warning(shape, 448) or "").endswith("enlarged to 448 x 448")
