"""No column that may hold findings is passed over in silence, and metadata hinder nobody."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecxr.data.tables.cells import NEGATIVE, POSITIVE
from edgecxr.data.tables.metadata import is_metadata
from edgecxr.errors import InputError
from edgecxr.storage.settings import shown
from tests.data.tables.test_findings import opened

EDEMA = ["0", "1"] * 12
NOTATIONS = (
    *(("ja", "nein"), ("oui", "non"), ("sí", "no"), ("T", "F"), ("x", ""), ("95%", "2%"), ("95", "2"), ("+", "-")),
    *(("severe", "none"), ("1", "2"), ("3", "0"), ("vorhanden", "o.B."), ("YES", "NO"), ("wahr", "falsch"), ("●", "○")),
)
WORDS = st.text("abcdefgäéñ0123456789%+-*", min_size=1, max_size=8)
NAMES = st.sampled_from(["Pneumonie", "Pleural Effusion", "Befund", "Mass", "heart size", "chest tube", "finding_1"])


@settings(deadline=None, max_examples=60)
@given(
    name=NAMES,
    words=st.sampled_from(NOTATIONS) | st.tuples(WORDS, WORDS).filter(lambda pair: len(set(pair)) == 2),
    where=st.lists(st.sampled_from([0, 1, 2]), min_size=22, max_size=22),
    labels=st.none() | st.just(["Edema"]),
)
def test_a_column_in_another_notation_stops_or_is_counted(
    name: str, words: tuple[str, str], where: list[int], labels: list[str] | None
) -> None:
    cells = [(*words, "")[place] for place in [0, 1, *where]]
    try:
        dataset = opened({"Edema": EDEMA, name: cells}, labels=labels)
    except InputError as error:
        message = str(error)
        assert error.reason == "dataset" and f"'{name}'" in message and "--ignore" in message
        dataset = opened({"Edema": EDEMA, name: cells}, ignore=[name])
    assert dataset.labels in (("Edema",), ("Edema", name))
    positive = np.array([cell.lower() in POSITIVE for cell in cells])
    films = int((positive & (dataset.abnormal < 0.5)).sum())
    warnings = " ".join(dataset.provenance["warnings"])
    answers = all(cell.lower() in (*POSITIVE, *NEGATIVE, "") for cell in cells)
    assert not (films and answers) or (f"{films} films count as normal" in warnings and name in warnings)


@pytest.mark.parametrize("words", NOTATIONS)
def test_it_stops_unless_the_column_is_left_out_and_is_named_beside_a_stated_abnormal(words: tuple[str, str]) -> None:
    columns = {"Edema": EDEMA, "Pneumonie": [words[row % 4 == 2] for row in range(24)]}
    with pytest.raises(InputError, match="--ignore Pneumonie"):
        opened(columns)
    assert opened(columns, ignore=["Pneumonie"]).labels == ("Edema",)
    if words in (("95%", "2%"), ("95", "2"), ("severe", "none"), ("3", "0"), ("●", "○")):
        (warning,) = opened({**columns, "abnormal": EDEMA}).provenance["warnings"]
        assert "'Pneumonie'" in warning and all(word in warning for word in words)


@settings(deadline=None, max_examples=40)
@given(
    cells=st.lists(st.sampled_from(["0", "1", "", "yes", "no"]), min_size=22, max_size=22),
    odd=st.sampled_from(["-1", "?", "2", "unknown", "1?"]),
    row=st.integers(0, 21),
    option=st.sampled_from([{"ignore": ["Nodule"]}, {"labels": ["Edema"]}]),
)
def test_an_odd_cell_does_not_switch_the_count_off(
    cells: list[str], odd: str, row: int, option: dict[str, list[str]]
) -> None:
    cells = ["1", "0", *cells]
    cells[row + 2] = odd
    dataset = opened({"Edema": EDEMA, "Nodule": cells}, **option)
    films = sum(cell in ("1", "yes") and EDEMA[row] == "0" for row, cell in enumerate(cells))
    warnings = dataset.provenance["warnings"]
    assert f"{films} films count as normal" in warnings[0] and "Nodule" in warnings[0]
    assert f"line {row + 4} 'Nodule' '{odd}'" in warnings[1]


def test_percents_grades_and_diagnoses_of_many_values_are_named() -> None:
    percents = [f"{3 * row}%" for row in range(24)]
    words = [["o.B.", "Erguss", "Stauung", "Infiltrat", "Rundherd", "Pneu"][row % 6] for row in range(24)]
    for name, cells in (("Score", percents), ("Pneumonia", [str(row) for row in range(24)]),
                        ("Labels", ["['edema', 'mass']", *[f"free text {row}" for row in range(23)]])):  # fmt: skip
        with pytest.raises(InputError, match=f"'{name}'"):
            opened({"Edema": EDEMA, name: cells})
        (warning,) = opened({"Edema": EDEMA, name: cells, "abnormal": EDEMA}).provenance["warnings"]
        assert f"'{name}'" in warning
    with pytest.raises(InputError, match="'Diagnose'"):
        opened({"Edema": EDEMA, "Diagnose": words})
    (warning,) = opened({"Edema": EDEMA, "Diagnose": words}, labels=["Edema"]).provenance["warnings"]
    assert "'Diagnose'" in warning and words[1] in warning


REPORTS = ("Report", "Befund", "Impression", "Beurteilung", "Compte rendu", "Informe", "Comment", "text", "Bemerkungen")
SAYINGS = (
    *("Small left {}.", "{} rechts, sonst o.B.", "no focal lesion; {}?", "st. p. {}", "{}", "Zustand nach {}"),
    *("known {}, unchanged", "Verdacht auf {}."),
)
IN_OTHER_WORDS = (
    *("Erguss", "Pleuraerguß", "Stauung", "Infiltrat", "Rippenfrakturen", "Lungenödem", "épanchement", "neumotórax"),
    *("pneumotorace", "derrame", "masses", "opacities", "пневмоторакс", "気胸なし、結節あり"),
)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(REPORTS),
    saying=st.sampled_from(SAYINGS),
    finding=st.sampled_from(["Pneumothorax", "effusion", "NODULE", "Cardiomegaly", *IN_OTHER_WORDS]),
    row=st.integers(0, 23),
)
def test_free_text_that_names_a_finding_is_never_passed_over(name: str, saying: str, finding: str, row: int) -> None:
    cells = [f"seen {place}" for place in range(24)]
    cells[row] = saying.format(finding)
    columns = {"Edema": EDEMA, name: cells}
    with pytest.raises(InputError, match=f"'{name}'") as caught:
        opened(columns)
    assert caught.value.reason == "dataset"
    assert all(remedy in str(caught.value) for remedy in ("--ignore", "--labels"))
    assert opened(columns, ignore=[name]).labels == ("Edema",)
    for options in ({"labels": ["Edema"]}, {"abnormal_column": "Verdict"}):
        dataset = opened({**columns, "Verdict": EDEMA} if "labels" not in options else columns, **options)
        (warning,) = dataset.provenance["warnings"]
        assert f"'{name}'" in warning and cells[row - 1] not in warning  # a text may name its patient


@settings(deadline=None, max_examples=100)
@given(
    name=st.text("abcdefghijklmnop ?-", min_size=1, max_size=12).map(str.strip).filter(bool)
    | st.sampled_from(["Comment", "Remarks", "heart", "Seite", "TB", "Fracture?", "Effusion since", "tube position"]),
    cells=st.lists(
        st.text("abcdefmopu01 .-", max_size=6).map(str.strip) | st.sampled_from(["m", "f", "u", "PA", "2024-01-05"]),
        min_size=24, max_size=24,
    ),
    options=st.sampled_from([{}, {"labels": ["Edema"]}, {"abnormal_column": "Verdict"}]),
)  # fmt: skip
def test_each_column_is_used_or_named_or_refused(name: str, cells: list[str], options: dict[str, object]) -> None:
    if is_metadata(name) or name.lower() in ("image", "patient", "split", "id", "abnormal", "normal", "edema"):
        return
    columns = {"Edema": EDEMA, name: cells} | ({"Verdict": EDEMA} if "abnormal_column" in options else {})
    try:
        dataset = opened(columns, **options)
    except InputError as error:
        assert shown(name) in str(error) and "--ignore" in str(error) and "labels" not in options
    else:
        assert name in dataset.labels or name in " ".join(dataset.provenance["warnings"])


@pytest.mark.parametrize("labels", [None, ["Edema"]])
def test_a_column_without_a_name_is_told_unless_it_numbers_the_rows(labels: list[str] | None) -> None:
    (warning,) = opened({"Edema": EDEMA, "": ["1", "0", ""] * 8}, labels=labels).provenance["warnings"]
    assert "4, counted from the left" in warning
    for cells in ([""] * 24, [str(row) for row in range(24)]):
        assert opened({"Edema": EDEMA, "": cells}, labels=labels).provenance["warnings"] == []


PLAIN = {
    "Reader": ["Smith", "Jones"], "Scanner model": ["X1", "Y2"], "Referring Physician": ["Dr A", "Dr B"],
    "Quality": ["good", "poor"], "report code": ["A", "B"], "radiologist": ["J", "N"], "Image quality": ["1", "2"],
    "ReferringPhysicianName": ["A^B", "C^D"], "Unnamed: 0": ["2", "3"], "Tube voltage": ["90", "125"],
    "signed by": ["AB", "CD"], "software version": ["1.2", "1.3"], "Device serial number": ["17", "18"],
    "Patient's Age": ["58Y", "61Y"], "Manufacturer's Model Name": ["X1", "Y2"], "Operators' Name": ["AB", "CD"],
    "InstanceNumber": ["2", "3"], "AcquisitionNumber": ["2", "3"], "exam code": ["A", "B"],
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("labels", [None, ["Edema"]])
def test_who_read_a_film_and_by_what_refuses_no_table(name: str, labels: list[str] | None) -> None:
    dataset = opened({"Edema": EDEMA, name: PLAIN[name] * 12}, labels=labels)
    assert dataset.labels == ("Edema",) and dataset.provenance["warnings"] == []


@pytest.mark.parametrize("values", [["yes", "no"], ["0", "2"], ["Pneumonia", "clear"], ["positive", "negative"]])
def test_what_a_reader_has_read_is_no_metadata(values: list[str]) -> None:
    for name in ("Reader", "Radiologist"):
        with pytest.raises(InputError, match=f"'{name}'"):
            opened({"Edema": EDEMA, name: values * 12})


@pytest.mark.parametrize("labels", [None, ["Edema"]])
def test_metadata_that_name_a_finding_are_a_warning(labels: list[str] | None) -> None:
    cells = ["CHEST PA", "CHEST, PNEUMOTHORAX CONTROL"] * 12
    (warning,) = opened({"Edema": EDEMA, "StudyDescription": cells}, labels=labels).provenance["warnings"]
    assert "'StudyDescription' (pneumothorax)" in warning


@given(labels=st.sampled_from([["Edema"], ["Edema", "Mass"]]), words=st.sampled_from(NOTATIONS))
@settings(deadline=None, max_examples=20)
def test_with_named_labels_another_column_is_a_warning_at_most(labels: list[str], words: tuple[str, str]) -> None:
    columns = {"Edema": EDEMA, "Mass": EDEMA, "Pneumonie": [words[row % 4 == 2] for row in range(24)]}
    dataset = opened(columns, labels=labels)
    assert dataset.labels == tuple(labels)
    assert "'Pneumonie'" in " ".join(dataset.provenance["warnings"])
    assert ("'Mass'" in " ".join(dataset.provenance["warnings"])) == ("Mass" not in labels)


TABLES = {
    "NIH": {
        "Follow-up #": ["0", "1", "2"], "Patient ID": ["1", "2"], "Patient Age": ["58", "61"],
        "Patient Gender": ["M", "F"], "View Position": ["PA", "AP"], "OriginalImage[Width": ["2682", "2500"],
        "Height]": ["2749", "2048"],
    },
    "CheXpert": {
        "Sex": ["Male", "Female", "Unknown"], "Age": ["68", "87"], "Frontal/Lateral": ["Frontal", "Lateral"],
        "AP/PA": ["AP", "PA", ""], "race": ["White", "Asian", "Other"], "ethnicity": ["a", "b"],
        "interpreter_needed": ["No", "Yes"], "insurance_type": ["Medicare", "Private Insurance"],
        "deceased": ["Yes", "No"],
        "patient_report_date_order": ["1", "2", "3"], "recent_bmi": ["22.1", "30.5", ""],
    },
    "MIMIC": {
        "subject_id": ["10", "11"], "study_id": ["50", "51"], "ViewPosition": ["PA", "LATERAL", "LL"],
        "PerformedProcedureStepDescription": ["CHEST (PA AND LAT)", "CHEST (PORTABLE AP)"], "Rows": ["3056", "2544"],
        "Columns": ["2544", "3056"], "StudyDate": ["21800506", "21800626"], "StudyTime": ["213014.531", "165500.312"],
        "ProcedureCodeSequence_CodeMeaning": ["CHEST (PA AND LAT)", "CHEST (PORTABLE AP)"],
        "ViewCodeSequence_CodeMeaning": ["postero-anterior", "lateral"],
        "PatientOrientationCodeSequence_CodeMeaning": ["Erect", "Recumbent", ""],
    },
    "PadChest": {
        "ImageDir": ["0", "1", "2"], "StudyDate_DICOM": ["20140915", "20150101"], "PatientBirth": ["1930", "1931"],
        "PatientSex_DICOM": ["M", "F"], "Projection": ["PA", "L", "AP_horizontal"], "Pediatric": ["PED", "No"],
        "MethodProjection": ["Manual review of DICOM fields", "Neural network"], "Modality_DICOM": ["CR", "DX"],
        "Manufacturer_DICOM": ["ImagingDynamicsCompanyLtd", "PhilipsMedicalSystems"],
        "PhotometricInterpretation_DICOM": ["MONOCHROME2", "MONOCHROME1"], "BitsStored_DICOM": ["12", "16"],
        "PixelRepresentation_DICOM": ["0", "2"], "WindowCenter_DICOM": ["2048", "8192"], "Exposure_DICOM": ["5", "7"],
        "SpatialResolution_DICOM": ["0.2", "1.25"], "XRayTubeCurrent_DICOM": ["200", "320"],
    },
    "hospital": {
        "Geschlecht": ["m", "w", "d"], "Datum": ["01.02.2024", "03.02.2024"], "station": ["3A", "3B", "ITS"],
        "smoker": ["yes", "no"], "portable": ["yes", "no", ""], "Hersteller": ["Siemens"], "kVp": ["90", "125"],
        "accession number": ["A1", "A2"], "taken": ["2024-01-05 10:22:31", "2024-01-06"],
        "px": ["1024x1024", "512x512"],
        "orig": ["1024x1024 L", "1024x1024 RGBA"], "sha256_src": ["ab" * 32, "cd" * 32],
        "src_path": ["a/b.png", "c/d.png"],
    },
}  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("labels", [None, ["Edema"]])
def test_metadata_of_usual_tables_hinder_nobody(table: str, labels: list[str] | None) -> None:
    columns = {name: [cells[row % 5 % len(cells)] for row in range(24)] for name, cells in TABLES[table].items()}
    dataset = opened({"Edema": EDEMA, **columns}, labels=labels)
    assert dataset.labels == ("Edema",) and dataset.provenance["warnings"] == []
