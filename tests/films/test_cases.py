"""Small files that were read wrongly once, with what is right; and other files of the same kinds, made here."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue

from edgecxr.errors import InputError
from edgecxr.films.display import LONG_SIDE, SHORT_SIDE
from edgecxr.films.image_file import from_array
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import read_film, read_radiograph
from edgecxr.films.shutter import MAX_CORNERS, _inside, shutter
from edgecxr.films.statements.against import objections_of
from edgecxr.films.statements.regions import region_warning
from edgecxr.films.statements.view import DESCRIPTIONS, stated_view, turn_of
from tests.films.dicom_files import film, lookup, write


def case(name: str) -> Path:
    root = os.environ.get("EDGECXR_CORPUS")
    if not root:
        pytest.skip("EDGECXR_CORPUS is not set")
    return Path(root).parent / "cases" / name


def reasons(radiograph: Radiograph) -> list[str]:
    return [objection.reason for objection in radiograph.objections]


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "expected"),
    [("lat_code_german", "view"), ("lat_patorient", "view"), ("anat_knee", "body-part"), ("bp_JP", None)],
)
def test_what_codes_and_orientation_state_is_heard(name: str, expected: str | None) -> None:
    assert reasons(read_radiograph(case(f"films/{name}.dcm"))) == ([expected] if expected else [])


@pytest.mark.corpus
def test_a_mirrored_film_is_turned() -> None:
    mirrored = read_radiograph(case("films/mirrored_R_F.dcm"))
    np.testing.assert_array_equal(mirrored.pixels, read_radiograph(case("films/uid_a.dcm")).pixels)
    assert any("mirrored" in warning for warning in mirrored.warnings)


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("forproc_raw", "unsupported"), ("for_processing_by_sop_class", "unsupported"), ("jxl", "undecodable"),
        ("ts_ge_private", "undecodable"), ("zeroed_jpeg", "undecodable"), ("jpegls_cut", "undecodable"),
        ("pixeldata_claims_2GiB", "malformed"), ("rows_twice", "malformed"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_has_its_reason(name: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        read_radiograph(case(f"films/{name}.dcm"))
    assert caught.value.reason == reason


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "mean", "word"),
    [
        ("lut_descr_mismatch", 0.448, "lookup table"), ("native_item", 0.448, None),
        ("no_spp", 0.448, "SamplesPerPixel"),
        ("pi_case", 0.448, "PhotometricInterpretation"), ("mono1_lower", 0.658, "PhotometricInterpretation"),
        ("bot_garbage", 0.658, "offsets"), ("bitsstored_10_of_12bit_data", 0.125, "BitsStored"),
        ("width_nan", 0.689, "window is broken"), ("shutter", 0.506, "shutter"),
    ],
)  # fmt: skip
def test_odd_films_are_read_with_a_warning(name: str, mean: float, word: str | None) -> None:
    radiograph = read_radiograph(case(f"films/{name}.dcm"))
    assert radiograph.pixels.mean() == pytest.approx(mean, abs=0.002)
    assert word is None or any(word in warning for warning in radiograph.warnings), radiograph.warnings


@pytest.mark.corpus
def test_a_range_of_padding_is_black_and_out_of_the_contrast() -> None:
    plain = read_radiograph(case("films/uid_a.dcm")).pixels
    padded = read_radiograph(case("films/padrange_window.dcm")).pixels
    assert padded.max() <= 1 and (padded[0] == 0).all() and (padded[:, 0] == 0).all()
    inside = padded > 0
    np.testing.assert_allclose(padded[inside], plain[inside], atol=1e-6)
    path = case("films/padding_range_mono1.dcm")
    assert (read_radiograph(path).pixels[dcmread(path).pixel_array <= 40] == 0).all()


@pytest.mark.corpus
def test_sixteen_bit_images_are_alike_however_few_pixels_are_hot() -> None:
    pictures = [read_radiograph(case(f"images/{name}.png")) for name in ("png14", "png14hot", "png15")]
    for picture in pictures:
        assert any("16 bits" in warning for warning in picture.warnings)
        assert abs(picture.pixels - pictures[0].pixels).mean() < 0.01


@pytest.mark.corpus
def test_tiff_files_are_upright_and_positive_and_a_cut_jpeg_is_refused() -> None:
    plain = read_radiograph(case("films/plain.dcm")).pixels
    for name in ("tiff16_whiteiszero", "tiff_orientation6"):
        assert abs(read_radiograph(case(f"images/{name}.tif")).pixels - plain).mean() < 0.01
    with pytest.raises(InputError) as caught:
        read_radiograph(case("images/jpeg_cut_eoi.jpg"))
    assert caught.value.reason == "malformed"


@pytest.mark.corpus
def test_a_picture_has_the_proportions_that_the_file_states() -> None:
    shown = read_film(case("films/pixel_aspect_2_1.dcm"), display=True).display
    assert shown is not None and shown.shape[0] / shown.shape[1] == pytest.approx(2 * 256 / 448, abs=0.005)


# ---- others of the same kinds


SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
NONSENSE = st.sampled_from([[0, 1], [1, 0], [-1, 1], [1e30, 1], [1], [1, 2, 3], None])


@settings(deadline=None, max_examples=30)
@given(
    shape=st.tuples(st.integers(40, 90), st.integers(40, 90)),
    sides=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    keyword=st.sampled_from([*SPACINGS, "PixelAspectRatio"]),
    nonsense=NONSENSE,
)
def test_pictures_have_square_pixels_whatever_states_that_the_film_s_are_not(
    tmp_path_factory: Any, shape: tuple[int, int], sides: tuple[int, int], keyword: str, nonsense: list[float] | None
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    height, width = sides
    elements: dict[str, Any] = {"PixelAspectRatio": [width, height], "ViewPosition": "PA"}  # counts less than a spacing
    elements |= dict.fromkeys(SPACINGS[:2], nonsense)
    elements[keyword] = [height, width] if keyword == "PixelAspectRatio" else [f"0.{height}", f"0.{width}"]
    path = write(film(pixels, **elements), tmp_path_factory.mktemp("aspect"))
    film_read = read_film(path, display=True)
    assert film_read.display is not None
    expected = shape[0] * height / (shape[1] * width)
    assert SHORT_SIDE <= max(film_read.display.shape) <= LONG_SIDE
    if 0.1 < height / width < 10:
        assert film_read.display.shape[0] / film_read.display.shape[1] == pytest.approx(expected, rel=0.05)
    plain = read_film(write(film(pixels, ViewPosition="PA"), path.parent, "plain.dcm"))
    np.testing.assert_array_equal(film_read.image, plain.image)


def coded(sequence: str, value: str, meaning: str = "") -> Dataset:
    item, dataset = Dataset(), Dataset()
    item.CodeValue, item.CodeMeaning = value, meaning
    setattr(dataset, sequence, [item])
    return dataset


@pytest.mark.parametrize(
    ("value", "view"),
    [
        ("272479007", "PA"), ("R-40888", "PA"), ("399348003", "AP"), ("R-10206", "AP"), ("399067008", "LL"),
        ("399173006", "LL"), ("399198007", "LL"), ("R-102CD", "LL"), ("399135007", "oblique"), ("399033003", "frontal"),
        ("no code", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("meaning", ["", "seitlich", "正面", "von hinten"])
def test_a_view_s_code_counts_whatever_its_meaning_is_called(value: str, view: str | None, meaning: str) -> None:
    stated, warnings = stated_view(coded("ViewCodeSequence", value, meaning))
    understood = {"seitlich": "LL", "正面": "frontal"}.get(meaning)
    assert stated == (view or understood)
    plane = "frontal" if view in ("PA", "AP") else view
    assert bool(warnings) == (None not in (view, understood) and plane != understood), "a contradiction is told"


def test_a_view_position_counts_more_than_a_meaning_and_contradictions_are_named() -> None:
    dataset = coded("ViewCodeSequence", "no code", "lateral")
    dataset.ViewPosition = "PA"
    view, (warning,) = stated_view(dataset)
    assert view == "PA" and "ViewPosition and CodeMeaning contradict" in warning


@pytest.mark.parametrize("value", ["85562004", "T-D8700", "72696002", "818981001", "122496007", "69536005"])
@pytest.mark.parametrize("part", ["", "HAND", "OTHER"])
def test_a_region_s_code_counts_where_the_body_part_says_nothing(value: str, part: str) -> None:
    dataset = coded("AnatomicRegionSequence", value)
    dataset.BodyPartExamined = part
    assert [objection.reason for objection in objections_of(dataset, "PA")] == ["body-part"]
    chest = coded("AnatomicRegionSequence", "816094009", "胸部")
    chest.BodyPartExamined = "胸部"
    assert objections_of(chest, "PA") == ()


def test_a_chest_by_code_that_is_a_hand_by_text_is_told() -> None:
    dataset = coded("AnatomicRegionSequence", "816094009", "Brustkorb")
    dataset.BodyPartExamined = "HAND"
    assert objections_of(dataset, "PA") == () and "HAND" in (region_warning(dataset) or "")
    dataset.BodyPartExamined = "CHEST"
    assert region_warning(dataset) is None


DIRECTIONS = st.text("APLRHF", min_size=1, max_size=3)


@given(rows=DIRECTIONS, columns=DIRECTIONS, view=st.sampled_from(["", "PA", "AP", "LL"]))
def test_orientation_tells_lateral_films_and_contradictions_are_named(rows: str, columns: str, view: str) -> None:
    dataset = Dataset()
    dataset.ViewPosition = view
    dataset.PatientOrientation = [rows, columns]
    lateral = {rows[0], columns[0]} & set("AP")
    stated, warnings = stated_view(dataset)
    assert stated == (view or ("LL" if lateral else "frontal"))
    assert bool(warnings) == bool(view and (view == "LL") != bool(lateral))
    sideways, mirrored, inverted = turn_of(dataset, stated)
    across, along = (columns[0], rows[0]) if rows[0] in "HF" else (rows[0], columns[0])
    plain = stated != "LL" and across in "LR" and along in "HF"
    assert sideways == (plain and rows[0] in "HF")
    assert (mirrored, inverted) == (plain and across == "R", plain and along == "H")


@settings(deadline=None, max_examples=20)
@given(rows=st.sampled_from("LR"), columns=st.sampled_from("HF"), seed=st.integers(0, 9), sideways=st.booleans())
def test_a_film_is_turned_back_to_what_it_was(
    tmp_path_factory: Any, rows: str, columns: str, seed: int, sideways: bool
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 4096, (70, 66)).astype(np.uint16)
    turned = pixels[:: -1 if columns == "H" else 1, :: -1 if rows == "R" else 1]
    turned, directions = (turned.T, [columns, rows]) if sideways else (turned, [rows, columns])
    folder = tmp_path_factory.mktemp("turned")
    plain = {"BitsStored": 12, "ViewPosition": "PA", "WindowCenter": 2048, "WindowWidth": 4096}
    path = write(film(np.ascontiguousarray(turned), PatientOrientation=directions, **plain), folder)
    expected = read_radiograph(write(film(pixels, **plain), folder, "plain.dcm"))
    radiograph = read_radiograph(path)
    np.testing.assert_array_equal(radiograph.pixels, expected.pixels)
    assert len(radiograph.warnings) - len(expected.warnings) == (sideways or rows == "R" or columns == "H")


@settings(deadline=None, max_examples=30)
@given(ends=st.tuples(st.integers(0, 400), st.integers(0, 400)), high=st.booleans(), mono1=st.booleans())
def test_padding_is_black_whatever_its_range_and_the_polarity(
    tmp_path_factory: Any, ends: tuple[int, int], high: bool, mono1: bool
) -> None:
    pixels = np.tile(np.arange(1000, 3000, 20, dtype=np.uint16), (100, 1))
    low, top = sorted(4095 - end if high else end for end in ends)
    pixels[:10] = np.linspace(low, top, 100).astype(np.uint16)
    elements = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 2000, "ViewPosition": "PA"}
    elements["PhotometricInterpretation"] = "MONOCHROME1" if mono1 else "MONOCHROME2"
    dataset = film(pixels, PixelPaddingValue=ends[0] if not high else 4095 - ends[0], **elements)
    dataset.add_new("PixelPaddingRangeLimit", "US", ends[1] if not high else 4095 - ends[1])
    grey = read_radiograph(write(dataset, tmp_path_factory.mktemp("padded"))).pixels
    assert (grey[:10] == 0).all() and grey[10:].max() > 0.9


@given(
    rows=st.integers(40, 90), columns=st.integers(40, 90), upper=st.integers(1, 15), left=st.integers(1, 15),
    lower=st.integers(26, 40), right=st.integers(26, 40), half=st.booleans(),
)  # fmt: skip
def test_a_rectangular_shutter_leaves_the_pixels_between_its_edges(
    rows: int, columns: int, upper: int, left: int, lower: int, right: int, half: bool
) -> None:
    dataset = Dataset()
    dataset.Rows, dataset.Columns, dataset.ShutterShape = rows, columns, "RECTANGULAR"
    dataset.ShutterUpperHorizontalEdge, dataset.ShutterLowerHorizontalEdge = upper, lower
    dataset.ShutterLeftVerticalEdge, dataset.ShutterRightVerticalEdge = left, right
    expected = np.zeros((rows, columns), bool)
    expected[upper - 1 : lower, left - 1 : right] = True
    visible, notes = shutter(dataset, (rows // 2, columns // 2) if half else (rows, columns))
    if visible is None:
        assert "hides nearly all" in notes[0] if notes else expected.mean() > 0.9
        assert expected.mean() < 0.1 or not notes, "a shutter that hides nearly all is a mistake"
    elif half:
        assert abs(visible.mean() - expected.mean()) < 0.1
    else:
        assert expected.mean() >= 0.05
        np.testing.assert_array_equal(visible, expected)


def test_circular_and_polygonal_shutters_and_malformed_ones() -> None:
    dataset = Dataset()
    dataset.Rows = dataset.Columns = 100
    dataset.ShutterShape, dataset.CenterOfCircularShutter, dataset.RadiusOfCircularShutter = "CIRCULAR", [50, 50], 40
    visible, _ = shutter(dataset, (100, 100))
    assert visible is not None and visible.mean() == pytest.approx(np.pi * 0.16, abs=0.01) and not visible[0, 0]
    dataset.ShutterShape = MultiValue(str, ["CIRCULAR", "POLYGONAL"])
    dataset.VerticesOfThePolygonalShutter = [1, 1, 1, 100, 100, 1]
    both, _ = shutter(dataset, (100, 100))
    assert both is not None and both.mean() == pytest.approx(visible.mean() / 2, abs=0.02) and not both[90, 90]
    for keyword, value, why in (
        ("RadiusOfCircularShutter", None, "malformed"), ("RadiusOfCircularShutter", 1, "hides nearly all"),
        ("ShutterShape", "BITMAP", "BITMAP is not supported"), ("ShutterShape", "ROUND", "not supported"),
        ("ShutterShape", "POLYGONAL", ""), ("VerticesOfThePolygonalShutter", [1, 1, 1], "malformed"),
        ("VerticesOfThePolygonalShutter", [1, 1, 1, 2**31 - 1, 9, 9], "malformed"),
        ("VerticesOfThePolygonalShutter", [1] * (2 * MAX_CORNERS + 2), "corners"),
    ):  # fmt: skip
        setattr(dataset, keyword, value)
        hidden, notes = shutter(dataset, (100, 100))
        assert (hidden is None and why in notes[0]) if why else hidden is not None


@settings(deadline=None, max_examples=40)
@given(
    spacing=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    keyword=st.sampled_from(["PixelSpacing", "PixelAspectRatio"]),
    center=st.tuples(st.integers(20, 40), st.integers(20, 40)), radius=st.integers(15, 30),
)  # fmt: skip
def test_a_circular_shutter_is_round_on_the_film_whatever_its_pixels_are(
    spacing: tuple[int, int], keyword: str, center: tuple[int, int], radius: int
) -> None:
    dataset = Dataset()
    dataset.Rows, dataset.Columns, dataset.ShutterShape = 60, 60, "CIRCULAR"
    dataset.CenterOfCircularShutter, dataset.RadiusOfCircularShutter = list(center), radius
    setattr(dataset, keyword, [str(value) for value in spacing])
    height, width = (value / spacing[1] for value in spacing)
    row, column = np.ogrid[1:61, 1:61]
    round_on_the_film = (height * (row - center[0])) ** 2 + (width * (column - center[1])) ** 2 <= radius**2
    visible, _ = shutter(dataset, (60, 60))
    np.testing.assert_array_equal(np.ones((60, 60), bool) if visible is None else visible, round_on_the_film)


@pytest.mark.parametrize("photometric", ["RGB", "PALETTE COLOR", "MONOCHROME2", "MONOCHROME1"])
def test_a_shutter_hides_the_same_of_each_kind_of_pixels(tmp_path: Path, photometric: str) -> None:
    grey = np.tile(np.arange(40, 240, 2, dtype=np.uint8), (100, 1))
    edges = {"ShutterShape": "RECTANGULAR", "ShutterLeftVerticalEdge": 11, "ShutterRightVerticalEdge": 90,
             "ShutterUpperHorizontalEdge": 21, "ShutterLowerHorizontalEdge": 80}  # fmt: skip
    pixels = np.repeat(grey[..., None], 3, 2) if photometric == "RGB" else grey
    dataset = film(pixels, PhotometricInterpretation=photometric, WindowCenter=128, WindowWidth=256, **edges)
    if photometric == "PALETTE COLOR":
        for colour in ("Red", "Green", "Blue"):
            setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 8])
            dataset[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"
            setattr(dataset, f"{colour}PaletteColorLookupTableData", bytes(range(256)))
    radiograph = read_radiograph(write(dataset, tmp_path))
    visible = np.zeros(grey.shape, bool)
    visible[20:80, 10:90] = True
    assert (radiograph.pixels[~visible] == 0).all() and (radiograph.pixels[visible] > 0).all()
    assert any("shutter was applied" in warning for warning in radiograph.warnings)


def test_a_bitmap_does_not_hide_the_other_shapes(tmp_path: Path) -> None:
    dataset = Dataset()
    dataset.Rows = dataset.Columns = 100
    dataset.ShutterShape, dataset.VerticesOfThePolygonalShutter = ["POLYGONAL", "BITMAP"], [1, 1, 1, 100, 100, 1]
    visible, notes = shutter(dataset, (100, 100))
    assert visible is not None and not visible[90, 90] and ["BITMAP" in note for note in notes] == [True, False]


@settings(deadline=None, max_examples=60)
@given(
    vertices=st.lists(st.tuples(st.integers(-5, 40), st.integers(-5, 40)), min_size=1, max_size=30),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)), scale=st.sampled_from([1, 2]),
)  # fmt: skip
def test_polygons_are_filled_by_the_even_odd_rule(
    vertices: list[tuple[int, int]], shape: tuple[int, int], scale: int
) -> None:
    rows, columns = (scale * (np.arange(side) + 0.5) + 0.5 for side in shape)
    expected = np.zeros(shape, bool)
    for (row, column), (last_row, last_column) in zip(vertices, vertices[-1:] + vertices[:-1], strict=True):
        for i, y in enumerate(rows):
            if (y < row) != (y < last_row):
                expected[i] ^= columns < (last_column - column) * (y - row) / (last_row - row) + column
    flat = [float(value) for vertex in vertices for value in vertex]
    np.testing.assert_array_equal(_inside(flat, rows, columns), expected)


def test_a_shutter_that_is_not_applied_is_told_unless_it_hides_nothing(tmp_path: Path) -> None:
    pixels = np.tile(np.arange(0, 4096, 32, dtype=np.uint16), (100, 1))
    edges = dict.fromkeys(("ShutterLeftVerticalEdge", "ShutterUpperHorizontalEdge"), 1)
    edges |= {"ShutterRightVerticalEdge": 128, "ShutterLowerHorizontalEdge": 100}
    for shape, is_warned in (("RECTANGULAR", False), ("CIRCULAR", True), ("ROUND", True), ("", False)):
        radiograph = read_radiograph(write(film(pixels, BitsStored=12, ShutterShape=shape, **edges), tmp_path))
        assert any("shutter" in warning for warning in radiograph.warnings) == is_warned


@settings(deadline=None)
@given(bits=st.integers(10, 15), hot=st.integers(0, 3), seed=st.integers(0, 99))
def test_a_few_hot_pixels_change_nothing_of_a_detector_s_image(bits: int, hot: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 1 << bits, (100, 80)).astype(np.uint16)
    expected = from_array(pixels)
    pixels[rng.integers(0, 100, hot), rng.integers(0, 80, hot)] = 65535
    radiograph = from_array(pixels)
    assert radiograph.warnings == expected.warnings != ()
    assert abs(radiograph.pixels - expected.pixels).mean() < 0.01


@settings(deadline=None, max_examples=30)
@given(share=st.floats(0.2, 0.9), seed=st.integers(0, 9))
def test_a_jpeg_that_was_cut_anywhere_and_ended_is_refused(tmp_path_factory: Any, share: float, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(128, 40, (200, 160))
    picture = Image.fromarray(np.clip(noise, 40, 215).astype(np.uint8))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    whole = stream.getvalue()
    path = tmp_path_factory.mktemp("cut") / "cut.jpg"
    path.write_bytes(whole)
    assert read_radiograph(path).pixels.shape == (200, 160)
    path.write_bytes(whole[: 700 + int(share * (len(whole) - 700))] + b"\xff\xd9")
    with pytest.raises(InputError) as caught:
        read_radiograph(path)
    assert caught.value.reason == "malformed"
    padded = np.vstack([np.asarray(picture), np.full((40, 160), 128, np.uint8)])
    Image.fromarray(padded).save(path, quality=100)
    assert not any("grey" in warning for warning in read_radiograph(path).warnings), "padding is no damage"


@pytest.mark.parametrize("entries", [2048, 8192])
def test_all_entries_of_a_lookup_table_are_used(tmp_path: Path, entries: int) -> None:
    pixels = np.tile(np.arange(0, 4096, 32, dtype=np.uint16), (100, 1))
    item = lookup([4095 * value // 4095 for value in range(4096)], 0, 12)
    right = read_radiograph(write(film(pixels, BitsStored=12, VOILUTSequence=[item]), tmp_path, "right.dcm"))
    item.LUTDescriptor = [entries, 0, 12]
    radiograph = read_radiograph(write(film(pixels, BitsStored=12, VOILUTSequence=[item]), tmp_path))
    np.testing.assert_array_equal(radiograph.pixels, right.pixels)
    assert any("lookup table" in warning for warning in radiograph.warnings)


CODES_OF_VIEWS = {
    "272479007": "PA",
    "399348003": "AP",
    "399067008": "LL",
    "399033003": "frontal",
    "399182000": "oblique",
}


@given(
    st.lists(st.sampled_from(sorted(CODES_OF_VIEWS)), min_size=1, max_size=3), st.sampled_from(["", "PA", "AP", "LL"])
)
def test_statements_of_two_views_are_named_whoever_makes_them(values: list[str], position: str) -> None:
    dataset = Dataset()
    dataset.ViewCodeSequence = [coded("ViewCodeSequence", value).ViewCodeSequence[0] for value in values]
    dataset.ViewPosition = position
    views = {CODES_OF_VIEWS[value] for value in values} | {position} - {""}
    planes = {"frontal" if view in ("PA", "AP") else view for view in views}
    assert len(stated_view(dataset)[1]) == (len(planes) > 1 or {"PA", "AP"} <= views)


@pytest.mark.parametrize("element", DESCRIPTIONS)
def test_words_about_a_film_say_that_it_is_lateral_unless_others_say_frontal(element: str) -> None:
    dataset = Dataset()
    setattr(dataset, element, "Chest LATERAL")
    assert stated_view(dataset) == ("LL", [])
    dataset.SeriesDescription, dataset.ProtocolName = "chest pa and lat", "chest lateral"
    assert stated_view(dataset) == (None, [])


def test_a_code_of_another_scheme_is_no_snomed_code() -> None:
    for scheme, refused in (("SCT", True), ("SRT", True), ("99LOCAL", False), ("L", False)):
        dataset = coded("AnatomicRegionSequence", "72696002")
        dataset.AnatomicRegionSequence[0].CodingSchemeDesignator = scheme
        assert bool(objections_of(dataset, None)) == refused
