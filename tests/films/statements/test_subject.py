"""Animals, test objects and images of one tissue are told by what their files state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from edgecxr.films.read import read_radiograph
from edgecxr.films.statements.subject import subject_warnings
from tests.films.dicom_files import film, write
from tests.films.statements.test_free_text import reasons, statement

ANIMALS = st.sampled_from(["Canine", "dog", "Felis catus", "EQUINE", "Hund", "chat", "Canis lupus familiaris", "Vet"])
HUMANS = st.sampled_from(["human", "Homo sapiens", "HUMAN BEING", "Mensch", "humano", "", "N/A", "unknown", "?", "M"])
PIXELS = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def code(value: str, scheme: str, meaning: str) -> Dataset:
    return statement(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


@given(name=ANIMALS, element=st.sampled_from(["PatientSpeciesDescription", "PatientBreedDescription"]), human=HUMANS)
def test_animals_are_no_patients_and_people_are(name: str, element: str, human: str) -> None:
    assert reasons(statement(**{element: name})) == ["no-patient"]
    assert reasons(statement(**{element: human})) == []
    assert reasons(statement(PatientSpeciesDescription="human", PatientBreedDescription=name)) == []
    for scheme in ("SCT", "99VET"):
        dataset = statement(PatientSpeciesCodeSequence=[code("448771007", scheme, name)])
        assert reasons(dataset) == ["no-patient"]


@pytest.mark.parametrize(("value", "scheme"), [("337915000", "SCT"), ("L-85003", "SRT")])
def test_a_code_for_people_counts_whatever_it_is_called(value: str, scheme: str) -> None:
    assert reasons(statement(PatientSpeciesCodeSequence=[code(value, scheme, "x y")])) == []


@pytest.mark.parametrize(("stated", "expected", "warning_count"), [
    ("YES", ["no-patient"], 0), ("yes", ["no-patient"], 0), ("BOTH", [], 1), ("NO", [], 0), ("", [], 0),
])  # fmt: skip
def test_quality_control_images_are_no_films_of_patients(stated: str, expected: list[str], warning_count: int) -> None:
    dataset = statement(QualityControlImage=stated)
    assert reasons(dataset) == expected and len(subject_warnings(dataset)) == warning_count


TYPES = st.permutations(["DERIVED", "PRIMARY", "", "POST"])


@given(
    types=TYPES, bone=st.sampled_from(["BONE", "Bones", "BONE_IMAGE"]),
    other=st.sampled_from(["SOFT TISSUE", "SOFT_TISSUE", "SOFT", "BONE_SUPPRESSED", "DUAL_ENERGY"]),
)  # fmt: skip
def test_the_tissue_that_imagetype_names_is_heard(types: list[str], bone: str, other: str) -> None:
    dataset = statement(ImageType=[*types, bone])
    assert reasons(dataset) == ["bones"] and subject_warnings(dataset) == []
    dataset = statement(ImageType=[*types, other])
    assert reasons(dataset) == [] and len(subject_warnings(dataset)) == 1
    dataset = statement(ImageType=types)
    assert reasons(dataset) == [] and subject_warnings(dataset) == []


METHODS = st.sampled_from(["Dual energy", "dual-energy subtraction", "Energy subtraction", "DUAL_ENERGY"])


@given(
    element=st.sampled_from(["DerivationDescription", "SeriesDescription"]), method=METHODS, end=st.sampled_from(", /"),
)  # fmt: skip
def test_words_for_a_tissue_count_beside_their_method(element: str, method: str, end: str) -> None:
    assert reasons(statement(**{element: f"{method}{end} bone"})) == ["bones"]
    soft = statement(**{element: f"{method}{end} soft tissue"})
    assert reasons(soft) == [] and len(subject_warnings(soft)) == 1
    for alone in ("bone", "Soft tissue", "Bone edge enhancement", "Chest, bone algorithm", "lossless compression"):
        dataset = statement(**{element: alone})
        assert reasons(dataset) == [] and subject_warnings(dataset) == []


def test_the_code_of_weighted_energies_is_told() -> None:
    weighted = code("113097", "DCM", "Multi-energy proportional weighting")
    assert len(subject_warnings(statement(DerivationCodeSequence=[weighted]))) == 1
    dataset = statement(DerivationCodeSequence=[weighted], DerivationDescription="Bone image")
    assert reasons(dataset) == ["bones"]
    for other in (code("113097", "99ACME", "Something"), code("113040", "DCM", "Lossy Compression")):
        assert subject_warnings(statement(DerivationCodeSequence=[other])) == []


@pytest.mark.parametrize(("elements", "reason"), [
    ({"PatientSpeciesDescription": "Canine"}, "no-patient"), ({"QualityControlImage": "YES"}, "no-patient"),
    ({"PatientSpeciesCodeSequence": [code("448771007", "SCT", "Dog")]}, "no-patient"),
    ({"ImageType": ["DERIVED", "PRIMARY", "", "BONE"]}, "bones"),
    ({"DerivationDescription": "Dual energy subtraction, bone image"}, "bones"),
])  # fmt: skip
def test_the_reader_keeps_what_is_stated(tmp_path: Path, elements: dict[str, object], reason: str) -> None:
    radiograph = read_radiograph(write(film(PIXELS, **elements), tmp_path))
    assert [objection.reason for objection in radiograph.objections] == [reason]
