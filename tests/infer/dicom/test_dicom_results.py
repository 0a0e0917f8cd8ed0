"""`edgecxr infer --dicom`: a structured report and a picture of each DICOM film, for a PACS."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.sr import _concepts_dict
from pydicom.tag import Tag

from edgecxr import NOTICE, __version__
from edgecxr.data.tables.labels import SETS
from edgecxr.errors import UsageError
from edgecxr.films.header import HEADERS, SEQUENCES, checked_header, read_header
from edgecxr.infer import film_readers
from edgecxr.infer.dicom import codes
from edgecxr.infer.film_readers import Readers
from edgecxr.infer.prediction import NOT_TESTED, Rejection
from edgecxr.infer.predictor import PHANTOM_WARNING, Predictor
from edgecxr.infer.run import InferOptions, infer_paths, readers_for
from edgecxr.phantom.dicom_file import encode
from edgecxr.phantom.film import render
from edgecxr.vocabulary import WITHOUT_RESULT
from tests.cli_workspace import edgecxr
from tests.films.dicom_files import DX_FOR_PRESENTATION, film, write
from tests.tiny_bundle import LABELS, tiny_bundle

objects = pytest.importorskip("edgecxr.infer.dicom.objects", reason="highdicom is not installed")

PATIENT = {
    "PatientName": "Quispe^Jane",
    "PatientID": "MRN-80417",
    "PatientBirthDate": "19720229",
    "PatientSex": "F",
    "StudyDate": "20240131",
    "StudyTime": "081530",
    "StudyID": "ST-77",
    "AccessionNumber": "ACC-55001",
    "ReferringPhysicianName": "Okafor^Ben",
}
UIDS = {"StudyInstanceUID": "1.2.826.9.1", "SeriesInstanceUID": "1.2.826.9.2", "SOPInstanceUID": "1.2.826.9.3"}
NIH = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
       "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")  # fmt: skip
PAEDIATRIC = ("Pneumonia", "Pneumonia_bacterial", "Pneumonia_viral")


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor(tiny_bundle(tmp_path / "model", data={"phantom": True}))


def scan(folder: Path, name: str = "film.dcm", **elements: Any) -> Path:
    """Write a film whose upper left quadrant is bright: cardiomegaly in the tiny model's eyes."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:32, :32] = 230
    return write(film(pixels, **PATIENT | UIDS | elements), folder, name)


def infer(
    predictor: Predictor, paths: list[Path], folder: Path, patient: bool = True, unfiled: int = 0
) -> list[Dataset]:
    """Infer from files, and return the reports and pictures in the folder, in the order of their names."""
    options = InferOptions(as_json=True, dicom=folder, patient=patient)
    with readers_for(options, len(paths)) as processes:
        assert infer_paths(predictor, processes, paths, options) == unfiled
    return [dcmread(path) for path in sorted(folder.glob("*.dcm"))]


def results_of(predictor: Predictor, path: Path, folder: Path, patient: bool = True) -> tuple[Dataset, Dataset]:
    picture, report = infer(predictor, [path], folder, patient)
    return report, picture


def items(parent: Dataset, name: str) -> list[Dataset]:
    """Return the content items below another whose concept has this meaning or value."""
    return [
        item
        for item in parent.get("ContentSequence", [])
        for code in item.ConceptNameCodeSequence
        if name in (code.CodeMeaning, code.CodeValue)
    ]


def number(group: Dataset, name: str) -> float:
    (item,) = items(group, name)
    return float(item.MeasuredValueSequence[0].FloatingPointValue)


def answer(group: Dataset, name: str) -> tuple[str, str, str]:
    (item,) = items(group, name)
    return triple(item.ConceptCodeSequence[0])


def triple(code: Dataset) -> tuple[str, str, str]:
    return code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning


def groups(report: Dataset) -> list[Dataset]:
    (measurements,) = items(report, "Imaging Measurements")
    return items(measurements, "Measurement Group")


# ---- what is written


def test_a_film_gets_a_report_and_a_picture_in_series_of_their_own_in_its_study(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    report, picture = results_of(predictor, scan(tmp_path), tmp_path / "results")
    assert report.SOPClassUID.name == "Comprehensive 3D SR Storage" and report.Modality == "SR"
    assert picture.SOPClassUID.name == "Secondary Capture Image Storage" and picture.Modality == "OT"
    for result in (report, picture):
        assert result.StudyInstanceUID == UIDS["StudyInstanceUID"]
        assert {keyword: str(result[keyword].value) for keyword in PATIENT} == PATIENT
        assert "research use only" in result.SeriesDescription and len(result.SeriesDescription) <= 64
        assert result.SOPInstanceUID.startswith("2.25.") and result.SOPInstanceUID in Path(result.filename).name
    series = {each.SeriesInstanceUID for each in (report, picture)}
    assert len(series | {UIDS["SeriesInstanceUID"]}) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dicom: ") and report.filename in line and picture.filename in line


def test_the_report_says_each_finding_with_code_probability_threshold_and_decision(
    tmp_path: Path, predictor: Predictor
) -> None:
    path = scan(tmp_path)
    report, _ = results_of(predictor, path, tmp_path / "results")
    expected = predictor.predict(path)
    whole, *of_findings = groups(report)
    assert [answer(group, "Finding") for group in of_findings] == [
        ("8186001", "SCT", "Cardiomegaly"),
        ("NODULE-OR-MASS", "99EDGECXR", "Nodule or mass"),
        ("60046008", "SCT", "Pleural effusion"),
    ]
    for label, group in zip(LABELS, of_findings, strict=True):
        assert number(group, "Probability") == pytest.approx(expected.findings[label], abs=1e-6)
        assert number(group, codes.THRESHOLD.value) == 0.5
        decision = ("10828004", "SCT", "Positive") if expected.decisions[label] else ("260385009", "SCT", "Negative")
        assert answer(group, "DECISION") == decision
    assert [answer(group, "DECISION")[2] for group in of_findings] == ["Positive", "Negative", "Negative"]
    assert answer(whole, "Finding")[:2] == ("ABNORMAL-FILM", "99EDGECXR")
    assert number(whole, "Probability") == pytest.approx(expected.abnormal, abs=1e-6)
    assert answer(whole, "Normality") == ("17621005", "SCT", "Normal") and answer(whole, "DECISION")[2] == "Negative"


def test_the_report_names_film_model_and_what_it_is_for(tmp_path: Path, predictor: Predictor) -> None:
    path = scan(tmp_path)
    report, _ = results_of(predictor, path, tmp_path / "results")
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert triple(report.ConceptNameCodeSequence[0]) == ("126000", "DCM", "Imaging Measurement Report")
    assert [item.TextValue for item in items(report, "Comment")] == [
        NOTICE,
        *predictor.predict(path).warnings,
        NOT_TESTED,
    ]
    assert answer(report, "Observer Type") == ("121007", "DCM", "Device")
    sha256 = hashlib.sha256(predictor.bundle.artefact("fp32").read_bytes()).hexdigest()
    for group in groups(report):
        assert [item.TextValue for item in items(group, "Algorithm Name")] == ["tiny-test"]
        (version,) = items(group, "Algorithm Version")
        assert sha256[:16] in version.TextValue and __version__ in version.TextValue
        assert [item.TextValue for item in items(group, "Algorithm Parameters")] == ["operating point: youden"]
        (image,) = [item for item in group.ContentSequence if item.ValueType == "IMAGE"]
        (reference,) = image.ReferencedSOPSequence
        assert reference.ReferencedSOPInstanceUID == UIDS["SOPInstanceUID"]
        assert reference.ReferencedSOPClassUID == DX_FOR_PRESENTATION
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == UIDS["StudyInstanceUID"]
    assert study.ReferencedSeriesSequence[0].SeriesInstanceUID == UIDS["SeriesInstanceUID"]
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99EDGECXR"


def test_the_picture_is_the_overlay_below_a_band(tmp_path: Path, predictor: Predictor) -> None:
    from edgecxr.films.display import displayed
    from edgecxr.films.read import read_radiograph
    from edgecxr.infer.overlay import overlay, research_band

    path = scan(tmp_path)
    _, picture = results_of(predictor, path, tmp_path / "results")
    drawn = overlay(displayed(read_radiograph(path).pixels), predictor.predict(path))
    difference = np.abs(picture.pixel_array.astype(int) - np.asarray(research_band(drawn)))
    assert difference.mean() < 0.01
    assert picture.Rows == drawn.height + 34 and picture.Columns == drawn.width
    assert (picture.PhotometricInterpretation, picture.BitsStored, picture.ConversionType) == ("RGB", 8, "WSD")
    assert picture.ImageType[:2] == ["DERIVED", "SECONDARY"] and picture.ImageComments == NOTICE
    (reference,) = picture.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == UIDS["SOPInstanceUID"]
    # The caption names nobody; of the film itself only its file can tell.
    assert "BurnedInAnnotation" not in picture
    for burned_in in ("YES", "NO"):
        marked = results_of(predictor, scan(tmp_path, BurnedInAnnotation=burned_in), tmp_path / burned_in)[1]
        assert marked.BurnedInAnnotation == burned_in


def test_a_second_run_replaces_what_the_first_wrote(tmp_path: Path, predictor: Predictor) -> None:
    path, folder = scan(tmp_path), tmp_path / "results"
    first = infer(predictor, [path], folder)
    again = infer(predictor, [path], folder)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "filename"):
        assert [getattr(each, keyword) for each in first] == [getattr(each, keyword) for each in again]
    items_of = [[str(group) for group in groups(each)] for each in (first[1], again[1])]
    assert items_of[0] == items_of[1] and len(list(folder.iterdir())) == 2


def test_another_film_model_or_operating_point_makes_other_objects(tmp_path: Path, predictor: Predictor) -> None:
    points = {rule: dict.fromkeys((*LABELS, "abnormal"), 0.5) for rule in ("youden", "sensitivity90")}
    other = Predictor(tiny_bundle(tmp_path / "points", operating_points=points), operating_point="sensitivity90")
    larger = Predictor(tiny_bundle(tmp_path / "larger", size=56))
    results = infer(predictor, [scan(tmp_path), scan(tmp_path, "b.dcm", SOPInstanceUID="1.2.826.9.4")], tmp_path / "1")
    results += infer(other, [scan(tmp_path)], tmp_path / "2") + infer(larger, [scan(tmp_path)], tmp_path / "3")
    lower = {"youden": dict.fromkeys((*LABELS, "abnormal"), 0.4)}
    again = Predictor(tiny_bundle(tmp_path / "again", operating_points=lower))
    results += infer(again, [scan(tmp_path)], tmp_path / "4")
    results += infer(predictor, [scan(tmp_path, BurnedInAnnotation="NO")], tmp_path / "5", patient=False)
    assert len({each.SOPInstanceUID for each in results} | {each.SeriesInstanceUID for each in results}) == 24
    reports = [each for each in results if each.Modality == "SR"]
    observers = {str(item.UID) for report in reports for item in items(report, "Device Observer UID")}
    assert len(observers) == len({report.ManufacturerModelName for report in reports}) + 1, "one for each model file"


def test_typed_as_a_user_types_it(tmp_path: Path, predictor: Predictor) -> None:
    path, folder = scan(tmp_path / "archive", BurnedInAnnotation="NO"), tmp_path / "results"
    typed = ("infer", str(path.parent), "--model", str(predictor.bundle.path), "--dicom", str(folder))
    ended = edgecxr(*typed, "--no-phi", runs=tmp_path / "runs")
    assert ended.code == 0 and "0.83 >= 0.50" in ended.out and ended.err.startswith("dicom: ")
    assert [str(dcmread(file).PatientName) for file in folder.iterdir()] == ["", ""]
    # What names the patient is another object: a PACS that has the one must not keep it for the other.
    assert edgecxr(*typed, runs=tmp_path / "runs").code == 0
    names = sorted(str(dcmread(file).PatientName) for file in folder.iterdir())
    assert names == ["", "", *[PATIENT["PatientName"]] * 2]


# ---- who the patient is


def test_without_phi_no_string_of_the_patient_is_in_the_files(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = {**PATIENT, "BodyPartExamined": "KNEE QUISPE"}
    named = scan(tmp_path / "named", **secret)
    report, picture = results_of(predictor, named, tmp_path / "with")
    assert b"Quispe^Jane" in Path(report.filename).read_bytes()
    assert any("KNEE QUISPE" in item.TextValue for item in items(report, "Comment"))
    named = scan(tmp_path / "no names in pixels", **secret, BurnedInAnnotation="NO")
    report, picture = results_of(predictor, named, tmp_path / "results", patient=False)
    for result in (report, picture):
        content = Path(result.filename).read_bytes()
        strings = {part for value in secret.values() for part in re.split(r"[\^ ]", value) if len(part) > 1}
        assert [part for part in strings if part.encode() in content] == []
        assert {keyword: str(result[keyword].value or "") for keyword in PATIENT} == dict.fromkeys(PATIENT, "")
        assert result.StudyInstanceUID == UIDS["StudyInstanceUID"]
    assert [item.TextValue for item in items(report, "Comment")] == [NOTICE, PHANTOM_WARNING, NOT_TESTED]
    assert "Quispe" not in capsys.readouterr().err


def test_a_report_says_that_the_quality_gate_was_overruled_and_no_phi_quotes_nothing(tmp_path: Path) -> None:
    forced = Predictor(tiny_bundle(tmp_path / "patients"), force=True)
    knee = scan(tmp_path, BodyPartExamined="KNEE QUISPE")
    overruled = "the quality gate refuses this film (body-part) and was overruled by --force"
    report, _ = results_of(forced, knee, tmp_path / "with")
    comments = [item.TextValue for item in items(report, "Comment")]
    assert comments[0] == NOTICE and overruled in comments and any("KNEE" in text for text in comments)
    (report,) = infer(forced, [knee], tmp_path / "without", patient=False)
    assert [item.TextValue for item in items(report, "Comment")] == [NOTICE, overruled, NOT_TESTED]
    (chest,) = infer(forced, [scan(tmp_path, "chest.dcm")], tmp_path / "chest", patient=False)
    assert chest.SOPInstanceUID != report.SOPInstanceUID, "one UID does not stand for two contents"


@pytest.mark.parametrize("elements", [{"BurnedInAnnotation": "YES"}, {"BurnedInAnnotation": "Y"}, {}])
def test_without_phi_a_film_that_may_have_names_in_its_pixels_gets_no_picture(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str], elements: dict[str, str]
) -> None:
    (report,) = infer(predictor, [scan(tmp_path, **elements)], tmp_path / "results", patient=False)
    assert report.Modality == "SR" and "no picture" in capsys.readouterr().err


def test_a_name_in_another_script_arrives(tmp_path: Path, predictor: Predictor) -> None:
    path = scan(tmp_path, SpecificCharacterSet="ISO_IR 192", PatientName="Yamada^Tarou=山田^太郎")
    for result in results_of(predictor, path, tmp_path / "results"):
        assert str(result.PatientName) == "Yamada^Tarou=山田^太郎"


# What files hold, DICOM's own rules broken in part.
ODD = st.text(st.characters(codec="ascii", exclude_characters="\x1b\x7f\0\n\r\f"), max_size=200).map(str.strip)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    values=st.fixed_dictionaries(
        dict.fromkeys(
            ("PatientID", "AccessionNumber", "StudyID", "PatientName", "PatientSex", "IssuerOfPatientID"), ODD
        )
    )
)
def test_identifiers_are_repeated_as_they_stand(tmp_path_factory: Any, values: dict[str, str]) -> None:
    path = scan(tmp_path_factory.mktemp("odd"), **values)
    header, written = read_header(path, "patient"), dcmread(path)
    for keyword in values:
        element = written.get_item(keyword)
        assert header[keyword] == (element.value or b"").decode().strip(" \0")
        # pydicom, which has written the file, strips the parts of names and of several values.
        if keyword != "PatientName" and "\\" not in values[keyword]:
            assert header[keyword] == values[keyword]
    assert checked_header(header, "patient") == header


@pytest.mark.parametrize(
    "wrong",
    [
        {"PatientID": "x" * 70}, {"PatientID": "0012\\34"}, {"PatientID": "a\tb"}, {"AccessionNumber": "1" * 21},
        {"StudyTime": "235960"}, {"PatientSex": "m"}, {"PatientName": "A^B^C^D^E=F=G"}, {"StudyID": "y" * 30},
        {"IssuerOfPatientID": "St. Elsewhere", "TimezoneOffsetFromUTC": "-0930"}, {"StudyDate": "20230231"},
    ],
)  # fmt: skip
def test_reports_and_pictures_have_them_too(tmp_path: Path, predictor: Predictor, wrong: dict[str, str]) -> None:
    for result in results_of(predictor, scan(tmp_path, **wrong), tmp_path / "results"):
        written = dcmread(result.filename)
        for keyword, value in wrong.items():
            assert written.get_item(keyword).value.decode().strip() == value


ENTITY = st.fixed_dictionaries(
    {"LocalNamespaceEntityID": ODD}, optional={"UniversalEntityID": ODD, "UniversalEntityIDType": ODD}
)


@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
@given(
    issuers=st.fixed_dictionaries(dict.fromkeys(SEQUENCES, st.lists(ENTITY, max_size=2))),
    kind=st.sampled_from(["", "TEXT", "RFID"]),
)
def test_who_gave_an_identifier_is_repeated_or_named(
    tmp_path_factory: Any, predictor: Predictor, issuers: dict[str, list[dict[str, str]]], kind: str
) -> None:
    folder = tmp_path_factory.mktemp("issuers")
    items = {keyword: [Dataset() for _ in values] for keyword, values in issuers.items()}
    for keyword, values in issuers.items():
        for item, elements in zip(items[keyword], values, strict=True):
            item.update({Tag(name): DataElement(Tag(name), dictionary_VR(name), text, validation_mode=0)
                         for name, text in elements.items()})  # fmt: skip
    path = scan(folder, TypeOfPatientID=kind, **items)
    source, header = dcmread(path), read_header(path, "patient")
    assert checked_header(header, "patient") == header
    lost = header["NotRepeated"].split()
    results = infer(predictor, [path], folder / "results", unfiled=int(SEQUENCES[0] in lost))
    assert len(results) == (0 if SEQUENCES[0] in lost else 2)
    for result in results:
        assert result.TypeOfPatientID == kind if kind else "TypeOfPatientID" not in result
        for keyword in SEQUENCES:
            kept = [item for item in source.get(keyword, []) if item]
            assert (keyword in lost) or list(result.get(keyword, [])) == (source[keyword].value if kept else [])


@pytest.mark.parametrize("keyword", ["IssuerOfPatientID", *SEQUENCES])
def test_an_issuer_that_cannot_be_repeated_is_named_itself(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str], keyword: str
) -> None:
    item = Dataset()
    item.LocalNamespaceEntityID = "WARD-7"
    path = scan(tmp_path, **{keyword: [item] if keyword in SEQUENCES else "WARD-7"})
    path.write_bytes(path.read_bytes().replace(b"WARD-7", b"WARD\xb0\xb1"))
    whose = keyword != "IssuerOfAccessionNumberSequence"
    assert len(infer(predictor, [path], tmp_path / "results", unfiled=int(whose))) == (0 if whose else 2)
    err = capsys.readouterr().err
    assert keyword in err and "PatientID " not in err.replace(keyword, "")


@pytest.mark.parametrize("uid", ["1.2.840.SMITH", "", "1" * 70])
def test_a_film_whose_study_has_an_odd_uid_can_still_be_joined(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str], uid: str
) -> None:
    assert infer(predictor, [scan(tmp_path, StudyInstanceUID=uid)], tmp_path / "results", unfiled=1) == []
    line = json.loads(capsys.readouterr().out)
    assert line["film"] == UIDS | {"StudyInstanceUID": uid} and line["dicom"]["reason"] == "no-identifiers"


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "keyword", "value"),
    [
        ("pid70", "PatientID", None), ("pid_backslash", "PatientID", None), ("acc21", "AccessionNumber", None),
        ("acc21", "StudyID", None), ("cs_pn4", "PatientName", None), ("sex_lower", "PatientSex", None),
        ("time_235960", "StudyTime", None), ("issuer_tz", "IssuerOfPatientID", None),
        ("issuer_tz", "TimezoneOffsetFromUTC", None), ("acrnema_date", "StudyDate", "20240105"),
        ("cs_none_gbk", "PatientName", ""), ("cs_none_sjis", "PatientName", ""),
    ],
)  # fmt: skip
def test_identifiers_that_were_lost_once_are_repeated_or_named(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str], name: str, keyword: str, value: str | None
) -> None:
    root = os.environ.get("EDGECXR_CORPUS")
    if not root:
        pytest.skip("EDGECXR_CORPUS is not set")
    path = Path(root).parent / "cases" / "films" / f"{name}.dcm"
    source = dcmread(path).get_item(keyword).value
    expected = source.decode().strip() if value is None else value
    for result in results_of(predictor, path, tmp_path / "results"):
        assert (dcmread(result.filename).get_item(keyword).value or b"").decode().strip() == expected
    assert ("not repeated" in capsys.readouterr().err) == (value == "")


def test_dates_of_old_files_are_the_same_dates_without_dots(tmp_path: Path, predictor: Predictor) -> None:
    path = scan(tmp_path, StudyDate="2024.01.05", StudyTime="10:30:45", PatientBirthDate="1972.02.29")
    for result in results_of(predictor, path, tmp_path / "results"):
        assert (result.StudyDate, result.StudyTime, result.PatientBirthDate) == ("20240105", "103045", "19720229")


def test_what_cannot_be_repeated_is_named_and_without_the_patients_id_there_is_no_result(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    path = scan(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Quispe^Jane", "田中^太".encode("gbk") + b"^^^^"[: 11 - 7]))
    for result in results_of(predictor, path, tmp_path / "results"):
        assert str(result.PatientName) == "" and result.PatientID == PATIENT["PatientID"]
    assert "not repeated: PatientName" in capsys.readouterr().err
    path.write_bytes(content.replace(b"MRN-80417", b"MRN-\xb0\xb1417"))
    assert infer(predictor, [path], tmp_path / "none", unfiled=1) == []
    printed = capsys.readouterr()
    assert "PatientID cannot be repeated" in printed.err
    line = json.loads(printed.out.splitlines()[-1])
    assert line["status"] == "ok" and (line["dicom"]["reason"], line["dicom"]["files"]) == ("no-patient-id", [])
    assert line["film"] == {keyword: UIDS[keyword] for keyword in line["film"]} and len(line["film"]) == 3


def test_another_content_under_one_uid_gets_results_of_its_own_and_is_named(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = {
        "window": {"WindowCenter": 100, "WindowWidth": 90}, "patient": {"PatientID": "other"},
        "study": {"StudyInstanceUID": "1.2.826.9.77"}, "view": {"PatientOrientation": ["R", "F"]}, "plain": {},
    }  # fmt: skip
    paths = [scan(tmp_path / name, **elements) for name, elements in variants.items()]
    results = infer(predictor, paths, tmp_path / "results")
    assert len({file.SOPInstanceUID for file in results}) == len(results) == 2 * len(variants)
    assert capsys.readouterr().err.count("has the same SOPInstanceUID") == len(variants) - 1


def test_a_second_run_writes_the_same_bytes(tmp_path: Path, predictor: Predictor) -> None:
    path = scan(tmp_path, TimezoneOffsetFromUTC="+0300")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    first = [Path(each.filename).read_bytes() for each in infer(predictor, [path], tmp_path / "a")]
    time.sleep(1.1)
    again = infer(predictor, [path], tmp_path / "b")
    assert first == [Path(each.filename).read_bytes() for each in again]
    for result in again:
        assert (result.ContentDate, result.ContentTime, result.SeriesDate) == ("20231115", "011320", "20231115")


@pytest.mark.parametrize("declared", ["ISO_IR 999", "ISO 2022 IR 6", ["ISO 2022 IR 6", "ISO 2022 IR 87"]])
def test_bytes_that_no_declared_character_set_has_are_not_guessed(tmp_path: Path, declared: str | list[str]) -> None:
    path = scan(tmp_path, SpecificCharacterSet=declared, PatientName="Muller^Ann")
    path.write_bytes(path.read_bytes().replace(b"Muller^Ann", "Müller^An".encode()))
    header = read_header(path, "patient")
    assert (header["PatientName"], header["NotRepeated"]) == ("", "PatientName")


@pytest.mark.parametrize("odd", [{"LossyImageCompressionRatio": b"10:1"}, {"TimezoneOffsetFromUTC": b"+9999"}])
def test_a_fact_in_no_form_that_means_something_is_named_and_costs_no_result(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str], odd: dict[str, bytes]
) -> None:
    valid = {"LossyImageCompressionRatio": "10.0", "TimezoneOffsetFromUTC": "+0100"}
    ((keyword, value),) = odd.items()
    path = scan(tmp_path, **{keyword: valid[keyword]})
    content = path.read_bytes()
    written = valid[keyword].encode()
    assert written in content
    path.write_bytes(content.replace(written, value))
    assert len(infer(predictor, [path], tmp_path / "results")) == 2
    assert f"not repeated: {keyword}" in capsys.readouterr().err


def test_a_line_of_json_says_what_was_written_and_of_which_film(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    results = infer(predictor, [scan(tmp_path)], tmp_path / "results")
    line = json.loads(capsys.readouterr().out)
    assert line["film"] == UIDS and line["dicom"]["reason"] is None and line["overlay"] is None
    assert {file["SOPInstanceUID"] for file in line["dicom"]["files"]} == {file.SOPInstanceUID for file in results}
    assert all(Path(file["path"]).is_file() for file in line["dicom"]["files"])


@pytest.mark.parametrize("sides", [{"PixelAspectRatio": [2, 1]}, {"ImagerPixelSpacing": ["0.3", "0.15"]}])
def test_the_picture_of_a_film_whose_pixels_are_not_square_has_square_ones(
    tmp_path: Path, predictor: Predictor, sides: dict[str, Any]
) -> None:
    _, picture = results_of(predictor, scan(tmp_path, **sides), tmp_path / "results")
    film_below_the_band = picture.pixel_array[34 : 34 + 560, 140:420]  # 64 x 64 pixels, of double height
    assert picture.Columns == 560 and film_below_the_band[0, 140].any() and film_below_the_band[-1, 0].any() == 0
    assert not {"PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing"} & set(picture.dir())


def test_odd_names_and_uids_of_old_films_arrive_and_are_not_quoted(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    odd = {"PatientName": "QUISPE  JANE^^^^^^", "StudyInstanceUID": "1.02.3"}
    for result in results_of(predictor, scan(tmp_path, **odd), tmp_path / "results"):
        assert (str(result.PatientName), result.StudyInstanceUID) == (odd["PatientName"], odd["StudyInstanceUID"])
    assert "QUISPE" not in capsys.readouterr().err + "".join(str(warning.message) for warning in recwarn)


def test_the_header_is_read_by_the_process_that_reads_the_film_and_only_as_far_as_it_is_wanted(tmp_path: Path) -> None:
    path = scan(tmp_path)
    with Readers(1) as processes:
        for kind, has_name in ((None, None), ("identifiers", False), ("patient", True)):
            ((film_read,),) = processes.read([path], 224, header=kind)
            assert not isinstance(film_read, Rejection)
            if kind is None:
                assert film_read.header is None
            else:
                assert film_read.header == read_header(path, kind)
                assert film_read.header["SOPInstanceUID"] == "1.2.826.9.3"
                assert ("PatientName" in film_read.header) == has_name


def test_a_process_that_answers_with_another_header_than_was_asked_for_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scan(tmp_path)
    for header in ({"PatientName": "x"}, dict.fromkeys(HEADERS["identifiers"], 1), ["x"], None):
        monkeypatch.setattr(film_readers, "read_header", lambda path, kind, header=header: header)
        with Readers(1, fork=True) as processes:
            ((rejection,),) = processes.read([path], 224, header="identifiers")
            assert isinstance(rejection, Rejection) and rejection.reason == "crash"


# ---- what gets no result


def test_a_film_that_cannot_be_referred_to_gets_no_result_and_the_rest_goes_on(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "a.png"
    Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)).save(image)
    bare = scan(tmp_path, "b.dcm", StudyInstanceUID=None)
    twin = scan(tmp_path / "twin", "d.dcm")
    results = infer(predictor, [image, bare, scan(tmp_path), twin], tmp_path / "results", unfiled=2)
    printed = capsys.readouterr()
    assert len(results) in (2, 4) and len(printed.out.splitlines()) == 4
    messages = printed.err.splitlines()
    assert re.search(r"^no DICOM result of .*a\.png: it has no usable StudyInstanceUID, SeriesInstanceUID", messages[0])
    assert messages[1] == f"no DICOM result of {bare}: it has no usable StudyInstanceUID"
    assert messages[2].startswith("dicom: ")
    assert messages[3].startswith("dicom: "), "a copy is no other film"


@pytest.mark.parametrize(
    ("broken", "kinds", "reason"),
    [
        ({"research_band"}, ["sr"], "no-picture"), ({"filled_report"}, ["sc"], "no-report"),
        ({"research_band", "filled_report"}, [], "not-made"),
    ],
)  # fmt: skip
def test_if_one_file_cannot_be_made_the_other_is_and_a_code_says_so(
    tmp_path: Path,
    predictor: Predictor,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    broken: set[str],
    kinds: list[str],
    reason: str,
) -> None:
    def fail(*anything: object) -> None:
        raise ValueError("no font")

    for name in broken:
        monkeypatch.setattr(objects, name, fail)
    results = infer(predictor, [scan(tmp_path)], tmp_path / "results", unfiled=1)
    line = json.loads(capsys.readouterr().out)
    assert (line["status"], line["dicom"]["reason"]) == ("ok", reason) and reason in WITHOUT_RESULT
    assert [file["kind"] for file in line["dicom"]["files"]] == kinds and len(results) == len(kinds)


def test_a_picture_that_no_phi_leaves_out_has_a_code(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    for burnt, reason in (("NO", None), ("YES", "may-show-names"), (None, "may-show-names")):
        path = scan(tmp_path, f"{burnt}.dcm", BurnedInAnnotation=burnt)
        results = infer(predictor, [path], tmp_path / f"results-{burnt}", patient=False)
        outcome = json.loads(capsys.readouterr().out)["dicom"]
        assert (outcome["reason"], len(results), len(outcome["files"])) == (reason, 1 + (reason is None), len(results))


CLASSES = st.sampled_from(["1.2.840.113619.4.30", "1.3.12.2.1107.5.9.1", "1.2.840.10008.5.1.4.1.1.1", "1.2.3.4.5"])


@settings(deadline=None, max_examples=5, suppress_health_check=list(HealthCheck))
@given(sop_class=CLASSES | st.from_regex(r"\A1\.2\.[1-9][0-9]{0,8}(\.[1-9][0-9]{0,8}){1,4}\Z"))
def test_a_film_of_a_vendor_s_own_class_gets_a_valid_report(
    tmp_path_factory: Any, predictor: Predictor, sop_class: str
) -> None:
    folder = tmp_path_factory.mktemp("class")
    report, picture = results_of(predictor, scan(folder, SOPClassUID=sop_class), folder / "results")
    references = [element.value for element in report.iterall() if element.keyword == "ReferencedSOPClassUID"]
    assert references == [sop_class] * 5 and len(references) == 1 + len(groups(report))
    assert picture.SourceImageSequence[0].ReferencedSOPClassUID == sop_class
    assert [line for line in output_of("dciodvfy", report.filename).splitlines() if line.startswith("Error")] == []


def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_option(
    tmp_path: Path, predictor: Predictor
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    with pytest.raises(UsageError, match="--dicom"):
        infer(predictor, [scan(tmp_path)], taken)
    with pytest.raises(UsageError, match="--dicom"):
        infer(predictor, [scan(tmp_path)], taken / "below")


def test_leaving_out_the_patient_is_about_dicom_files_alone() -> None:
    with pytest.raises(UsageError, match="add --dicom"):
        InferOptions(patient=False).check()


# ---- codes


def test_every_label_of_the_data_sets_has_a_code_of_its_own() -> None:
    named = {label: codes.finding(label) for label in (*SETS["all"], *NIH, *PAEDIATRIC)}
    same = {"Effusion": "Pleural effusion", "Fibrosis": "Pulmonary fibrosis",
            "Pleural_Thickening": "Pleural thickening"}  # fmt: skip
    for synonym, other in same.items():
        assert named.pop(synonym) == named[other]
    assert len({(code.value, code.scheme) for code in named.values()}) == len(named)
    assert not [label for label, code in named.items() if code.value.startswith("L-")]
    for code in named.values():
        assert len(code.value) <= 16 and code.meaning and len(code.meaning) <= 64


def test_codes_that_dicom_lists_mean_what_dicom_says() -> None:
    used = {code for code in vars(codes).values() if isinstance(code, codes.Code)}
    used |= {codes.finding(label) for label in (*SETS["all"], *NIH, *PAEDIATRIC)}
    listed = {
        (value, scheme): meaning
        for scheme in ("DCM", "SCT")
        for concepts in _concepts_dict.concepts[scheme].values()
        for value, (meaning, _) in concepts.items()
    }
    of_dicom = {code for code in used if (code.value, code.scheme) in listed}
    assert {code for code in used if code.scheme == "DCM"} < of_dicom and len(of_dicom) > 12
    for code in of_dicom:
        assert code.meaning.lower() == listed[code.value, code.scheme].lower()


def test_the_documentation_lists_every_code() -> None:
    page = (Path(__file__).parents[3] / "docs" / "dicom.md").read_text()
    for label in (*SETS["all"], *NIH, *PAEDIATRIC):
        code = codes.finding(label)
        (row,) = [line for line in page.splitlines() if line.startswith("| `") and f"`{label}`" in line]
        assert row.endswith(f"| {code.value}, {code.scheme} | {code.meaning} |"), label


def test_a_label_of_ones_own_gets_a_private_code_that_never_changes() -> None:
    code = codes.finding("Scimitar\\sign " + "x" * 80)
    assert code == codes.finding("Scimitar\\sign " + "x" * 80) != codes.finding("Scimitar sign")
    assert code.scheme == "99EDGECXR" and re.fullmatch(r"L-[0-9a-f]{12}", code.value)
    assert code.meaning.startswith("Scimitar/sign x") and len(code.meaning) == 64


# ---- what others say of the files


def output_of(tool: str, *arguments: str) -> str:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian: dcmtk, dicom3tools)")
    ended = subprocess.run([tool, *arguments], capture_output=True, text=True, errors="replace", timeout=60)
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("patient", [True, False])
@pytest.mark.parametrize("kind", ["film", "phantom", "bare"])
def test_dciodvfy_finds_no_errors(tmp_path: Path, predictor: Predictor, kind: str, patient: bool) -> None:
    path = tmp_path / "film.dcm"
    if kind == "phantom":
        path.write_bytes(encode(render(3, 0), 3))
    else:
        scan(tmp_path, **{"BurnedInAnnotation": "NO"} | (dict.fromkeys(PATIENT) if kind == "bare" else {}))
    for result in results_of(predictor, path, tmp_path / "results", patient):
        messages = output_of("dciodvfy", result.filename).splitlines()
        assert [line for line in messages if line.startswith("Error")] == []
        assert {"SR": "Comprehensive3DSR", "OT": "SCImage"}[result.Modality] in messages


def test_dsrdump_reads_the_report(tmp_path: Path, predictor: Predictor) -> None:
    report, _ = results_of(predictor, scan(tmp_path), tmp_path / "results")
    dump = output_of("dsrdump", "+Pl", "+Pc", report.filename)
    assert "Comprehensive 3D SR Document" in dump and NOTICE in dump
    assert '(121071,DCM,"Finding")=(8186001,SCT,"Cardiomegaly")' in dump
    assert not re.search(r"^[EF]: ", dump, flags=re.MULTILINE)


def test_highdicom_reads_the_report(tmp_path: Path, predictor: Predictor) -> None:
    from highdicom.sr import Comprehensive3DSR

    report, _ = results_of(predictor, scan(tmp_path), tmp_path / "results")
    content: Any = Comprehensive3DSR.from_dataset(report).content
    measurement_groups = content.get_image_measurement_groups(referenced_sop_instance_uid=UIDS["SOPInstanceUID"])
    assert [group.finding_type.meaning for group in measurement_groups][1:] == [
        "Cardiomegaly",
        "Nodule or mass",
        "Pleural effusion",
    ]
