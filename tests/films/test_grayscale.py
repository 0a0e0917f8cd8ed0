from __future__ import annotations

import numpy as np
from pydicom import Dataset

from edgecxr.films.grayscale import PERCENTILES, display_table, stretch

STORED = np.arange(256)
COUNTS = np.ones(256, np.int64)


def film(**elements) -> Dataset:
    dataset = Dataset()
    dataset.BitsStored = 8
    dataset.PhotometricInterpretation = "MONOCHROME2"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def test_padding_is_as_dark_as_air_also_where_low_values_are_white():
    inverted = film(PhotometricInterpretation="MONOCHROME1")
    plain, _ = display_table(inverted, STORED, COUNTS)
    inverted.add_new("PixelPaddingValue", "US", 0)
    padded, _ = display_table(inverted, STORED, COUNTS)
    assert (plain[0], padded[0]) == (1, 0)
    assert (padded[1:] == plain[1:]).all()


def test_a_modality_lut_of_one_value_is_ignored_and_said():
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [256, 0, 8])
    lut.add_new("LUTData", "OW", np.full(256, 7, "<u2").tobytes())
    table, warnings = display_table(film(ModalityLUTSequence=[lut]), STORED, COUNTS)
    assert np.isfinite(table).all()
    assert np.allclose(table, STORED / 255)
    assert any("modality LUT has one" in warning for warning in warnings)


def test_contrast_without_a_window_is_set_by_the_percentiles_of_numpy():
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 99, 100, 1000):
        values = rng.normal(size=size)
        low, high = np.percentile(values, PERCENTILES, method="nearest")
        expected = np.clip((values - low) / (high - low), 0, 1) if low < high else np.zeros(size)
        assert np.allclose(stretch(values, values), expected)
