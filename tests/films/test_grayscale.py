from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from edgecxr.errors import InputError
from edgecxr.films.grayscale import PERCENTILES, display_table, stretch
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import read_radiograph
from tests.films.dicom_files import film as dicom_film
from tests.films.dicom_files import lookup, write

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


# --- what files state of their values, with what is right; the inputs are made here

QUICK = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
RAMP = np.arange(1 << 14, dtype=np.uint16).reshape(128, 128)
FOURTEEN = {"BitsStored": 14, "WindowCenter": 8000, "WindowWidth": 12000}


def read(factory: pytest.TempPathFactory, dataset: Dataset) -> Radiograph:
    return read_radiograph(write(dataset, factory.mktemp("film")))


def has_warning(radiograph: Radiograph, words: str) -> bool:
    return any(words in warning for warning in radiograph.warnings)


@QUICK
@given(
    used=st.integers(4, 16), stated=st.integers(1, 16), top=st.floats(0.51, 1), hot=st.integers(0, 3),
    size=st.integers(4000, 16384), rises=st.booleans(),
)  # fmt: skip
def test_lookup_tables_of_other_bits_than_stated_are_shown_alike_and_told(
    tmp_path_factory: pytest.TempPathFactory, used: int, stated: int, top: float, hot: int, size: int, rises: bool
) -> None:
    largest = (1 << used) - 1
    darker = used + 1 == stated < 16  # a table need not use all of its range
    white = (1 << stated) - 1 if darker else largest
    entries = np.rint(np.linspace(0, top * largest, size)).astype(np.uint16)
    entries = entries if rises else entries[::-1].copy()
    expected = entries[np.minimum(RAMP, size - 1)] / white
    entries[size // 2 : size // 2 + hot] = 65535  # a few odd entries
    item = lookup(entries.tolist(), 0, stated)
    radiograph = read(tmp_path_factory, dicom_film(RAMP, BitsStored=14, VOILUTSequence=[item]))
    same = np.ones(RAMP.shape, bool)
    same.ravel()[size // 2 : size // 2 + hot] = False
    assert np.allclose(radiograph.pixels[same], expected[same], atol=1e-5)
    assert has_warning(radiograph, f"entries of {used} bits") == (used != stated and not darker)


@QUICK
@given(stated=st.integers(9, 15), low=st.floats(0.3, 0.49), high=st.floats(0.51, 0.7))
def test_a_table_that_is_a_little_darker_gives_a_film_that_is_a_little_darker(
    tmp_path_factory: pytest.TempPathFactory, stated: int, low: float, high: float
) -> None:
    means = []
    for top in (low, high):
        entries = np.rint(np.linspace(0, top * ((1 << stated) - 1), 16384)).astype(np.uint16)
        dataset = dicom_film(RAMP, BitsStored=14, VOILUTSequence=[lookup(entries.tolist(), 0, stated)])
        means.append(read(tmp_path_factory, dataset).pixels.mean())
    assert means[1] / means[0] == pytest.approx(high / low, rel=0.02)


BROKEN = st.sampled_from(["0,85", "nan", "inf", "-2500,0", "1e999", "abc", "--", "1.2.3", "0x10"])


@QUICK
@given(broken=BROKEN, keyword=st.sampled_from(["RescaleSlope", "RescaleIntercept"]), inverted=st.booleans())
def test_a_broken_rescale_is_told_and_no_window_is_taken_for_its_values(
    tmp_path_factory: pytest.TempPathFactory, broken: str, keyword: str, inverted: bool
) -> None:
    window = {"BitsStored": 14, "WindowCenter": 400, "WindowWidth": 700}
    polarity = {"PhotometricInterpretation": "MONOCHROME1" if inverted else "MONOCHROME2"}
    plain = read(tmp_path_factory, dicom_film(RAMP, BitsStored=14, **polarity))
    dataset = dicom_film(RAMP, **window, **polarity)
    tag = Tag(keyword)
    value = broken.encode() + b" " * (len(broken) % 2)
    dataset[tag] = RawDataElement(tag, "DS", len(value), value, 0, False, True)
    radiograph = read(tmp_path_factory, dataset)
    assert has_warning(radiograph, f"{keyword} is broken ({broken})") and has_warning(radiograph, "percentiles")
    np.testing.assert_array_equal(radiograph.pixels, plain.pixels)


def test_several_values_of_a_slope_are_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    single = read(tmp_path_factory, dicom_film(RAMP, **FOURTEEN, RescaleSlope="0.85"))
    two = read(tmp_path_factory, dicom_film(RAMP, **FOURTEEN, RescaleSlope=["0.85", "1"]))
    np.testing.assert_array_equal(single.pixels, two.pixels)
    assert has_warning(two, "RescaleSlope has 2 values") and not has_warning(single, "RescaleSlope")


@QUICK
@given(bits=st.integers(9, 15), high=st.integers(0, 15), signed=st.booleans(), shifted=st.booleans())
def test_values_are_shifted_where_the_words_agree_with_high_bit(
    tmp_path_factory: pytest.TempPathFactory, bits: int, high: int, signed: bool, shifted: bool
) -> None:
    values = np.random.default_rng(bits).integers(0, 1 << bits, (60, 50))
    values = values - (1 << (bits - 1)) if signed else values
    window = {"BitsStored": bits, "WindowCenter": int(values.mean()), "WindowWidth": 1 << bits}
    stored = values.astype(np.int16 if signed else np.uint16)
    plain = read(tmp_path_factory, dicom_film(stored, **window))
    up = max(0, high + 1 - bits) if shifted else 0
    radiograph = read(tmp_path_factory, dicom_film(stored << up, **window, HighBit=high))
    np.testing.assert_array_equal(radiograph.pixels, plain.pixels)
    assert has_warning(radiograph, "HighBit") == (high != bits - 1 and (not shifted or high < bits - 1))


@QUICK
@given(
    bits=st.integers(9, 15), signed=st.booleans(), word=st.integers(0, 65535), low=st.booleans(),
    limit=st.integers(0, 9), inverted=st.booleans(), kind=st.sampled_from(["US", "SS"]), both=st.booleans(),
)  # fmt: skip
def test_padding_is_black_whatever_bits_it_has(
    tmp_path_factory: pytest.TempPathFactory, bits: int, signed: bool, word: int, low: bool, limit: int,
    inverted: bool, kind: str, both: bool,
) -> None:  # fmt: skip
    values = np.random.default_rng(bits).integers(0, 1 << bits, (60, 50)) - ((1 << (bits - 1)) if signed else 0)
    stored = values.astype(np.int16).view(np.uint16) & 0xFFFF
    word = max(word, limit)
    padding = np.arange(word - limit, word + 1)
    hypothesis.assume(32767 not in padding[:-1] and not (signed and 32768 in padding[1:]))
    stored[np.isin(stored, padding)] ^= 256
    clean, shape = stored.copy(), {"BitsStored": bits, "PixelRepresentation": int(signed)}
    shape["PhotometricInterpretation"] = "MONOCHROME1" if inverted else "MONOCHROME2"
    window = {"WindowCenter": float(values.mean()), "WindowWidth": 1 << bits}
    stored[:20] = np.random.default_rng(word).choice(padding, (20, 50))
    dataset = dicom_film(stored, **shape, **window)
    ends = padding[[0, -1]] if low else padding[[-1, 0]]
    for keyword, end in zip(("PixelPaddingValue", "PixelPaddingRangeLimit")[: 1 + both], ends, strict=False):
        dataset.add_new(keyword, kind, int(end) - 65536 if kind == "SS" and end > 32767 else int(end))
    if not both:
        stored[:20] = ends[0]
        dataset.PixelData = stored.tobytes()
    radiograph = read(tmp_path_factory, dataset)
    assert (radiograph.pixels[:20] == 0).all()
    plain = read(tmp_path_factory, dicom_film(clean, **shape, **window))
    np.testing.assert_array_equal(radiograph.pixels[20:], plain.pixels[20:])


def test_a_padding_limit_without_a_value_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    dataset = dicom_film(np.where(RAMP < 3000, 16383, RAMP).astype(np.uint16), **FOURTEEN)
    dataset.add_new("PixelPaddingRangeLimit", "US", 16383)
    radiograph = read(tmp_path_factory, dataset)
    assert has_warning(radiograph, "PixelPaddingRangeLimit alone") and (radiograph.pixels.ravel()[:3000] == 0).all()


def test_padding_that_is_all_of_a_film_is_ignored_and_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    dataset = dicom_film(RAMP, **FOURTEEN, PixelPaddingValue=0)
    dataset.add_new("PixelPaddingRangeLimit", "US", 65535)
    radiograph = read(tmp_path_factory, dataset)
    assert has_warning(radiograph, "is padding")
    np.testing.assert_array_equal(radiograph.pixels, read(tmp_path_factory, dicom_film(RAMP, **FOURTEEN)).pixels)
    with pytest.raises(InputError, match="blank"):
        read(tmp_path_factory, dicom_film(np.zeros_like(RAMP), **FOURTEEN, PixelPaddingValue=0))


@QUICK
@given(
    before=st.sampled_from(["", " ", "  "]), after=st.sampled_from(["", " "]), lower=st.booleans(),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]), shape=st.sampled_from(["INVERSE", "IDENTITY"]),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)  # fmt: skip
def test_spaces_around_a_code_and_its_case_mean_nothing(
    tmp_path_factory: pytest.TempPathFactory, before: str, after: str, lower: bool, photometric: str, shape: str,
    function: str,
) -> None:  # fmt: skip
    def spelt(code: str) -> str:
        return f"{before}{code.lower() if lower else code}{after}"

    codes = {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape, "VOILUTFunction": function}
    plain = read(tmp_path_factory, dicom_film(RAMP, **FOURTEEN | codes))
    spaced = read(tmp_path_factory, dicom_film(RAMP, **FOURTEEN | {key: spelt(code) for key, code in codes.items()}))
    np.testing.assert_array_equal(plain.pixels, spaced.pixels)
    assert set(plain.warnings) <= set(spaced.warnings)
