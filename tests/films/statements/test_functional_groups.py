"""What a file states of its frames counts as what it states of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from edgecxr.films.read import read_radiograph
from tests.films.dicom_files import film, lookup, write
from tests.films.statements.test_free_text import statement

PIXELS = np.random.default_rng(0).integers(0, 4096, (64, 80)).astype(np.uint16)
SHARED, FRAMES = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
SCALE = {"RescaleSlope": "2", "RescaleIntercept": "-100"}


def group(macro: str, **elements: Any) -> Dataset:
    return statement(**{macro: [statement(**elements)]})


@settings(deadline=None, max_examples=30)
@given(
    center=st.integers(0, 4000), width=st.integers(2, 4000), frames=st.integers(1, 3),
    shape=st.sampled_from(["LINEAR", "SIGMOID", "LINEAR_EXACT"]), where=st.sampled_from([SHARED, FRAMES]),
    scaled=st.booleans(), syntax=st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]),
)  # fmt: skip
def test_the_window_of_the_first_frame_is_the_film_s(
    tmp_path_factory: pytest.TempPathFactory, center: int, width: int, frames: int, shape: str, where: str,
    scaled: bool, syntax: str,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("frames")
    window = {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": shape}
    scale = SCALE if scaled else {}
    many: dict[str, Any] = {"BitsStored": 12, "NumberOfFrames": frames, "PixelData": PIXELS.tobytes() * frames}
    plain = read_radiograph(write(film(PIXELS, **many, **window, **scale), folder, "plain.dcm"))
    first = group("FrameVOILUTSequence", **window)
    if scaled:
        first.update(group("PixelValueTransformationSequence", **scale))
    others = [group("FrameVOILUTSequence", WindowCenter=7, WindowWidth=9) for _ in range(frames - 1)]
    grouped = film(PIXELS, **many, **{where: [first, *others] if where == FRAMES else [first]})
    grouped.file_meta.TransferSyntaxUID = syntax
    radiograph = read_radiograph(write(grouped, folder))
    np.testing.assert_array_equal(radiograph.pixels, plain.pixels)
    assert radiograph.warnings == plain.warnings
    if where == FRAMES:  # the frame's own counts more than that of all
        setattr(grouped, SHARED, [group("FrameVOILUTSequence", WindowCenter=7, WindowWidth=9)])
        np.testing.assert_array_equal(read_radiograph(write(grouped, folder)).pixels, plain.pixels)


@given(own=st.sampled_from([{"WindowCenter": 2000, "WindowWidth": 3000}, {"VOILUTSequence": [lookup([0, 9], 5, 8)]}]))
@settings(deadline=None, max_examples=5)
def test_what_the_file_states_itself_counts(tmp_path_factory: pytest.TempPathFactory, own: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("own")
    plain = read_radiograph(write(film(PIXELS, BitsStored=12, **own), folder, "plain.dcm"))
    both = film(PIXELS, BitsStored=12, **own)
    both.SharedFunctionalGroupsSequence = [group("FrameVOILUTSequence", WindowCenter=7, WindowWidth=9)]
    np.testing.assert_array_equal(read_radiograph(write(both, folder)).pixels, plain.pixels)


@pytest.mark.parametrize(("macro", "elements"), [
    ("PixelMeasuresSequence", {"PixelSpacing": [0.2, 0.1]}),
    ("FramePixelDataPropertiesSequence", {"ImagerPixelSpacing": [0.2, 0.1]}),
    ("PatientOrientationInFrameSequence", {"PatientOrientation": ["R", "F"]}),
    ("FrameVOILUTSequence", {"VOILUTSequence": [lookup(list(range(0, 4096, 2)), 100, 12)]}),
    ("FrameDisplayShutterSequence", {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [30, 30],
                                     "RadiusOfCircularShutter": 20}),
    ("FrameAnatomySequence", {"AnatomicRegionSequence": [
        statement(CodeValue="72696002", CodingSchemeDesignator="SCT", CodeMeaning="Knee")]}),
])  # fmt: skip
def test_other_elements_of_the_frame_count_too(tmp_path: Path, macro: str, elements: dict[str, Any]) -> None:
    plain = read_radiograph(write(film(PIXELS, BitsStored=12, **elements), tmp_path, "plain.dcm"))
    nothing = read_radiograph(write(film(PIXELS, BitsStored=12), tmp_path, "nothing.dcm"))
    grouped = film(PIXELS, BitsStored=12, SharedFunctionalGroupsSequence=[group(macro, **elements)])
    radiograph = read_radiograph(write(grouped, tmp_path))
    np.testing.assert_array_equal(radiograph.pixels, plain.pixels)

    def facts(read: Any) -> tuple[Any, ...]:
        return read.aspect, read.warnings, read.objections

    assert facts(radiograph) == facts(plain)
    assert facts(plain) != facts(nothing) or not np.array_equal(plain.pixels, nothing.pixels)


@settings(deadline=None, max_examples=30)
@given(junk=st.binary(min_size=1, max_size=40), where=st.sampled_from([SHARED, FRAMES]))
def test_garbage_in_place_of_the_groups_is_no_reason_to_refuse_a_film(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, where: str
) -> None:
    folder = tmp_path_factory.mktemp("junk")
    dataset = film(PIXELS, BitsStored=12)
    plain = read_radiograph(write(dataset, folder, "plain.dcm"))
    content = (folder / "plain.dcm").read_bytes()
    place = content.rindex(b"\xe0\x7f\x10\x00OW")
    tag = b"\x00\x52\x29\x92SQ\0\0" if where == SHARED else b"\x00\x52\x30\x92SQ\0\0"
    junk += b"\0" * (len(junk) % 2)
    path = folder / "film.dcm"
    path.write_bytes(content[:place] + tag + len(junk).to_bytes(4, "little") + junk + content[place:])
    np.testing.assert_array_equal(read_radiograph(path).pixels, plain.pixels)
