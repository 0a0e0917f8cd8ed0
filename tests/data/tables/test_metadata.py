"""A column is metadata by its name; values alone do not make it so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecxr.data.tables.labels import SETS
from edgecxr.data.tables.metadata import is_metadata

FINDINGS = sorted({label for labels in SETS.values() for label in labels})
VALUES = st.sampled_from(
    [["M", "F"], ["f", "u"], ["f", "m"], ["PA", "AP"], ["2024-01-05", ""], ["1024x1024"], ["a/b.png"]]
)


def test_no_name_of_a_finding_is_taken_for_metadata() -> None:
    for label in {label for labels in SETS.values() for label in labels}:
        for name in (label, label.upper(), label.replace(" ", "_")):
            assert not is_metadata(name, ["M", "F"] * 3)
    for name in ("heart size", "chest tube", "lung volume", "class_id", "Befund", "status", "device", "reader 1"):
        assert not is_metadata(name)


@given(
    finding=st.sampled_from([*FINDINGS, "Fracture", "TB", "tube", "opacities", "Pneumonie", "Erguss"]),
    word=st.sampled_from(["position", "date", "since", "?", "side", "number", "Size", "of the patient", "_DICOM"]),
    cells=VALUES,
    before=st.booleans(),
)
def test_no_word_of_metadata_hides_a_finding(finding: str, word: str, cells: list[str], before: bool) -> None:
    assert not is_metadata(f"{word} {finding}" if before else f"{finding} {word}", cells * 3)


@given(name=st.text("bcdfghjklmnpqrstvwz", min_size=5, max_size=9), cells=VALUES)
def test_values_alone_make_no_metadata(name: str, cells: list[str]) -> None:
    assert is_metadata(name, cells * 3) <= is_metadata(name)


def test_a_date_that_only_some_films_have_is_no_metadata_by_its_values() -> None:
    assert is_metadata("onset date", ["2024-01-05", "2024-01-06"])
    assert not is_metadata("onset date", ["2024-01-05", ""])
    assert is_metadata("study date", ["2024-01-05", ""])


@pytest.mark.parametrize(
    ("name", "cells"),
    [("Sex (m/f)", ["m", "f"]), ("view seen", ["PA", "AP"]), ("date seen", ["2024-01-05"]), ("size", ["8x8"])],
)
def test_values_and_a_word_of_the_name_do(name: str, cells: list[str]) -> None:
    assert is_metadata(name, cells * 3)


RESULTS = st.sampled_from(
    [["positive", "negative"], ["pathological", "normal"], ["abnormal", "normal"], ["yes", "no"], ["ja", "nein"]]
)


@given(
    name=st.sampled_from(["Examination", "Current", "Series 2", "Exam", "Study", "Acquisition", "Instance"]),
    cells=RESULTS,
)
def test_a_column_with_results_is_no_metadata_whatever_it_is_called(name: str, cells: list[str]) -> None:
    assert not is_metadata(name, cells * 3)


@given(
    word=st.sampled_from(["Study", "Exam", "Radiology", "Reader", "Series", "Patient"]),
    text=st.sampled_from(["report", "interpretation", "Impression", "findings", "Befund"]),
    cells=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4),
)
def test_the_text_of_a_report_is_no_metadata(word: str, text: str, cells: list[str]) -> None:
    assert not is_metadata(f"{word} {text}", cells)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("Portable", ["yes", "no"]), ("Pregnant", ["ja", "nein"]), ("Smoker", ["Yes", "No"]), ("ICU", ["yes", "no"]),
        ("report date", ["2024-01-05"]), ("Report ID", ["4711"]), ("PhotometricInterpretation", ["MONOCHROME2"]),
        ("Exposure", ["normal", "over"]), ("report status", ["final", "preliminary"]), ("view", ["frontal", "lateral"]),
        ("Examination date", ["2024-01-05"]), ("protocol", ["CHEST PA"]), ("batch", ["0", "1"]),
    ],
)  # fmt: skip
def test_metadata_stay_metadata(name: str, cells: list[str]) -> None:
    assert is_metadata(name, cells * 3)
