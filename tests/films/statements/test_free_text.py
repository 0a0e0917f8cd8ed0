"""Free text and coded terms about view and region, in every element that may hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from edgecxr.errors import InputError
from edgecxr.films.read import read_radiograph
from edgecxr.films.statements.against import objections_of
from edgecxr.films.statements.regions import region_warning
from edgecxr.films.statements.view import SERIES, WIDER, stated_view
from tests.films.dicom_files import DX_FOR_PRESENTATION, film, write

ELEMENTS = st.sampled_from([*SERIES, *WIDER])
SIDES = st.sampled_from(["", "left", "R", "rechts", "2 Monate", "bedside"])
ENDS = st.sampled_from([" ", "_", ", ", " / ", "-"])
OTHERS = st.sampled_from([
    "HAND", "Knee", "Schädel", "Abdomen", "Lumbar spine", "C-Spine", "Hüfte", "genou", "Rodilla", "Becken", "foot",
    "LWS", "BWS", "Thoracic spine", "Brustwirbelsäule", "Columna dorsal", "XR KNEE", "crâne", "Épaule", "腰椎", "骨盤",
])  # fmt: skip
CHESTS = st.sampled_from([
    "CHEST", "Thorax", "Tórax", "Poumon", "Lunge", "CXR", "Ribs", "胸部", "胸", "ОГК", "흉부", "Brustkorb", "W Chest",
])  # fmt: skip
LATERALS = st.sampled_from([
    "seitlich", "seitl.", "perfil", "profil", "LAT", "Lat.", "LL", "L-L", "lateral", "2. Ebene", "侧位", "側面",
    "latérale", "boczne", "боковая", "II. Ebene", "II Ebene", "2.Eb.", "LATL", "lateralleft", "RightLateral", "LTLAT",
    "lateraal", "zij", "zijopname", "zijwaarts", "boční", "bočna", "бочни", "бок", "бічна", "странична", "sidebillede",
    "sidebilde", "Sidobild", "sivukuva", "oldalirányú", "külgvaade", "šoninė", "ΠΛΑΓΙΑ", "πλάγια", "laterală", "LAT1",
    "lateralno", "mediolateral", "latero-medial", "XTL", "profile view", "nghiêng", "측면", "側方", "צדדי",
    "ด้านข้าง", "hliðarmynd", "yan grafi", "akciğer yan",
])  # fmt: skip
FRONTALS = st.sampled_from(["PA", "AP", "p.a.", "A.P.", "de face", "frente", "frontal", "decubitus", "正面"])


def statement(**elements: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def reasons(dataset: Dataset) -> list[str]:
    return [objection.reason for objection in objections_of(dataset, stated_view(dataset)[0])]


@given(
    element=ELEMENTS, other=OTHERS, chest=CHESTS, side=SIDES, end=ENDS, where=ELEMENTS, first=st.booleans()
)  # fmt: skip
def test_a_part_in_free_text_is_an_objection_only_where_words_about_the_series_name_it_first(
    element: str, other: str, chest: str, side: str, end: str, where: str, first: bool
) -> None:
    text = end.join([side, other] if first else [other, side])
    of_study = element in WIDER
    alone = statement(**{element: text})
    assert reasons(alone) == ([] if of_study else ["body-part"])
    warning = region_warning(alone)
    assert (warning is not None) == of_study and (warning is None or element in warning)
    if where != element:
        both = statement(**{element: text, where: chest})
        assert reasons(both) == (["body-part"] if not of_study and where in WIDER else [])
        assert (region_warning(both) is not None) == (of_study or where in WIDER), "they differ"
    assert reasons(statement(**{element: f"{chest}{end}{other}"})) == []
    assert reasons(statement(**{element: text, "BodyPartExamined": "CHEST"})) == []
    quoted = [objection.message for objection in objections_of(statement(**{element: f"Meyer {text}"}), None)]
    quoted += [region_warning(statement(**{element: f"Meyer {text}"})) or ""]
    assert any(quoted) and "MEYER" not in " ".join(quoted).upper(), "no more of the text than the part is quoted"


@pytest.mark.parametrize(
    ("series", "study", "refused"),
    [
        ("PA ERECT", "ACUTE ABDOMEN SERIES", False), ("AP supine", "Pre-op hip", False),
        ("ABDOMEN AP", "XR CHEST AND ABDOMEN", True),
    ],
)  # fmt: skip
def test_parts_that_a_study_s_words_name_are_warned_of(series: str, study: str, refused: bool) -> None:
    dataset = statement(SeriesDescription=series, StudyDescription=study)
    assert reasons(dataset) == (["body-part"] if refused else [])
    assert "StudyDescription" in (region_warning(dataset) or "")


UNKNOWN = st.sampled_from([
    *("PORTABLE", "BEDSIDE", "ICU", "ROUTINE", "MISC", "BODY", "TRUNK", "SONSTIGE", "X1", "ZZZ TOP"),
])  # fmt: skip


@given(part=UNKNOWN, element=ELEMENTS, chest=CHESTS, other=OTHERS)
def test_an_unknown_body_part_counts_only_where_no_text_names_the_chest(
    part: str, element: str, chest: str, other: str
) -> None:
    assert reasons(statement(BodyPartExamined=part)) == ["body-part"]
    assert reasons(statement(BodyPartExamined=part, **{element: f"{chest} AP"})) == []
    assert reasons(statement(BodyPartExamined=part, **{element: other})) == ["body-part"]
    assert reasons(statement(BodyPartExamined="HAND", **{element: f"{chest} AP"})) == ["body-part"], "a known one"


@pytest.mark.parametrize(
    "word",
    [
        *("Klatka piersiowa", "KLATKA", "borstkas", "mellkas", "Bryst", "bröstkorg", "hrudník", "göğüs", "akciğer"),
        *("keuhkot", "pľúca", "płuca", "plíce", "plicní", "PLIC", "THX", "PLEURA", "CARDIAC"),
    ],
)
def test_the_chest_is_understood_in_more_languages(word: str) -> None:
    assert reasons(statement(BodyPartExamined=word)) == []
    assert reasons(statement(SeriesDescription=f"{word}, knee", StudyDescription="Hand")) == []


@pytest.mark.parametrize("word", ["duplicate", "explicit", "pluck", "thxy", "plica"])
def test_words_that_only_contain_a_word_for_the_chest_do_not_name_it(word: str) -> None:
    assert reasons(statement(SeriesDescription=f"{word} hand")) == ["body-part"]


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("AP head of bed 30", False), ("Head elevated", False), ("head 45 deg", False), ("HEAD OF THE BED", False),
        ("head at 30", False), ("head up", False), ("head", True), ("Head AP", True), ("head 2 views", True),
    ],
)  # fmt: skip
def test_the_head_of_a_bed_is_no_head(text: str, refused: bool) -> None:
    assert reasons(statement(SeriesDescription=text)) == (["body-part"] if refused else [])


@given(element=ELEMENTS, text=st.text("abcdefghijklmnopqrstuvwxyz 0123456789", max_size=30))
def test_only_whole_words_of_a_list_count(element: str, text: str) -> None:
    glued = "".join(f"x{word}x " for word in text.split())
    assert reasons(statement(**{element: glued})) == []


@given(element=ELEMENTS, chest=CHESTS, lateral=LATERALS, frontal=FRONTALS, end=ENDS, first=st.booleans())
def test_lateral_in_any_language_is_heard_unless_both_are_named_or_it_is_of_a_study(
    element: str, chest: str, lateral: str, frontal: str, end: str, first: bool
) -> None:
    text = end.join([chest, lateral] if first else [lateral, chest])
    assert reasons(statement(**{element: text})) == ([] if element in WIDER else ["view"])
    view, warnings = stated_view(statement(**{element: text}))
    assert view == (None if element in WIDER else "LL") and len(warnings) == (element in WIDER)
    assert all(f"{element} names" in warning for warning in warnings)
    for both in (f"{text} {frontal}", f"{frontal}{end}{text}", f"{text}, 2 views", f"{chest} in 2 Ebenen"):
        assert stated_view(statement(**{element: both})) == (None, [])
    view, warnings = stated_view(statement(**{element: text, "ViewPosition": "PA"}))
    assert view == "PA" and bool(warnings) == (element in SERIES)
    assert stated_view(statement(**{element: f"{chest} {frontal}", "ViewPosition": "PA"})) == ("PA", [])


@pytest.mark.parametrize("value", ["ML", "LM", "sagittal", "PROFILE", "Yan", "side", "oldal", "XTL", "LATERAAL", "ZIJ"])
def test_whole_values_of_the_view_s_own_elements_name_lateral_views(value: str) -> None:
    meaning = statement(CodeValue="7", CodingSchemeDesignator="99X", CodeMeaning=value)
    for said in ({"ViewPosition": value}, {"ViewCodeSequence": [meaning]}):
        assert stated_view(statement(**said))[0] == "LL" and reasons(statement(**said)) == ["view"]
    assert stated_view(statement(ViewPosition=f"PA {value}"))[0] == "PA"


@given(
    element=st.sampled_from(SERIES), chest=CHESTS, frontal=FRONTALS, first=st.booleans(),
    text=st.sampled_from([
        "low dose profile", "Profile 2", "20 ml", "ML", "LM", "Dr. Yan", "Yan Li", "left side down", "bilateral",
        "laterality", "sagittal", "zijligging links", "op linker zij", "op de zij", "sideleje", "sidoläge",
        "на левый бок", "на бок", "later", "latex", "bocce", "contralateral", "oldal", "SIDE",
    ]),
)  # fmt: skip
def test_words_that_may_be_anything_name_no_lateral_view(
    element: str, chest: str, frontal: str, text: str, first: bool
) -> None:
    said = f"{chest} {text}" if first else f"{text} {chest}"
    assert reasons(statement(**{element: said})) == []
    assert reasons(statement(**{element: f"{said} {frontal}"})) == []
    assert stated_view(statement(**{element: said, "ViewPosition": "PA"})) == ("PA", [])


@given(frontal=st.sampled_from([
    "PA", "AP", "frontaal", "předozadní", "ΠΡΟΣΘΙΑ", "zijligging", "sideleie", "PA ve yan", "πλάγια κατάκλιση",
]))  # fmt: skip
def test_frontal_words_of_more_languages_stay_accepted(frontal: str) -> None:
    for element in (*SERIES, "ViewPosition"):
        assert reasons(statement(**{element: frontal})) == []
        assert reasons(statement(**{element: f"Thorax {frontal}"})) == []


@pytest.mark.parametrize("text", ["ChestLateral", "CHESTLAT", "Chest_Lat", "ThoraxLL", "CXRLAT", "TORAXLATERAL"])
@pytest.mark.parametrize("element", ["SeriesDescription", "ProtocolName", "ViewPosition"])
def test_chest_and_lateral_typed_as_one_word_are_heard(element: str, text: str) -> None:
    assert stated_view(statement(**{element: text}))[0] == "LL"


@given(
    text=st.sampled_from([
        "Thorax 1. und 2. Ebene", "XR CHEST W LATERAL", "CHEST AND LATERAL", "CHEST W/ LAT", "胸部正侧位", "胸部正側位",
        "Thorax PA+LAT", "ОГК 2 проекции боковая", "ОГК в двух проекциях, боковая", "Thorax mit seitlich",
        "Thorax I. und II. Ebene", "Thorax 1.Eb. u. 2.Eb.", "Thorax 1.+2.Eb.", "Thorax II Ebenen", "Thorax in 2 Eb.",
    ]),
    element=ELEMENTS, series=st.sampled_from(["W Chest", "DR"]),
)  # fmt: skip
def test_words_for_both_views_say_nothing_of_one_film(text: str, element: str, series: str) -> None:
    assert stated_view(statement(**{element: text})) == (None, [])
    dataset = statement(**{"SeriesDescription": series} | {element: text})
    assert reasons(dataset) == []


@given(element=st.sampled_from(WIDER), series=st.sampled_from(["W Chest", "DR"]), lateral=LATERALS)
def test_a_view_in_words_about_a_study_is_quoted_and_no_objection(element: str, series: str, lateral: str) -> None:
    for text, word in (("Chest ?LL pneumonia", "LL"), ("Meyer LAO", "LAO"), (f"Chest {lateral}", "")):
        dataset = statement(**{element: text, "SeriesDescription": series})
        view, (warning,) = stated_view(dataset)
        assert view is None and reasons(dataset) == []
        assert f"{element} names {word}" in warning and "Meyer" not in warning
    dataset = statement(**dict.fromkeys(WIDER, "lateral"))
    assert len(stated_view(dataset)[1]) == 1


@given(wider=st.sampled_from(WIDER), chest=CHESTS, lateral=LATERALS, frontal=FRONTALS)
def test_words_about_a_series_count_more_than_those_about_a_study(
    wider: str, chest: str, lateral: str, frontal: str
) -> None:
    both = f"{chest} {frontal} and {lateral}"
    assert stated_view(statement(**{wider: both, "SeriesDescription": f"{chest} {lateral}"}))[0] == "LL"
    assert stated_view(statement(**{wider: f"{chest} {lateral}", "SeriesDescription": frontal}))[0] is None


@given(element=st.sampled_from(SERIES), other=OTHERS, chest=CHESTS)
def test_a_series_of_another_part_contradicts_the_chest(element: str, other: str, chest: str) -> None:
    warning = region_warning(statement(**{element: other, "BodyPartExamined": "CHEST"}))
    assert warning is not None and element in warning and "BodyPartExamined" in warning
    assert region_warning(statement(**{element: chest, "BodyPartExamined": "CHEST"})) is None


def coded(**elements: str) -> Dataset:
    return statement(CodeMeaning="seitlich, Knie", **elements)


SCHEMES = (
    "SCT",
    "SRT",
    "SNOMED-CT",
    "2.16.840.1.113883.6.96",
    "urn:oid:2.16.840.1.113883.6.96",
    "http://snomed.info/sct",
)
URNS = ("http://snomed.info/id/{}", "urn:oid:2.16.840.1.113883.6.96:{}")


@pytest.mark.parametrize(
    ("sequence", "value", "reason"),
    [
        ("ViewCodeSequence", "399067008", "view"), ("AnatomicRegionSequence", "72696002", "body-part"),
        ("PrimaryAnatomicStructureSequence", "85562004", "body-part"),
    ],
)  # fmt: skip
def test_a_code_counts_however_it_is_written(sequence: str, value: str, reason: str) -> None:
    items = [
        statement(**{keyword: value}, CodingSchemeDesignator=scheme, CodeMeaning="?")
        for keyword in ("CodeValue", "LongCodeValue")
        for scheme in SCHEMES
    ]
    items += [statement(URNCodeValue=urn.format(value), CodeMeaning="?") for urn in URNS]
    items += [statement(CodeValue="7", CodingSchemeDesignator="99X", EquivalentCodeSequence=[item]) for item in items]
    for item in items:
        assert reasons(statement(**{sequence: [item]})) == [reason], item
    for scheme in ("FMA", "99ACME", "L"):
        item = statement(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning="?")
        assert reasons(statement(**{sequence: [item]})) == []


@given(
    sequence=st.sampled_from(["AnatomicRegionSequence", "PrimaryAnatomicStructureSequence"]),
    other=OTHERS,
    chest=CHESTS,
    scheme=st.sampled_from(["99ACME", "FMA", "SCT"]),
)
def test_the_meaning_of_an_unknown_code_counts_as_words_do(sequence: str, other: str, chest: str, scheme: str) -> None:
    item = statement(CodeValue="9712", CodingSchemeDesignator=scheme, CodeMeaning=other)
    assert reasons(statement(**{sequence: [item]})) == ["body-part"]
    for elements in ({"BodyPartExamined": "CHEST"}, {"SeriesDescription": chest}):
        assert reasons(statement(**{sequence: [item]}, **elements)) == []


PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"


@settings(deadline=None, max_examples=40)
@given(
    own=st.sampled_from([None, DX_FOR_PRESENTATION[:-2], PROCESSING]),
    meta=st.sampled_from([DX_FOR_PRESENTATION[:-2], PROCESSING]),
    intent=st.sampled_from(["", "FOR PRESENTATION", "FOR_PROCESSING", "For Processing", "FOR PROCESSING"]),
)
def test_an_image_for_processing_is_seen_wherever_it_is_said(
    tmp_path_factory: pytest.TempPathFactory, own: str | None, meta: str, intent: str
) -> None:
    dataset = film(np.arange(4096, dtype=np.uint16).reshape(64, 64), SOPClassUID=own, PresentationIntentType=intent)
    dataset.file_meta.MediaStorageSOPClassUID = meta
    path = tmp_path_factory.mktemp("intent") / "film.dcm"
    dataset.save_as(path)
    if (own or meta) == PROCESSING or "PROC" in intent.upper():
        with pytest.raises(InputError, match="FOR PROCESSING"):
            read_radiograph(path)
    else:
        read_radiograph(path)


def test_words_reach_the_reader_from_every_element_and_character_set(tmp_path: Path) -> None:
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    for element in (*SERIES, *WIDER):
        refused = element in SERIES
        words = {element: "胸部 側面", "SpecificCharacterSet": "ISO_IR 192"}
        read = read_radiograph(write(film(pixels, **words), tmp_path))
        assert [objection.reason for objection in read.objections] == ["view"] * refused
        assert read.view == ("LL" if refused else None)
        assert any(f"{element} names 側面" in warning for warning in read.warnings) != refused
        read = read_radiograph(write(film(pixels, **{element: "Knie links"}), tmp_path))
        assert [objection.reason for objection in read.objections] == ["body-part"] * refused
        assert any(f"{element} names KNIE" in warning for warning in read.warnings) != refused
